"""`demo` writes what the README goes on with."""

import pytest
from click.testing import CliRunner
from renderer.scenes import SCENE_CLASSES

from mbv3ssd_deploy.checkpoint import shipped
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset


def run(*words):
    return CliRunner().invoke(cli, ["demo", *map(str, words)])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a demo")
    return run("-o", folder), folder


def test_it_writes_a_trained_detector_that_loads(written):
    result, folder = written

    assert result.exit_code == 0, result.output
    loaded = load_detector(folder / "model.pth")
    assert loaded.checkpoint.family == "native"
    assert loaded.spec.class_names == SCENE_CLASSES
    assert f"next: mbv3ssd-deploy export '{folder}/model.pth' -o '{folder}/deploy'" in result.stdout


def test_it_writes_annotated_scenes(written):
    _, folder = written

    dataset = read_dataset(f"voc:{folder / 'scenes'}", Split.TEST)

    assert len(dataset) == 12
    assert dataset.class_names == SCENE_CLASSES
    assert dataset.problems == ()
    assert sum(len(sample.truth.labels) for sample in dataset.samples) > 50


def test_a_readme_that_is_there_already_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")

    result = run("-o", tmp_path)

    assert result.exit_code == 0, result.output
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "model.md").read_text().startswith("# scenes-small")


def test_without_the_models_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "package")

    result = run("-o", tmp_path / "demo")

    assert result.exit_code == 4
    assert "install it again" in result.stderr
    assert not (tmp_path / "demo").exists()
