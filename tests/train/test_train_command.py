import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mbv3ssd_deploy.cli.main import cli

SHAPE = ("--arch", "small", "--width", "0.25", "--imgsz", "64")
TINY = (*SHAPE, "--batch", "4", "--workers", "0", "--device", "cpu")


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in ("train", *words)])


def test_a_run_ends_with_its_files_and_the_next_command(voc, tmp_path):
    folder = tmp_path / "a run"

    done = run("--data", f"voc:{voc}", *TINY, "--epochs", "1", "-o", folder)

    assert done.exit_code == 0, done.output
    assert "overlap a prior" in done.stderr
    assert "epoch   1  loss" in done.stderr
    assert "best mAP50 (VOC07)" in done.stdout
    for name in ("best.pth", "last.pth", "history.csv", "history.png", "run.json"):
        assert f"wrote {folder / name}" in done.stdout
    assert f"next: mbv3ssd-deploy export '{folder}/best.pth'" in done.stdout
    exported = CliRunner().invoke(
        cli, ["export", str(folder / "best.pth"), "-o", str(folder / "deploy")]
    )
    assert exported.exit_code == 0, exported.output
    again = run("--resume", folder / "last.pth")
    assert again.exit_code == 0
    assert "nothing is left to do: the run has ended after 1 epochs" in again.stderr
    assert "wrote" not in again.stdout


def test_json_is_the_only_output_on_stdout(voc, tmp_path):
    done = run("--data", f"voc:{voc}", *TINY, "--epochs", "1", "--json", "-o", tmp_path / "run")

    report = json.loads(done.stdout)
    assert report["epochs"] == 1
    assert report["recipe"]["batch"] == 4
    assert set(report["classes"]) == {"disc", "square", "triangle", "star", "ring"}


def test_the_flags_of_the_schedule_reach_the_recipe(voc, tmp_path):
    steps = ("--schedule", "multistep", "--milestones", "0.6,0.85", "--extras-lr", "0.5")

    done = run(
        "--data", f"voc:{voc}", *TINY, "--epochs", "1", *steps, "--json", "-o", tmp_path / "run"
    )

    recipe = json.loads(done.stdout)["recipe"]
    assert recipe["schedule"] == "multistep"
    assert recipe["milestones"] == [0.6, 0.85]
    assert recipe["extras_lr"] == 0.5
    other = run("--resume", tmp_path / "run" / "last.pth", "--milestones", "0.5")
    assert "milestones is (0.6, 0.85), not (0.5,)" in other.stderr


def test_ctrl_c_saves_and_prints_how_to_resume(voc, tmp_path):
    words = ["--data", f"voc:{voc}", *TINY, "--epochs", "5000", "--val-every", "5000"]
    command = [sys.executable, "-m", "mbv3ssd_deploy", "train", *words, "-o", str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:
        for line in child.stderr:
            if line.startswith("epoch"):
                break
        child.send_signal(signal.SIGINT)
        _, rest = child.communicate(timeout=300)

    assert child.returncode == 130
    resume = f"mbv3ssd-deploy train --resume {tmp_path / 'run' / 'last.pth'}"
    assert resume in rest
    assert "Traceback" not in rest
    from mbv3ssd_deploy.train.snapshot import DETECTOR, read_snapshot

    assert read_snapshot(tmp_path / "run" / "last.pth", DETECTOR).record.step >= 2


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        ("", 2, "Give --data SOURCE, or --resume"),
        ("--data voc:nowhere", 3, "nowhere"),
        ("--data photos", 3, "photos"),
        ("--data voc:{voc} --recipe voc0712-smal", 3, "did you mean voc0712-small?"),
        ("--data voc:{voc} --lr -1", 3, "lr is -1"),
        ("--data voc:{voc} --schedule multistep", 3, "a multi-step schedule has no milestones"),
        ("--data voc:{voc} --milestones 0.5", 3, "milestones are for a multi-step schedule"),
        ("--data voc:{voc} --schedule multistep --milestones .8,.5", 3, "do not rise"),
        (
            "--data voc:{voc} --milestones half",
            2,
            "'half' is not a list of shares such as 0.6,0.85",
        ),
        ("--data voc:{voc} --extras-lr -1", 3, "extras_lr is -1"),
        ("--data voc:{voc} --lr -1 --ema-decay 1", 3, "lr is -1, and must be above 0"),
        (
            "--data voc:{voc} --pretrained {voc}/labels.txt --arch small",
            3,
            "--pretrained already decides --arch, --imgsz",
        ),
        ("--data voc:{voc} --device cuda:7", 4, "sees no GPU"),
        ("--data voc:{voc} --device cuda:x", 4, "cannot train on a device 'cuda:x'"),
        ("--data voc:{voc} --device tpu", 4, "auto, cpu, cuda, or cuda:1"),
        ("--data voc:{voc} --precision fp16 --device cpu", 4, "fp16 trains on a GPU"),
        ("--resume {voc}/labels.txt", 3, "this is a text file, not a checkpoint"),
    ],
)
def test_wrong_input_is_explained(voc, monkeypatch, words, exit_code, message):
    monkeypatch.chdir(voc.parent)
    spelled = words.format(voc=voc).split()

    done = run(*spelled, *([] if "--resume" in words else ["--imgsz", "64"]), "-o", "run")

    assert done.exit_code == exit_code, done.output
    assert message in done.stderr
    assert "bug" not in done.stderr


def test_v_names_every_problem_of_the_data(voc, tmp_path):
    for stem in ("scene_0", "scene_1", "scene_9"):
        (voc / "Annotations" / f"{stem}.xml").unlink()
    words = ("--data", f"voc:{voc}", *TINY, "--epochs", "1", "--overwrite", "-o", tmp_path / "run")

    usual, verbose = run(*words), run(*words, "-v")

    assert "-v lists every case" in usual.stderr
    assert "training data: 2 x images without an annotation" in usual.stderr
    for stem in ("scene_1", "scene_9"):
        line = f"  {voc / 'JPEGImages' / stem}.png: {stem}.xml is missing"
        assert line in verbose.stderr.splitlines()
    assert "scene_1.png" not in usual.stderr


def test_an_existing_run_is_an_error_before_the_data_is_read(tmp_path):
    (tmp_path / "last.pth").write_text("a run")

    done = run("--data", "voc:nowhere", "-o", tmp_path)

    assert done.exit_code == 3
    assert "there is a run already" in done.stderr


def test_a_best_snapshot_cannot_be_resumed(voc, tmp_path):
    run("--data", f"voc:{voc}", *TINY, "--epochs", "1", "-o", tmp_path / "run")

    done = run("--resume", tmp_path / "run" / "best.pth")

    assert done.exit_code == 3
    assert "holds the result of a run, not a run that can be resumed" in done.stderr
    assert "last.pth" in done.stderr


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_step(voc, tmp_path):
    (tmp_path / "locked").write_text("a file, not a folder")

    done = run("--data", f"voc:{voc}", *TINY, "--epochs", "9999", "-o", tmp_path / "locked" / "run")

    assert done.exit_code == 3
    assert "cannot write" in done.stderr
    assert "epoch" not in done.stderr


def test_a_detector_of_other_classes_gives_all_but_its_classification_head(voc, tmp_path):
    run("--data", f"voc:{voc}", *TINY, "--epochs", "1", "-o", tmp_path / "one")
    labels = tmp_path / "labels.txt"
    labels.write_text("star\nring\nkite\n")

    words = ["--pretrained", tmp_path / "one" / "last.pth", "--labels", labels, "--batch", "4"]
    more = ["--epochs", "1", "--workers", "0", "-o", tmp_path / "two"]
    done = run("--data", f"voc:{voc}", *words, *more)

    assert done.exit_code == 0, done.output
    assert "the classification head is new, for 3 classes" in done.stderr
    assert "kite   -       0" in done.stdout


def test_the_recipes_are_listed():
    done = run("--recipe", "list")

    assert done.exit_code == 0
    assert "voc0712-large" in done.stdout
    assert "never run here: the data was not available" in done.stdout
