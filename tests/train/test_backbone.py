import json
import os
import signal

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from renderer.scenes import SCENE_CLASSES

from mbv3ssd_deploy.checkpoint.backbones.load import load_backbone
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.images import write_image
from mbv3ssd_deploy.errors import CheckpointError, DatasetError, OutputError, TrainingError
from mbv3ssd_deploy.train.backbone import ranks_of
from mbv3ssd_deploy.train.config import Observer, TrainRequest
from mbv3ssd_deploy.train.run import train_backbone, train_detector
from mbv3ssd_deploy.train.snapshot import BACKBONE, read_snapshot

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (210, 50, 40)}


@pytest.fixture
def folder(tmp_path):
    """Eight noisy pictures of each of three colours, and four of each for validation."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for part, count in (("train", 8), ("val", 4)):
            for number in range(count):
                noise = rng.normal(0, 25, (48, 48, 3))
                image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                write_image(tmp_path / "set" / part / name / f"{number}.png", image)
    return tmp_path / "set"


def tiny_request(source, output, *, recipe=None, **settings):
    defaults = {"width_mult": 0.25, "image_size": (48, 48), "workers": 0, "device": "cpu"}
    changes = {"batch": 8} | (recipe or {})
    return TrainRequest(source, output, changes=changes, **defaults | settings)


def resumed(folder, *, workers=0, **settings):
    last = folder / "last.pth"
    return TrainRequest(None, folder, resume=last, workers=workers, device="cpu", **settings)


def interrupt_at(step):
    """An observer that sends Ctrl-C after so many steps; the run stops after one more."""
    steps = []

    def progress(name, *_):
        if name.startswith("epoch"):
            steps.append(name)
            if len(steps) == step:
                os.kill(os.getpid(), signal.SIGINT)

    return Observer(progress=progress)


def test_three_colours_are_classified_and_a_detector_starts_from_the_result(folder, voc, tmp_path):
    request = tiny_request(
        f"folder:{folder}",
        tmp_path / "base",
        recipe={"epochs": 10, "ema_decay": 0.5, "bn_momentum": 0.3, "lr": 0.01},
    )

    report = train_backbone(request)

    assert report.best.top1 == 1.0
    assert report.spec.class_names == ("blue", "green", "red")
    path = tmp_path / "base" / "backbone.pth"
    assert path in report.files
    notes = []
    train_detector(
        TrainRequest(
            f"voc:{voc}",
            tmp_path / "run",
            backbone=Backbone.SMALL,
            width_mult=0.25,
            image_size=(64, 64),
            backbone_file=path,
            changes={"epochs": 1, "batch": 4, "freeze": "backbone", "ema_decay": 0.0},
            workers=0,
            device="cpu",
        ),
        Observer(note=notes.append),
    )
    loaded = load_detector(tmp_path / "run" / "last.pth")
    given = load_backbone(path, loaded.spec).tensors
    got = loaded.net.state_dict()
    # frozen: not even a BatchNorm's statistics have moved
    assert all(torch.equal(got[key], given[key]) for key in got if key in given)
    assert any("backbone weights" in line for line in notes)


def test_objects_of_a_detection_set_are_cut_out(voc, tmp_path):
    request = tiny_request(f"voc:{voc}", tmp_path / "base", recipe={"epochs": 1})

    report = train_backbone(request)

    assert report.spec.class_names == SCENE_CLASSES[1:]
    assert 0 <= report.best.top1 <= 1


def test_the_rank_is_the_number_of_better_classes():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0]])

    assert ranks_of(logits, torch.tensor([0, 2, 0])).tolist() == [0, 1, 2]


def test_it_stops_when_nothing_improves(folder, tmp_path):
    notes, epochs = [], []
    observer = Observer(note=notes.append, epoch_done=lambda *done: epochs.append(done))
    # the learning rate is nearly 0, so that nothing changes
    recipe = {"epochs": 9, "lr": 1e-9, "patience": 2}
    request = tiny_request(f"folder:{folder}", tmp_path / "base", recipe=recipe)

    report = train_backbone(request, observer)

    assert len(epochs) == 3
    assert epochs[-1][1] == 0  # seconds left
    assert not report.interrupted
    assert any("no improvement in 2 epochs" in line for line in notes)
    again = train_backbone(resumed(tmp_path / "base"))
    assert again.files == ()
    assert again.record.step == report.record.step == 9


def test_a_backbone_is_replaced_only_with_overwrite(folder, tmp_path):
    request = tiny_request(f"folder:{folder}", tmp_path / "base", recipe={"epochs": 1})
    train_backbone(request)

    with pytest.raises(OutputError, match="there is a run already"):
        train_backbone(request)
    (tmp_path / "base" / "last.pth").unlink()  # as versions without --resume left it
    with pytest.raises(OutputError, match="there is a backbone already"):
        train_backbone(request)


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_step(folder, tmp_path):
    (tmp_path / "locked").write_text("a file, not a folder")
    steps = []
    observer = Observer(progress=lambda step, *_: steps.append(step))

    with pytest.raises(OutputError, match="cannot write"):
        train_backbone(tiny_request(f"folder:{folder}", tmp_path / "locked" / "base"), observer)

    assert "epoch 1" not in steps


def test_an_interrupt_before_the_first_epoch_claims_no_backbone(folder, tmp_path):
    output = tmp_path / "base"
    output.mkdir()
    (output / "backbone.pth").write_text("another one")

    request = tiny_request(f"folder:{folder}", output, overwrite=True)
    report = train_backbone(request, interrupt_at(1))

    assert report.interrupted
    assert report.best is None
    assert [path.name for path in report.files] == ["last.pth", "run.json"]
    assert (output / "backbone.pth").read_text() == "another one"


def test_the_history_is_written_however_it_ends(folder, tmp_path):
    class EnoughError(Exception):
        pass

    def leave(*_):
        raise EnoughError

    request = tiny_request(f"folder:{folder}", tmp_path / "base")
    with pytest.raises(EnoughError):
        train_backbone(request, Observer(epoch_done=leave))

    assert len((tmp_path / "base" / "history.csv").read_text().splitlines()) == 2


def test_a_loss_that_is_not_finite_stops_the_run(folder, tmp_path):
    recipe = {"epochs": 9, "lr": 1e11, "clip_norm": 0.0, "warmup_epochs": 3.0}
    request = tiny_request(f"folder:{folder}", tmp_path / "base", recipe=recipe)

    with pytest.raises(TrainingError, match="the loss is nan"):
        train_backbone(request)


def test_a_source_without_a_format_is_explained(folder, tmp_path):
    with pytest.raises(DatasetError) as caught:
        train_backbone(tiny_request(str(folder), tmp_path / "base"))

    assert f"folder:{folder}" in caught.value.hint


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_resumed_run_ends_bit_for_bit_where_a_straight_one_does(folder, tmp_path, stop_at):
    # three steps an epoch; dropout draws random numbers in every one
    recipe = {"epochs": 2, "dropout": 0.5}
    train_backbone(tiny_request(f"folder:{folder}", tmp_path / "straight", recipe=recipe))
    halves = tiny_request(f"folder:{folder}", tmp_path / "halves", recipe=recipe)
    assert train_backbone(halves, interrupt_at(stop_at)).interrupted
    torch.manual_seed(99)  # anything may have happened in between
    report = train_backbone(resumed(tmp_path / "halves", workers=1))

    assert not report.interrupted
    one, other = (
        read_snapshot(tmp_path / name / "last.pth", BACKBONE) for name in ("straight", "halves")
    )
    assert one.record.step == other.record.step == 6
    for state in ("net", "average"):
        weights, again = getattr(one.tensors, state), getattr(other.tensors, state)
        assert all(torch.equal(weights[key], again[key]) for key in weights)
    losses, again = (
        [(epoch.loss, epoch.top1) for epoch in run.record.history] for run in (one, other)
    )
    assert losses == again
    best = [
        load_backbone(tmp_path / name / "backbone.pth", one.spec.arch)
        for name in ("straight", "halves")
    ]
    assert all(torch.equal(best[0].tensors[key], best[1].tensors[key]) for key in best[0].tensors)


def test_a_resumed_run_refuses_other_settings_all_at_once(folder, tmp_path):
    request = tiny_request(f"folder:{folder}", tmp_path / "base", recipe={"epochs": 1})
    train_backbone(request)

    with pytest.raises(CheckpointError) as caught:
        train_backbone(
            resumed(
                tmp_path / "base",
                width_mult=0.5,
                seed=4,
                backbone_file=tmp_path / "base" / "backbone.pth",
                changes={"dropout": 0.7, "epochs": 1},
            )
        )

    for part in ("the width is 0.25, not 0.5", "the seed is 0, not 4", "dropout is 0.2, not 0.7"):
        assert part in str(caught.value)
    assert "--initial is for new runs only" in str(caught.value)
    assert "epochs" not in str(caught.value)


def test_a_resumed_run_refuses_other_images(folder, tmp_path):
    train_backbone(tiny_request(f"folder:{folder}", tmp_path / "base", recipe={"epochs": 1}))
    (folder / "train" / "red" / "7.png").rename(folder / "train" / "blue" / "8.png")

    with pytest.raises(CheckpointError, match="names or annotations of the training images"):
        train_backbone(resumed(tmp_path / "base"))


def test_each_command_resumes_its_own_runs_only(folder, tmp_path):
    train_backbone(tiny_request(f"folder:{folder}", tmp_path / "base", recipe={"epochs": 1}))

    with pytest.raises(CheckpointError, match="is not a snapshot of `train`") as caught:
        train_detector(resumed(tmp_path / "base"))

    assert "train-backbone --resume" in caught.value.hint


def test_the_command_saves_resumes_and_names_the_next_one(folder, tmp_path):
    shape = ("--width", "0.25", "--imgsz", "48", "--batch", "8", "--workers", "0")
    base = tmp_path / "base"

    done = run_command("--data", f"folder:{folder}", *shape, "--epochs", "1", "-o", base)

    assert done.exit_code == 0, done.output
    for name in ("backbone.pth", "last.pth", "history.csv", "history.png", "run.json"):
        assert f"wrote {base / name}" in done.stdout
    expected = f"train --data SOURCE --arch small --width 0.25 --backbone {base / 'backbone.pth'}"
    assert f"next: mbv3ssd-deploy {expected}" in done.stdout
    again = run_command("--resume", base / "last.pth", "--json")
    assert again.exit_code == 0, again.output
    assert "nothing is left to do: the run has ended after 1 epochs" in again.stderr
    assert json.loads(again.stdout)["files"] == []
    other = run_command("--resume", base / "last.pth", "--epochs", "5")
    assert other.exit_code == 3
    assert "epochs is 1, not 5" in other.stderr
    neither = run_command()
    assert neither.exit_code == 2
    assert "Give --data SOURCE, or --resume" in neither.stderr


def test_the_command_prints_how_to_resume_after_ctrl_c(folder, tmp_path, monkeypatch):
    def interrupted(request, observer):
        del observer
        return train_backbone(request, interrupt_at(1))

    monkeypatch.setattr("mbv3ssd_deploy.train.run.train_backbone", interrupted)
    shape = ("--width", "0.25", "--imgsz", "48", "--batch", "8", "--workers", "0")

    done = run_command("--data", f"folder:{folder}", *shape, "-o", tmp_path / "base")

    assert done.exit_code == 130
    assert "stopped after step 2; resume with:" in done.stderr
    resume = f"mbv3ssd-deploy train-backbone --resume {tmp_path / 'base' / 'last.pth'}"
    assert resume in done.stderr
    assert "there is no backbone yet" in done.stderr


def run_command(*words):
    return CliRunner().invoke(cli, ["train-backbone", *map(str, words)])
