"""`inspect` on backbone weights: what they are, which detectors they feed, and no detector."""

import json

import pytest
import torch
import zoo
from click.testing import CliRunner

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.cli.inspect import TRAINED_LAYOUT
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.core.spec import Backbone


@pytest.fixture
def weights(tmp_path):
    """Files of the right keys and shapes, by folder of the zoo."""
    about, _ = zoo.backbones()

    def written(folder):
        path = tmp_path / f"{folder}.pth"
        shapes = about[folder]["keys"].items()
        torch.save({key: torch.zeros(1).expand(shape) for key, shape in shapes if shape}, path)
        return path

    return written


def inspect(*arguments):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def test_it_names_the_family_and_what_it_feeds(weights):
    path = weights("init_timm_small")

    result = inspect(path)

    assert result.exit_code == 0, result.output
    assert "backbone weights, MobileNetV3-Small (timm:" in result.stdout
    assert "not a detector" in result.stdout
    assert "it can initialise detectors of width 1 and layout torchvision" in result.stdout
    assert "conv_stem.weight" in result.stdout
    command = f"train --data voc:PHOTOS --arch small --backbone {path}"
    assert result.stdout.splitlines()[-1] == f"next: mbv3ssd-deploy {command}"


def test_what_train_makes_is_of_the_layout_that_the_next_command_is_printed_for():
    assert native_spec(Backbone.SMALL, ("background", "x")).arch.layout == TRAINED_LAYOUT


def test_it_says_why_nothing_is_fed_and_gives_json(weights):
    path = weights("init_xiaolai_act3_large")

    said, plain = inspect(path), inspect(path, "--json")

    assert "next:" not in said.stdout
    assert "it can initialise no detector: its blocks activate after the addition" in said.stdout
    found = json.loads(plain.stdout)
    assert (found["kind"], found["family"], found["feeds"]) == ("backbone", "xiaolai-act3", [])
    assert found["path"] == str(path)


def test_it_holds_no_spec_to_write(weights, tmp_path):
    result = inspect(weights("init_dli14_large"), "--write-spec", tmp_path / "spec.json")

    assert result.exit_code == 2
    assert "no spec to write" in result.stderr
    assert not (tmp_path / "spec.json").exists()


def test_with_a_family_asked_for_it_is_refused_as_before(weights):
    result = inspect(weights("init_dli14_large"), "--family", "lufficc")

    assert result.exit_code == 3
    assert "this is not a lufficc checkpoint" in result.stderr
