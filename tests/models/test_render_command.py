import json

import pytest
from click.testing import CliRunner
from render import cli

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset


def run(*words):
    return CliRunner().invoke(cli, ["scenes", *map(str, words)])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "my scenes"


def test_scenes_end_with_what_to_type_next(folder):
    result = run(folder, "--count", 4, "--size", "96x64", "--workers", 1)

    assert result.exit_code == 0, result.stderr
    assert f"to {folder}: 2 train, 1 val, 1 test" in result.stdout
    assert f"next: mbv3ssd-deploy train --data 'voc:{folder}'" in result.stdout
    sample = read_dataset(f"voc:{folder}", Split.TEST).samples[0]
    assert (sample.width, sample.height) == (96, 64)


def test_json_says_what_was_written(folder):
    result = run(folder, "--count", 3, "--size", "64x64", "--workers", 1, "--json")

    facts = json.loads(result.stdout)
    assert facts["folder"] == str(folder)
    assert facts["images"] == {"train": 1, "val": 1, "test": 1, "trainval": 2}
    assert facts["class_names"][0] == "background"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "12"), "not a size like 480x360"),
        (("--size", "99x63"), "scenes need 64x64 pixels"),
        (("--count", "2"), "x>=3"),
        (("--style", "wild"), "crowded"),
    ],
)
def test_wrong_words_are_wrong_usage(folder, words, said):
    result = run(folder, *words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert not folder.exists()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    result = run(tmp_path, "--count", 3)

    assert result.exit_code == 3
    assert "the folder holds other files" in result.stderr
    assert "hint" in result.stderr


def test_the_untrained_checkpoint_comes_with_images(tmp_path):
    words = ["untrained", str(tmp_path), "--images", "2"]

    result = CliRunner().invoke(cli, words)

    assert result.exit_code == 0, result.output
    assert "next: mbv3ssd-deploy export" in result.stdout
    assert len(list((tmp_path / "images").iterdir())) == 2
