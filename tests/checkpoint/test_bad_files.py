"""Files that are nearly right: each is refused with what is wrong, in the file's own words."""

import pytest
import torch
from builders import tiny_net, tiny_spec
from checkpoint_files import INVENTORIES, saved, state_dict

from mbv3ssd_deploy.checkpoint.load import LoadOptions, load_detector
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.errors import CheckpointError, SpecError


def refusal(path, entries, options=None):
    with pytest.raises(CheckpointError) as info:
        load_detector(saved(path / "w.pth", entries), options)
    return info.value


@pytest.mark.parametrize("name", INVENTORIES)
@pytest.mark.parametrize("half", [0, 1])
def test_half_a_checkpoint_is_called_part_of_one(tmp_path, name, half):
    weights = state_dict(name)
    keys = list(weights)
    middle = len(keys) // 2

    error = refusal(tmp_path, {k: weights[k] for k in (keys[:middle], keys[middle:])[half]})

    family = name.split("_")[0]
    if "does not fill" not in error.message:  # its required keys may all be in one half
        assert f"the nearest family is {family}: " in error.message
        assert "first missing " in error.message
        assert error.hint.startswith(f"part of a {family} file?")


def test_a_checkpoint_without_its_last_tensors_names_them_as_the_file_would(tmp_path):
    weights = state_dict("tongyu_small")
    gone = [key for key in weights if key.startswith("extras.2.conv.3.")]

    error = refusal(tmp_path, {key: t for key, t in weights.items() if key not in gone})

    assert "extras.2.conv.3.weight" in error.message
    assert "backbone." not in error.message
    assert "was the whole network saved?" in error.hint


def test_two_families_in_one_file(tmp_path):
    error = refusal(tmp_path, state_dict("qfgaohao_small") | state_dict("torchvision_small"))

    assert "the keys of torchvision and of qfgaohao are mixed" in error.message
    assert "one network" in error.hint


def test_two_families_with_the_same_heads_in_one_file(tmp_path):
    error = refusal(tmp_path, state_dict("qfgaohao_small") | state_dict("tongyu_small"))

    assert "the keys of qfgaohao and of tongyu are mixed in one file" in error.message
    assert "one network" in error.hint


def test_an_odd_key_among_ones_own_is_no_sign_of_another_family(tmp_path):
    odd = {"classification_headers.0.0.gamma": torch.zeros(3)}

    error = refusal(tmp_path, state_dict("qfgaohao_small") | odd)

    assert "1 key is unknown: classification_headers.0.0.gamma" in error.message
    assert "docs/adding.md" in error.hint


def test_some_keys_of_another_family_are_told_as_its(tmp_path):
    foreign = dict(list(state_dict("torchvision_small").items())[:40])

    error = refusal(tmp_path, state_dict("qfgaohao_small") | foreign)

    assert "40 keys are unknown: backbone.features.0.0.0.weight" in error.message
    assert "like those of torchvision" in error.hint


def test_a_network_of_nobody_is_told_how_to_write_a_family_file(tmp_path):
    error = refusal(tmp_path, {"encoder.weight": torch.zeros(2, 2)})

    assert "first unknown encoder.weight" in error.message
    assert "docs/adding.md shows how to write a family file" in error.hint


def test_integers_are_refused_and_halves_reported(tmp_path):
    weights = state_dict("torchvision_small")
    error = refusal(
        tmp_path,
        weights | {"backbone.features.0.0.0.weight": torch.zeros(16, 3, 3, 3, dtype=torch.int32)},
    )
    halves = {k: t.half() if t.is_floating_point() else t for k, t in weights.items()}
    notices = load_detector(saved(tmp_path / "h.pth", halves)).notices

    assert "backbone.features.0.0.0.weight is int32, not a float" in error.message
    assert any("tensors of float16 became float32" in notice for notice in notices)


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "module.model.", "detector."])
def test_prefixes_of_every_key_come_off_and_are_said(tmp_path, prefix):
    weights = {f"{prefix}{key}": t for key, t in state_dict("torchvision_small").items()}

    loaded = load_detector(saved(tmp_path / "w.pth", {"model": {"state_dict": weights}}))

    assert loaded.report.is_clean
    assert any("prefix" in line for line in loaded.checkpoint.evidence)


@pytest.mark.parametrize(
    ("part", "starts"),
    [
        ("half of all keys", ("base_net", "extras")),  # nothing tells the family any more
        ("some keys of the heads", ("regression_headers",)),  # which tell boxes per cell
        ("some keys that only fill the network", ("extras",)),
    ],
)
def test_a_prefix_of_some_keys_only_is_named_as_the_cause(tmp_path, part, starts):
    weights = {
        f"module.{key}" if key.startswith(starts) else key: tensor
        for key, tensor in state_dict("qfgaohao_small").items()
    }
    count = sum(key.startswith("module.") for key in weights)

    error = refusal(tmp_path, weights)

    assert f"only {count} of the {len(weights)} keys begin with 'module.'" in error.message, part
    assert "a prefix is removed only where every key has it" in error.hint


def test_duplicate_labels_name_the_label_file(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("torchvision_small"))
    options = LoadOptions(class_names=("cat",) * 20, class_names_from="labels.txt")

    with pytest.raises(SpecError, match="duplicate class names: cat") as info:
        load_detector(path, options)

    assert info.value.where == "labels.txt"
    assert info.value.hint


@pytest.mark.parametrize(
    "changes", [{"colour": 1}, {"decode": {"score_threshold": 7}}, {"class_names": ["a", "b"]}]
)
def test_what_is_wrong_with_a_spec_file_names_it(tmp_path, changes):
    path = saved(tmp_path / "w.pth", state_dict("torchvision_small"))

    with pytest.raises(SpecError) as info:
        load_detector(path, LoadOptions(spec_changes=changes, spec_from="mine.json"))

    assert info.value.where.startswith("mine.json")


def test_an_unknown_family_asks_to_leave_the_flag_out(tmp_path):
    error = refusal(tmp_path, state_dict("torchvision_small"), LoadOptions(family="nonsense"))

    assert "no family 'nonsense'" in error.message
    assert "leave --family out" in error.hint


@pytest.mark.parametrize(("content", "words"), [(None, "folder"), (b"my weights", "a text file")])
def test_what_is_no_checkpoint_file_has_a_hint(tmp_path, content, words):
    path = tmp_path / "w.pth"
    path.mkdir() if content is None else path.write_bytes(content)

    with pytest.raises(CheckpointError, match=words) as info:
        load_detector(path)

    assert "give the" in info.value.hint


def test_a_native_safetensors_file_has_nothing_wrapped_around_it(tmp_path):
    spec = tiny_spec()
    write_native(tmp_path / "w.safetensors", tiny_net(spec=spec), spec)

    evidence = load_detector(tmp_path / "w.safetensors").checkpoint.evidence

    assert not any("state_dict" in line for line in evidence)


def test_a_name_that_tells_the_size_follows_it(tmp_path):
    spec = tiny_spec()
    write_native(tmp_path / "w.pth", tiny_net(spec=spec), spec)

    loaded = load_detector(tmp_path / "w.pth", LoadOptions(image_size=(128, 128)))

    assert spec.name == "ssdlite96_mobilenet_v3_small"
    assert loaded.spec.name == "ssdlite128_mobilenet_v3_small"


def test_a_large_tongyu_trained_on_scaled_pixels_is_told_with_what_to_do(tmp_path):
    loaded = load_detector(saved(tmp_path / "w.pth", state_dict("tongyu_large")))

    assert loaded.spec.family == "shaoshengsong"
    assert any("--family tongyu if that is wrong" in notice for notice in loaded.notices)
