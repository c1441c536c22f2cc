import csv
import dataclasses
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from renderer.scenes import SCENE_CLASSES

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.augment import NO_AUGMENTATION
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import CheckpointError, DeployError, OutputError, TrainingError
from mbv3ssd_deploy.train.config import Observer, TrainRequest
from mbv3ssd_deploy.train.run import train_detector
from mbv3ssd_deploy.train.snapshot import DETECTOR, read_snapshot


def tiny_request(voc, folder, **changes):
    settings = {"epochs": 2, "batch": 4} | changes.pop("changes", {})
    return TrainRequest(
        f"voc:{voc}",
        folder,
        backbone=Backbone.SMALL,
        width_mult=0.25,
        image_size=(96, 96),
        changes=settings,
        workers=0,
        device="cpu",
        **changes,
    )


def resumed(folder, output, **changes):
    return TrainRequest(
        None, output, resume=folder / "last.pth", workers=0, device="cpu", **changes
    )


def weights(path):
    return load_detector(path).net.state_dict()


@pytest.fixture(scope="module")
def finished(shared_voc, tmp_path_factory):
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_detector(tiny_request(shared_voc, folder, changes={"epochs": 1}))
    return folder


def test_a_run_leaves_a_detector_that_loads_and_a_history(voc, tmp_path):
    epochs = []
    observer = Observer(epoch_done=lambda record, left: epochs.append((record, left)))

    report = train_detector(tiny_request(voc, tmp_path / "run", validate_every=1), observer)

    loaded = load_detector(tmp_path / "run" / "best.pth")
    assert loaded.checkpoint.family == "native"
    assert loaded.spec == report.spec
    assert loaded.spec.class_names == SCENE_CLASSES
    assert [record.epoch for record, _ in epochs] == [1, 2]
    assert epochs[0][1] > epochs[1][1] == 0
    table = (tmp_path / "run" / "history.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["classification"]) > 0 for row in rows)
    assert (tmp_path / "run" / "history.png").read_bytes().startswith(b"\x89PNG")
    plan = json.loads((tmp_path / "run" / "run.json").read_text())
    assert plan["recipe"]["epochs"] == 2
    assert not report.interrupted
    assert {path.name for path in report.files} == {
        "best.pth",
        "last.pth",
        "history.csv",
        "history.png",
        "run.json",
    }


def test_a_resumed_run_ends_bit_for_bit_where_a_straight_one_does(voc, tmp_path):
    class EnoughError(Exception):
        pass

    def leave(record, _):
        if record.epoch == 1:
            raise EnoughError

    train_detector(tiny_request(voc, tmp_path / "straight"))
    with pytest.raises(EnoughError):
        train_detector(tiny_request(voc, tmp_path / "halves"), Observer(epoch_done=leave))
    torch.manual_seed(99)  # whatever the session did in between
    report = train_detector(resumed(tmp_path / "halves", tmp_path / "halves"))

    straight = read_snapshot(tmp_path / "straight" / "last.pth", DETECTOR)
    halves = read_snapshot(tmp_path / "halves" / "last.pth", DETECTOR)
    assert straight.record.step == halves.record.step == 4
    for state in ("net", "average"):
        one, other = getattr(straight.tensors, state), getattr(halves.tensors, state)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert [record.epoch for record in report.record.history] == [1, 2]
    assert [r.loss for r in straight.record.history] == [r.loss for r in report.record.history]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("net", {"head": torch.zeros(1)}),
        ("net", "weights"),
        ("optimiser", {"state": {}, "param_groups": []}),
        ("optimiser", []),
        ("average", {}),
        ("scaler", None),
        ("random", torch.zeros(3)),
    ],
)
def test_a_snapshot_with_a_damaged_state_is_refused(voc, finished, tmp_path, part, value):
    entries = torch.load(finished / "last.pth", weights_only=True)
    entries["training"][part] = value
    torch.save(entries, tmp_path / "last.pth")
    request = resumed(tmp_path, tmp_path / "out")

    with pytest.raises(CheckpointError, match="the saved state does not fit the net"):
        train_detector(dataclasses.replace(request, data=f"voc:{voc}"))


def test_the_same_seed_gives_the_same_weights_and_another_one_others(voc, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_detector(tiny_request(voc, tmp_path / name, seed=seed, changes={"epochs": 1}))

    first, again, other = (weights(tmp_path / name / "last.pth") for name in "abc")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_resumed_run_refuses_other_settings_all_at_once(voc, tmp_path):
    train_detector(tiny_request(voc, tmp_path / "run", changes={"epochs": 1}))

    with pytest.raises(CheckpointError) as caught:
        train_detector(
            resumed(
                tmp_path / "run",
                tmp_path / "run",
                width_mult=0.5,
                image_size=(64, 64),
                changes={"lr": 7.0},
            )
        )

    for part in ("the width is 0.25, not 0.5", "(96, 96), not (64, 64)", "lr is 0.002, not 7.0"):
        assert part in str(caught.value)


def test_a_resumed_run_refuses_other_images(voc, tmp_path):
    train_detector(tiny_request(voc, tmp_path / "run", changes={"epochs": 1}))
    listed = voc / "ImageSets" / "Main" / "train.txt"
    listed.write_text("\n".join(listed.read_text().split()[:-1]))

    with pytest.raises(CheckpointError, match="trained on 8 images, and now there are 7"):
        train_detector(resumed(tmp_path / "run", tmp_path / "run"))


def test_a_run_is_replaced_only_with_overwrite(voc, tmp_path):
    request = tiny_request(voc, tmp_path / "run", changes={"epochs": 1})
    train_detector(request)
    before = (tmp_path / "run" / "last.pth").read_bytes()

    with pytest.raises(OutputError, match="there is a run already"):
        train_detector(request)

    assert (tmp_path / "run" / "last.pth").read_bytes() == before
    train_detector(dataclasses.replace(request, overwrite=True))


def test_a_replaced_run_leaves_no_files(voc, tmp_path):
    train_detector(tiny_request(voc, tmp_path / "run", changes={"epochs": 1}))
    interrupt = Observer(epoch_done=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    request = tiny_request(voc, tmp_path / "run", changes={"epochs": 3}, validate_every=3)

    report = train_detector(dataclasses.replace(request, overwrite=True), interrupt)

    # without validation, the best snapshot of the other run is not the best of this one
    assert report.interrupted
    names = {"last.pth", "history.csv", "history.png", "run.json"}
    assert {path.name for path in report.files} == names
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_file()} == names


def test_classes_that_no_training_image_shows_are_named(voc, tmp_path):
    notes = []
    labels = ("background", *SCENE_CLASSES[1:], "kite", "boat")
    request = tiny_request(voc, tmp_path / "run", changes={"epochs": 1}, class_names=labels)

    train_detector(request, Observer(note=notes.append))

    assert "no training image shows 'kite', 'boat': that will never be found" in notes


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(voc, tmp_path):
    request = tiny_request(voc, tmp_path / "run", changes={"lr": 1e9, "clip_norm": 0.0})

    with pytest.raises(TrainingError, match=r"the loss of the .* is (nan|inf)") as caught:
        train_detector(request)

    assert caught.value.exit_code == 1
    saved = np.load(tmp_path / "run" / "not-finite.npz")
    assert saved["inputs"].shape == (4, 3, 96, 96)
    assert set(saved["images"]) <= {f"scene_{i}" for i in range(8)}


def test_eight_images_can_be_overfitted(voc, tmp_path):
    # no augmentation, and validation on the training images themselves
    request = TrainRequest(
        f"voc:{voc}",
        tmp_path / "run",
        val_data=f"voc:{voc}",
        val_split=Split.TRAIN,
        backbone=Backbone.SMALL,
        width_mult=0.5,
        image_size=(160, 160),
        changes={
            "epochs": 70,
            "batch": 8,
            "lr": 4e-3,
            "bn_momentum": 0.3,
            "augmentation": NO_AUGMENTATION,
            "warmup_epochs": 5.0,
            "ema_decay": 0.9,
        },
        validate_every=70,
        workers=0,
        device="cpu",
    )

    report = train_detector(request)

    assert report.record.history[-1].mean_ap == 1.0
    assert not math.isnan(report.record.best)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_cannot_be_read_are_left_out_and_named(voc, tmp_path, workers):
    for stem in ("scene_1", "scene_9"):  # one for training, one for validation
        path = voc / "JPEGImages" / f"{stem}.png"
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[:200])  # its size can still be read
    notes = []
    request = tiny_request(voc, tmp_path / "run", changes={"epochs": 1})

    report = train_detector(
        dataclasses.replace(request, workers=workers), Observer(note=notes.append)
    )

    assert report.report is not None
    for start, stem in (("left out: ", "scene_1.png"), ("not measured: ", "scene_9.png")):
        assert len([note for note in notes if note.startswith(start) and stem in note]) == 1


def test_an_unknown_recipe_is_our_error(voc, tmp_path):
    with pytest.raises(DeployError):
        train_detector(tiny_request(voc, tmp_path / "run", recipe="voc0712-smal"))


def test_the_seed_of_a_run_does_not_move_images_out_of_the_test(voc, tmp_path):
    shutil.rmtree(voc / "ImageSets")
    notes = []
    request = TrainRequest(
        f"voc:{voc}",
        tmp_path / "run",
        backbone=Backbone.SMALL,
        width_mult=0.25,
        image_size=(96, 96),
        changes={"epochs": 1, "batch": 2},
        seed=3,
        workers=0,
        device="cpu",
    )

    train_detector(request, Observer(note=notes.append))

    of_eval = read_dataset(f"voc:{voc}", Split.TEST).problems[0]
    assert of_eval.kind == "split-made"
    matching = [note for note in notes if of_eval.reason in note]
    assert len(matching) == 1
    assert matching[0].startswith("training and validation data: ")
