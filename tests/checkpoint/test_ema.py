"""Files with two sets of weights: which one is taken, and what is said."""

import builders
import pytest
import torch
from checkpoint_files import saved

from mbv3ssd_deploy.checkpoint.load import LoadOptions, load_detector
from mbv3ssd_deploy.errors import CheckpointError

KEY = "backbone.features.0.0.0.weight"
PLAIN, AVERAGED = builders.tiny_net(seed=1).state_dict(), builders.tiny_net(seed=2).state_dict()
EMA = LoadOptions(ema=True)


def first_weight(loaded):
    return loaded.net.state_dict()[KEY]


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("state_dict", "ema_state_dict")],
)
def test_of_two_sets_the_plain_one_is_taken_and_the_flag_takes_the_other(tmp_path, plain, averaged):
    path = saved(tmp_path / "w.pth", {plain: PLAIN, averaged: AVERAGED})

    loaded, asked = load_detector(path), load_detector(path, EMA)

    assert torch.equal(first_weight(loaded), PLAIN[KEY])
    assert f"not the averaged (EMA) ones under {averaged!r}" in loaded.notices[0]
    assert "--ema uses those" in loaded.notices[0]
    assert torch.equal(first_weight(asked), AVERAGED[KEY])
    assert f"(EMA) weights under {averaged!r} were used" in asked.notices[0]


def test_torchvisions_averaged_model_keeps_a_counter_and_a_prefix(tmp_path):
    averaged = {f"module.{key}": tensor for key, tensor in AVERAGED.items()}
    averaged["n_averaged"] = torch.tensor(7)
    path = saved(tmp_path / "w.pth", {"model": PLAIN, "model_ema": averaged})

    assert torch.equal(first_weight(load_detector(path, EMA)), AVERAGED[KEY])
    alone = load_detector(saved(tmp_path / "alone.pth", averaged))
    assert alone.notices[0].startswith("the weights are averaged (EMA) ones")


@pytest.mark.parametrize("options", [None, EMA])
def test_a_file_of_averaged_weights_alone_is_taken_and_said(tmp_path, options):
    loaded = load_detector(saved(tmp_path / "w.pth", {"ema": AVERAGED}), options)

    assert torch.equal(first_weight(loaded), AVERAGED[KEY])
    assert loaded.notices[0].endswith("averaged (EMA) weights only, under 'ema'; they were used")


@pytest.mark.parametrize("options", [None, EMA])
def test_mmengine_saves_the_averaged_weights_as_the_state_dict(tmp_path, options):
    entries = {
        "meta": {"mmengine_version": "0.10.0"},
        "state_dict": AVERAGED,
        "ema_state_dict": {f"module.{key}": tensor for key, tensor in PLAIN.items()},
    }

    loaded = load_detector(saved(tmp_path / "w.pth", entries), options)

    assert torch.equal(first_weight(loaded), AVERAGED[KEY])
    assert "mmengine saves them under 'state_dict'" in loaded.notices[0]


@pytest.mark.parametrize("entries", [PLAIN, {"state_dict": PLAIN, "epoch": 3}])
def test_asking_for_averaged_weights_that_are_not_there_is_refused(tmp_path, entries):
    with pytest.raises(CheckpointError, match="but the file has none") as info:
        load_detector(saved(tmp_path / "w.pth", entries), EMA)

    assert "leave out --ema" in info.value.hint
