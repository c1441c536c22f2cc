import os
import signal

import numpy as np
import pytest
import torch

from mbv3ssd_deploy.checkpoint.backbones.load import load_backbone
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.images import write_image
from mbv3ssd_deploy.data.scenes import SCENE_CLASSES
from mbv3ssd_deploy.errors import DatasetError, OutputError, TrainingError
from mbv3ssd_deploy.train.classifier_request import (
    BACKBONE_RECIPE,
    BackboneObserver,
    BackboneRequest,
)
from mbv3ssd_deploy.train.classifier_run import ranks_of, train_backbone
from mbv3ssd_deploy.train.request import Observer, TrainRequest
from mbv3ssd_deploy.train.run import train_detector

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (210, 50, 40)}


@pytest.fixture
def folder(tmp_path):
    """Eight pictures of each of three colours, with noise; four of each to be measured on."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for part, count in (("train", 8), ("val", 4)):
            for number in range(count):
                noise = rng.normal(0, 25, (48, 48, 3))
                image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                write_image(tmp_path / "set" / part / name / f"{number}.png", image)
    return tmp_path / "set"


def tiny_request(source, output, **changes):
    recipe = BACKBONE_RECIPE.changed(batch=8, **changes.pop("recipe", {}))
    settings = {"width_mult": 0.25, "image_size": (48, 48), "workers": 0, "device": "cpu"}
    return BackboneRequest(source, output, recipe=recipe, **settings | changes)


def test_three_colours_are_told_apart_and_the_result_feeds_a_detector(folder, voc, tmp_path):
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
    said = []
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
        Observer(note=said.append),
    )
    loaded = load_detector(tmp_path / "run" / "last.pth")
    given = load_backbone(path, loaded.spec).tensors
    got = loaded.net.state_dict()
    # frozen: not even a BatchNorm's statistics have moved
    assert all(torch.equal(got[key], given[key]) for key in got if key in given)
    assert any("backbone weights" in line for line in said)


def test_objects_of_a_detection_set_will_do(voc, tmp_path):
    request = tiny_request(f"voc:{voc}", tmp_path / "base", recipe={"epochs": 1})

    report = train_backbone(request)

    assert report.spec.class_names == SCENE_CLASSES[1:]
    assert 0 <= report.best.top1 <= 1


def test_the_rank_of_the_true_class_is_how_many_stand_before_it():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0]])

    assert ranks_of(logits, torch.tensor([0, 2, 0])).tolist() == [0, 1, 2]


def test_it_stops_when_nothing_improves(folder, tmp_path):
    said, seen = [], []
    observer = BackboneObserver(note=said.append, epoch_done=lambda epoch, _: seen.append(epoch))
    # a learning rate of nearly nothing: whatever it guesses, it goes on guessing
    request = tiny_request(
        f"folder:{folder}", tmp_path / "base", patience=2, recipe={"epochs": 9, "lr": 1e-9}
    )

    train_backbone(request, observer)

    assert len(seen) == 3
    assert any("no improvement in 2 epochs" in line for line in said)


def test_a_backbone_is_not_replaced_unasked(folder, tmp_path):
    request = tiny_request(f"folder:{folder}", tmp_path / "base", recipe={"epochs": 1})
    train_backbone(request)

    with pytest.raises(OutputError, match="there is a backbone already"):
        train_backbone(request)


def test_a_folder_that_cannot_be_written_shows_before_the_first_step(folder, tmp_path):
    (tmp_path / "locked").write_text("a file stands in the way")
    seen = []
    observer = BackboneObserver(progress=lambda step, *_: seen.append(step))

    with pytest.raises(OutputError, match="cannot write"):
        train_backbone(tiny_request(f"folder:{folder}", tmp_path / "locked" / "base"), observer)

    assert "epoch 1" not in seen


def test_an_interrupt_before_the_first_epoch_claims_no_backbone(folder, tmp_path):
    output = tmp_path / "base"
    output.mkdir()
    (output / "backbone.pth").write_text("another one")

    def interrupt(step, *_):
        if step.startswith("epoch"):
            os.kill(os.getpid(), signal.SIGINT)

    request = tiny_request(f"folder:{folder}", output, overwrite=True)
    report = train_backbone(request, BackboneObserver(progress=interrupt))

    assert report.interrupted
    assert report.best is None
    assert [path.name for path in report.files] == ["run.json"]
    assert (output / "backbone.pth").read_text() == "another one"


def test_the_history_is_written_however_it_ends(folder, tmp_path):
    class EnoughError(Exception):
        pass

    def leave(*_):
        raise EnoughError

    request = tiny_request(f"folder:{folder}", tmp_path / "base")
    with pytest.raises(EnoughError):
        train_backbone(request, BackboneObserver(epoch_done=leave))

    assert len((tmp_path / "base" / "history.csv").read_text().splitlines()) == 2


def test_a_loss_that_is_no_number_ends_it(folder, tmp_path):
    recipe = {"epochs": 9, "lr": 1e11, "clip_norm": 0.0, "warmup_epochs": 3.0}
    request = tiny_request(f"folder:{folder}", tmp_path / "base", recipe=recipe)

    with pytest.raises(TrainingError, match="the loss is nan"):
        train_backbone(request)


def test_a_source_that_says_no_format_is_explained(folder, tmp_path):
    with pytest.raises(DatasetError) as caught:
        train_backbone(tiny_request(str(folder), tmp_path / "base"))

    assert f"folder:{folder}" in caught.value.hint
