"""Snapshots that were written before both kinds of training had one format are still read."""

import copy

import pytest
import torch
from builders import tiny_net, tiny_spec

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError
from mbv3ssd_deploy.io.records import json_from_record
from mbv3ssd_deploy.train.config import Freeze, Schedule
from mbv3ssd_deploy.train.snapshot import BACKBONE, DETECTOR, read_snapshot

AUGMENTATION = {
    "colours": {
        "chance": 0.5,
        "brightness": 32.0,
        "contrast": [0.5, 1.5],
        "saturation": [0.5, 1.5],
        "hue_degrees": 18.0,
        "swap_chance": 0.0,
    },
    "zoom_out_chance": 0.3,
    "zoom_out_most": 2.0,
    "fill_rgb": [123.0, 117.0, 104.0],
    "crop_overlaps": [None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0],
    "crop_least": 0.3,
    "crop_ratios": [0.5, 2.0],
    "flip_chance": 0.5,
    "keep_difficult": False,
}
# as version 0.1.0 wrote it after 15 of 30 steps
RECORD = {
    "recipe": {
        "name": "small-data",
        "description": "a few hundred images, from scratch, in an hour or so on a CPU",
        "backbone": "small",
        "image_size": 320,
        "epochs": 3,
        "batch": 4,
        "algorithm": "adamw",
        "lr": 0.002,
        "backbone_lr": 1.0,
        "extras_lr": 1.0,
        "momentum": 0.9,
        "weight_decay": 0.02,
        "schedule": "cosine",
        "milestones": [],
        "gamma": 0.1,
        "final_lr_share": 0.0,
        "warmup_epochs": 3.0,
        "clip_norm": 10.0,
        "ema_decay": 0.998,
        "bn_momentum": 0.1,
        "negatives_per_positive": 3.0,
        "match_threshold": 0.5,
        "smooth_l1_beta": 1.0,
        "freeze": "nothing",
        "freeze_norms": False,
        "augmentation": AUGMENTATION,
        "vertical_flip": 0.0,
    },
    "settings": {
        "data": "voc:shapes",
        "train_split": "train",
        "val_data": "voc:shapes",
        "val_split": "val",
        "images": 42,
        "fingerprint": "2e6414a2c58a23798454b43d075abbb6725dcfd59511779b4a1b865d663416e9",
        "seed": 3,
        "precision": "auto",
        "validate_every": 1,
        "versions": {"mbv3ssd-deploy": "0.1.0", "torch": "2.13.0+cpu"},
    },
    "step": 15,
    "history": [
        {
            "epoch": 1,
            "step": 10,
            "seconds": 0.17584107700031382,
            "lr": 0.0009923657826827958,
            "localisation": 4.195929032427445,
            "classification": 6.225391916557283,
            "matched": 6.65,
            "mean_ap": 0.0,
        }
    ],
    "best": 0.0,
    "epoch_sums": [19.1890766181926, 30.492584731720864, 117.0, 5.0, 0.07751456100004361],
}
OPTIMISER = {
    "state": {
        0: {"step": torch.tensor(15.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    },
    "param_groups": [
        {
            "weight_decay": 0.02,
            "share": 1.0,
            "lr": 0.00099,
            "betas": (0.9, 0.999),
            "eps": 1e-08,
            "amsgrad": False,
            "maximize": False,
            "foreach": None,
            "capturable": False,
            "differentiable": False,
            "fused": None,
            "decoupled_weight_decay": True,
            "params": [0],
        }
    ],
}


@pytest.fixture
def entries():
    weights = tiny_net().state_dict()
    return {
        "format": "mbv3ssd-deploy/native",
        "schema": 1,
        "spec": json_from_record(tiny_spec()),
        "state_dict": weights,
        "training": {
            "schema": 1,
            "record": copy.deepcopy(RECORD),
            "net": {key: value + 1 for key, value in weights.items()},
            "optimiser": OPTIMISER,
            "average": weights,
            "average_steps": 15,
            "scaler": {},
            "random": torch.get_rng_state(),
        },
    }


def test_a_snapshot_of_an_older_version_is_read_whole(entries, tmp_path):
    path = tmp_path / "last.pth"
    torch.save(entries, path)

    snapshot = read_snapshot(path, DETECTOR)

    assert snapshot.spec == tiny_spec()
    record = snapshot.record
    assert (record.recipe.schedule, record.recipe.freeze) == (Schedule.COSINE, Freeze.NOTHING)
    assert record.recipe.patience == 0
    assert record.history[0].loss == 4.195929032427445 + 6.225391916557283
    assert json_from_record(record)["settings"] == RECORD["settings"]
    assert list(record.epoch_sums) == RECORD["epoch_sums"]
    saved, tensors = entries["training"], snapshot.tensors
    assert torch.equal(tensors.random, saved["random"])
    assert tensors.random.dtype == torch.uint8
    assert tensors.cuda_random is None
    assert (tensors.average_steps, dict(tensors.scaler)) == (15, {})
    for name in ("net", "average"):
        weights = getattr(tensors, name)
        assert weights.keys() == saved[name].keys()
        assert all(torch.equal(weights[key], saved[name][key]) for key in weights)
    assert tensors.optimiser["param_groups"] == OPTIMISER["param_groups"]
    state = tensors.optimiser["state"][0]
    assert state["step"] == 15
    assert torch.equal(state["exp_avg"], torch.ones(2))
    loaded = load_detector(path)
    assert all(
        torch.equal(value, entries["state_dict"][key])
        for key, value in loaded.net.state_dict().items()
    )


def test_a_backbone_of_an_older_version_is_no_run_to_resume(entries, tmp_path):
    path = tmp_path / "backbone.pth"
    spec = json_from_record(tiny_spec())
    classifier = {key: spec[key] for key in ("name", "arch", "input")} | {"class_names": ["disc"]}
    training = {"recipe": {}, "data": "folder:flowers", "seed": 0, "epoch": 3, "top1": 0.5}
    kind = {"format": "mbv3ssd-deploy/native-classifier", "spec": classifier}
    torch.save(entries | kind | {"training": training}, path)

    with pytest.raises(CheckpointError, match="not a run that can be resumed"):
        read_snapshot(path, BACKBONE)


def test_a_snapshot_of_a_newer_version_is_refused(entries, tmp_path):
    entries["training"]["schema"] = 2
    torch.save(entries, tmp_path / "last.pth")

    with pytest.raises(CheckpointError, match="has schema 2; this version reads 1") as caught:
        read_snapshot(tmp_path / "last.pth", DETECTOR)

    assert caught.value.hint == "update mbv3ssd-deploy"


@pytest.mark.parametrize("missing", ["record", "net", "optimiser", "average", "random"])
def test_a_snapshot_with_a_part_missing_is_refused(entries, tmp_path, missing):
    del entries["training"][missing]
    torch.save(entries, tmp_path / "last.pth")

    with pytest.raises(CheckpointError, match="not a run that can be resumed"):
        read_snapshot(tmp_path / "last.pth", DETECTOR)


def test_a_snapshot_that_would_run_code_is_refused(entries, tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    entries["training"]["record"] = Payload()
    torch.save(entries, tmp_path / "last.pth")

    with pytest.raises(UnsafeCheckpointError):
        read_snapshot(tmp_path / "last.pth", DETECTOR)
