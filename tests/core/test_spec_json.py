import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_specs import ZOO_SPECS, qfgaohao_spec, torchvision_spec

from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    BoxCoder,
    BoxEdges,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    NmsScope,
    PriorLevel,
    PriorRounding,
    PriorSpec,
    Tap,
    json_from_spec,
    merged_json,
    spec_from_json,
)
from mbv3ssd_deploy.errors import SpecError

positive = st.floats(1e-3, 1e6)
shares = st.floats(0, 1)
limits = st.none() | st.integers(1, 10_000)


def tuples(items, **sizes):
    return st.lists(items, **sizes).map(tuple)


arches = st.builds(
    ArchSpec,
    width_mult=st.floats(0.01, 4),
    taps=tuples(st.builds(Tap), min_size=1, max_size=3),
    extras=tuples(st.integers(1, 512), max_size=4),
)
inputs = st.builds(
    InputSpec,
    height=st.integers(1, 4096),
    width=st.integers(1, 4096),
    mean=st.tuples(positive, positive, positive),
    std=st.tuples(positive, positive, positive),
)
levels = st.builds(
    PriorLevel,
    rows=st.integers(1, 50),
    cols=st.integers(1, 50),
    step_x=positive,
    step_y=positive,
    min_size=positive,
    max_size=st.none() | positive,
    ratios=tuples(positive, max_size=5),
)
priors = st.builds(
    PriorSpec,
    frame_width=positive,
    frame_height=positive,
    levels=tuples(levels, min_size=1, max_size=3),
    rounding=st.sampled_from(PriorRounding),
)
decodes = st.builds(
    DecodeSpec,
    score_threshold=shares,
    iou_threshold=shares,
    candidates_per_class=limits,
    keep_per_class=limits,
    keep_total=limits,
    iou_epsilon=shares,
    box_edges=st.sampled_from(BoxEdges),
    nms_scope=st.sampled_from(NmsScope),
    suppress_at_threshold=st.booleans(),
)
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))
specs = st.builds(
    DetectorSpec,
    name=NAMES,
    family=NAMES,
    arch=arches,
    input=inputs,
    class_names=tuples(NAMES, min_size=2, max_size=5, unique=True),
    priors=priors,
    coder=st.builds(BoxCoder, *[positive] * 2, *[st.none() | positive] * 2),
    decode=decodes,
)


def changed(path, value):
    """The JSON of a good spec with one value changed."""
    data = json.loads(json.dumps(json_from_spec(torchvision_spec(3))))
    *parents, last = path
    place = data
    for key in parents:
        place = place[key]
    place[last] = value
    return data


def refusal(data):
    with pytest.raises(SpecError) as caught:
        spec_from_json(data, where="detector.json")
    assert caught.value.where == "detector.json"
    return caught.value.message


@pytest.mark.parametrize("spec", ZOO_SPECS.values())
def test_a_spec_survives_the_way_through_text(spec):
    assert spec_from_json(json.loads(json.dumps(json_from_spec(spec)))) == spec


@given(specs)
@settings(deadline=None)
def test_any_spec_survives_the_way_through_text(spec):
    text = json.dumps(json_from_spec(spec))

    back = spec_from_json(json.loads(text))

    assert back == spec
    assert json.dumps(json_from_spec(back)) == text


def test_the_json_mirrors_the_dataclasses():
    data = json_from_spec(qfgaohao_spec(3))

    assert list(data) == [field.name for field in dataclasses.fields(DetectorSpec)]
    assert data["class_names"] == ["background", "class_1", "class_2"]
    assert data["priors"]["clip"] == "centre_form"
    assert data["arch"]["taps"][0] == {"feature": 12, "place": "output"}
    assert data["coder"]["max_log_size"] is None


def test_a_whole_number_serves_as_a_float():
    spec = spec_from_json(changed(("input", "mean"), [127, 127, 127]))

    assert all(isinstance(number, float) for number in spec.input.mean)


def test_all_problems_are_told_at_once():
    data = changed(("input", "height"), "tall")
    del data["family"]
    data["colour"] = "blue"
    data["priors"]["clip"] = "sometimes"
    data["priors"]["levels"][2]["step_x"] = None
    data["arch"]["taps"][1]["feature"] = True
    data["input"]["mean"] = [1, 2]
    data["class_names"] = "cat"
    data["decode"] = []

    message = refusal(data)

    for problem in (
        "family is missing",
        "colour is unknown",
        "input.height is 'tall', not a int",
        "priors.clip is 'sometimes', not one of 'none', 'corners', 'centre_form', 'sizes'",
        "priors.levels[2].step_x is None, not a float",
        "arch.taps[1].feature is True, not a int",
        "input.mean has 2 values, not 3",
        "class_names is not a list",
        "decode is not an object",
    ):
        assert problem in message


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("coder", "size_variance"), 0, "coder: box variances"),
        (("priors", "levels", 1, "rows"), 0, "priors.levels[1]: a prior level of 0 x 10"),
        (("priors", "frame_width"), float("nan"), "priors: the prior frame"),
        (("class_names",), ["background", "cat", "cat"], "duplicate class names: cat"),
        (("input", "mean"), [0, 0, 10**400], "input.mean[2] is too large a number"),
    ],
)
def test_values_that_make_no_sense_name_their_place(path, value, says):
    assert says in refusal(changed(path, value))


@pytest.mark.parametrize("data", [None, [], "spec", 3])
def test_what_is_no_object_is_refused(data):
    assert refusal(data) == "the DetectorSpec is not an object"


def test_merging_goes_into_objects_and_replaces_all_else():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2, "c": {"z": 3}}
    changes = {"a": {"y": [9], "new": 5}, "b": {"k": 1}, "c": None}

    merged = merged_json(base, changes)

    assert merged == {"a": {"x": 1, "y": [9], "new": 5}, "b": {"k": 1}, "c": None}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 2, "c": {"z": 3}}


def test_a_merged_spec_is_the_spec_with_those_values():
    spec = torchvision_spec(3)

    merged = merged_json(json_from_spec(spec), {"input": {"height": 256}, "name": "mine"})

    wanted = dataclasses.replace(spec.input, height=256)
    assert spec_from_json(merged) == dataclasses.replace(spec, input=wanted, name="mine")
