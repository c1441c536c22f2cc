"""What a user may change, and what the file decides."""

import dataclasses

import pytest
from checkpoint_files import saved, state_dict

from mbv3ssd_deploy.checkpoint.load import LoadOptions, drafted_spec, load_detector
from mbv3ssd_deploy.core.spec import ChannelOrder, json_from_spec
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.io.records import json_from_record, record_from_json


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A qfgaohao Small file of 21 classes."""
    return saved(tmp_path_factory.mktemp("checkpoint") / "w.pth", state_dict("qfgaohao_small"))


NAMES = tuple(f"thing {i}" for i in range(20))


def test_the_background_is_added_to_names_that_leave_it_out(checkpoint):
    loaded = load_detector(checkpoint, LoadOptions(class_names=NAMES))

    assert loaded.spec.class_names == ("background", *NAMES)
    assert loaded.provenance["class_names"] == "flag"
    assert loaded.notices == ()


def test_names_with_the_background_are_taken_as_they_are(checkpoint):
    names = ("BACKGROUND", *NAMES)

    assert load_detector(checkpoint, LoadOptions(class_names=names)).spec.class_names == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:-2], "18 class names for a network of 21 classes"),
        ((*NAMES, "a", "b"), "22 class names for a network of 21 classes"),
        ((*NAMES[:-1], " "), "class names 20 of 20 are blank"),
        ((*NAMES[:-1], "thing 3"), "duplicate class names: thing 3"),
        (("background", *NAMES[1:]), "duplicate class names: background"),
    ],
)
def test_names_that_do_not_fit_are_refused(checkpoint, names, message):
    with pytest.raises(SpecError, match=message) as info:
        load_detector(checkpoint, LoadOptions(class_names=names))

    assert info.value.where == str(checkpoint)


def test_the_right_number_of_classes_is_accepted(checkpoint):
    assert load_detector(checkpoint, LoadOptions(num_classes=21)).spec.num_classes == 21


@pytest.mark.parametrize("wrong", [20, 2, 91])
def test_a_wrong_number_of_classes_is_refused_with_both(checkpoint, wrong):
    with pytest.raises(SpecError, match=f"predict 21 classes .* not {wrong}") as info:
        load_detector(checkpoint, LoadOptions(num_classes=wrong))

    assert "--num-classes 21" in info.value.hint


def test_mean_std_and_order_override_the_preset(checkpoint):
    options = LoadOptions(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channel_order=ChannelOrder.BGR)

    loaded = load_detector(checkpoint, options)

    assert loaded.spec.input.mean == (1.0, 2.0, 3.0)
    assert loaded.spec.input.std == (4.0, 5.0, 6.0)
    assert loaded.spec.input.channel_order is ChannelOrder.BGR
    flags = {key for key, source in loaded.provenance.items() if source == "flag"}
    assert flags == {"input.mean", "input.std", "input.channel_order"}


def test_the_presets_numbers_follow_their_colours_when_only_the_order_changes(checkpoint):
    changes = {"input": {"mean": [1, 2, 3], "std": [4, 5, 6]}}

    spec = load_detector(
        checkpoint, LoadOptions(spec_changes=changes, channel_order=ChannelOrder.BGR)
    ).spec

    assert spec.input.mean == (3.0, 2.0, 1.0)
    assert spec.input.std == (6.0, 5.0, 4.0)


def test_a_std_of_zero_is_refused(checkpoint):
    with pytest.raises(SpecError, match="std above 0"):
        load_detector(checkpoint, LoadOptions(std=(1.0, 0.0, 1.0)))


def test_spec_changes_are_laid_over_the_preset(checkpoint):
    changes = {"decode": {"score_threshold": 0.3}, "name": "mine"}

    loaded = load_detector(checkpoint, LoadOptions(spec_changes=changes))

    assert loaded.spec.name == "mine"
    assert loaded.spec.decode.score_threshold == 0.3
    assert loaded.spec.decode.iou_threshold == 0.45
    assert loaded.provenance["decode.score_threshold"] == "--spec"
    assert loaded.provenance["decode"] == "family preset"


def test_a_part_that_spec_changes_give_whole_is_told_as_one(checkpoint):
    changes = json_from_spec(load_detector(checkpoint).spec)

    loaded = load_detector(checkpoint, LoadOptions(spec_changes=changes))

    assert set(loaded.provenance) == {*changes, "priors.boxes_per_cell"}
    assert loaded.provenance["decode"] == "--spec"


def test_spec_changes_make_no_other_family_of_a_file(checkpoint):
    options = LoadOptions(spec_changes={"family": "tongyu"}, spec_from="mine.json")

    with pytest.raises(SpecError, match=r"of the family qfgaohao, which .* to tongyu") as info:
        load_detector(checkpoint, options)

    assert info.value.where == "mine.json"
    assert "--family" in info.value.hint


def test_the_spec_of_a_fork_is_drafted_though_its_heads_contradict_it(tmp_path):
    weights = state_dict("qfgaohao_small")
    for kind, count in (("classification", 4 * 21), ("regression", 4 * 4)):
        for leaf in ("weight", "bias"):
            key = f"{kind}_headers.0.3.{leaf}"
            weights[key] = weights[key][:count]
    path = saved(tmp_path / "w.pth", weights)

    with pytest.raises(SpecError, match=r"predict 4-6-6-6-6-6 .* have 6-6-6-6-6-6") as info:
        load_detector(path)
    levels = json_from_spec(drafted_spec(path, LoadOptions()))["priors"]["levels"]
    levels[0]["ratios"] = [2.0, 0.5]
    fork = load_detector(path, LoadOptions(spec_changes={"priors": {"levels": levels}}))

    assert "--write-spec" in info.value.hint
    assert [level.boxes_per_cell for level in fork.spec.priors.levels] == [4, 6, 6, 6, 6, 6]


def test_all_that_is_wrong_with_spec_changes_is_said_at_once(checkpoint):
    changes = {"decode": {"score_threshold": "high", "speed": 3}, "colour": 1}

    with pytest.raises(SpecError) as info:
        load_detector(checkpoint, LoadOptions(spec_changes=changes))

    assert "decode.score_threshold is 'high', not a float" in info.value.message
    assert "decode.speed is unknown" in info.value.message
    assert "colour is unknown" in info.value.message


def test_a_fork_that_changed_priors_thresholds_and_preprocessing_is_described_whole(checkpoint):
    plain = load_detector(checkpoint)
    levels = json_from_spec(plain.spec)["priors"]["levels"]
    halved = [level | {"min_size": level["min_size"] / 2} for level in levels]
    changes = {
        "priors": {"levels": halved},
        "decode": {"iou_threshold": 0.6},
        "input": {"mean": [104, 117, 123], "channel_order": "bgr"},
    }

    loaded = load_detector(checkpoint, LoadOptions(spec_changes=changes))

    before, after = plain.spec, loaded.spec
    assert [x.min_size * 2 for x in after.priors.levels] == [
        x.min_size for x in before.priors.levels
    ]
    assert after.decode == dataclasses.replace(before.decode, iou_threshold=0.6)
    assert after.input == dataclasses.replace(
        before.input, mean=(104.0, 117.0, 123.0), channel_order=ChannelOrder.BGR
    )
    changed = {part for part, source in loaded.provenance.items() if source == "--spec"}
    fields = {"priors.levels", "decode.iou_threshold", "input.mean", "input.channel_order"}
    assert changed == fields


def test_priors_from_spec_changes_that_the_heads_contradict_name_the_spec(checkpoint):
    levels = json_from_spec(load_detector(checkpoint).spec)["priors"]["levels"]
    changes = {"priors": {"levels": [level | {"ratios": [2.0, 0.5]} for level in levels]}}

    with pytest.raises(SpecError, match=r"predict 6-6-6-6-6-6 .* have 4-4-4-4-4-4") as info:
        load_detector(checkpoint, LoadOptions(spec_changes=changes, spec_from="fork.json"))

    assert info.value.where == "fork.json"
    assert "1 more for each ratio" in info.value.hint


def test_class_names_from_spec_changes_must_fit_the_heads(checkpoint):
    changes = {"class_names": ["background", "cat"]}

    with pytest.raises(SpecError, match=r"predict 21 classes .* but 2 are named"):
        load_detector(checkpoint, LoadOptions(spec_changes=changes))


def test_an_arch_from_spec_changes_must_fit_the_weights(checkpoint):
    changes = {"arch": {"width_mult": 0.5}}

    with pytest.raises(CheckpointError, match=r"shapes are wrong: base_net\.0\.weight is \[16"):
        load_detector(checkpoint, LoadOptions(spec_changes=changes))


def test_an_input_size_from_spec_changes_alone_shows_both_sizes(checkpoint):
    changes = {"input": {"height": 320, "width": 320}}

    with pytest.raises(SpecError, match=r"level 0: the feature map is 20 x 20 .* for 19 x 19"):
        load_detector(checkpoint, LoadOptions(spec_changes=changes))


def test_a_family_can_be_asked_for(checkpoint):
    loaded = load_detector(checkpoint, LoadOptions(family="qfgaohao"))

    assert loaded.checkpoint.evidence[0] == "--family qfgaohao"


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            "torchvision",
            r"a torchvision checkpoint: 2 keys are missing: backbone\.features\.0\.0\.0\.weight",
        ),
        ("native", "a native checkpoint carries its spec, and this file has none"),
        ("yolo", "no family 'yolo'; this version loads native, torchvision, qfgaohao"),
    ],
)
def test_a_family_that_the_file_is_not_of_is_refused(checkpoint, family, message):
    with pytest.raises(CheckpointError, match=message):
        load_detector(checkpoint, LoadOptions(family=family))


def test_options_survive_json():
    options = LoadOptions(
        family="qfgaohao",
        image_size=(240, 320),
        class_names=("a", "b"),
        num_classes=3,
        mean=(1.0, 2.0, 3.0),
        channel_order=ChannelOrder.BGR,
        spec_changes={"decode": {"score_threshold": 0.1}},
    )

    again = record_from_json(LoadOptions, json_from_record(options), where="options")

    assert dataclasses.replace(again, spec_changes=dict(again.spec_changes)) == options
