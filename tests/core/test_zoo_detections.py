"""Final detections from recorded heads, against what the families' own code found in them."""

import numpy as np
import pytest
from reference_specs import ZOO_SPECS
from zoo import meta, needs_zoo, oracle
from zoo_settings import rules, with_rules

from mbv3ssd_deploy.core.detections import detections_from_heads, scaled
from mbv3ssd_deploy.core.spec import BoxEdges, NmsScope, ResultOrder

SETTINGS = ("det", "det2", "det3")
# neighbours in a ranking whose scores are nearer than this may have swapped places
TIE = 2e-6


def spec_as_recorded(folder, prefix):
    setting = next(s for s in meta(folder)["detections"] if s["prefix"] == prefix)
    return with_rules(ZOO_SPECS[folder], **rules(setting))


def found_with(folder, spec):
    image, recorded = meta(folder)["image"], oracle(folder)
    found = detections_from_heads(recorded["img_loc"], recorded["img_logits"], spec)
    return scaled(found, image["width"], image["height"])


def as_recorded(folder, prefix):
    recorded = oracle(folder)
    return {key: recorded[f"{prefix}_{key}"] for key in ("boxes", "scores", "labels")}


def partner(found, recorded, row):
    """Where the recorded detection `row` stands among the found ones; looks among ties only."""
    near = np.flatnonzero(np.abs(found.scores - recorded["scores"][row]) < TIE)
    same = [
        i
        for i in near
        if found.labels[i] == recorded["labels"][row]
        and np.abs(found.boxes[i] - recorded["boxes"][row]).max() < 1e-3
        and abs(found.scores[i] - recorded["scores"][row]) < 1e-6
    ]
    assert same, f"row {row} was not found"
    return min(same, key=lambda i: abs(i - row))


def are_same(found, recorded):
    return len(found) == len(recorded["labels"]) and (
        np.array_equal(found.labels, recorded["labels"])
        and np.abs(found.boxes - recorded["boxes"]).max() < 1e-3
    )


@needs_zoo
@pytest.mark.parametrize("prefix", SETTINGS)
@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_detections_are_the_originals(folder, prefix):
    spec = spec_as_recorded(folder, prefix)
    found, recorded = found_with(folder, spec), as_recorded(folder, prefix)

    assert len(found) == len(recorded["scores"]) > 0
    assert np.abs(found.scores - recorded["scores"]).max() < 1e-6
    places = [partner(found, recorded, row) for row in range(len(found))]
    assert sorted(places) == list(range(len(found)))
    if spec.decode.order is not ResultOrder.SCORE and len(found) != spec.decode.keep_total:
        assert np.array_equal(found.labels, recorded["labels"])
    if spec.decode.order is ResultOrder.CLASS_PRIOR and len(found) != spec.decode.keep_total:
        assert places == list(range(len(found)))


@needs_zoo
@pytest.mark.parametrize(
    ("folder", "prefix", "changes"),
    [
        ("qfgaohao_large", "det2", {"iou_threshold": 0.5}),
        ("qfgaohao_large", "det2", {"candidates_per_class": 100}),
        ("torchvision_coco", "det", {"clip_before_nms": False}),
        ("torchvision_coco", "det", {"keep_total": None}),
        ("compact_large", "det3", {"order": ResultOrder.SCORE}),
        ("compact_large", "det2", {"candidates_per_class": 100}),
        ("ujsyehao_released", "det", {"box_edges": BoxEdges.CONTINUOUS}),
        ("ujsyehao_released", "det2", {"clip_before_nms": False}),
        ("ujsyehao_released", "det2", {"order": ResultOrder.CLASS}),
        ("lufficc_large", "det2", {"order": ResultOrder.CLASS}),
    ],
)
def test_the_recorded_detections_tell_the_rules_apart(folder, prefix, changes):
    spec, recorded = spec_as_recorded(folder, prefix), as_recorded(folder, prefix)

    assert not are_same(found_with(folder, with_rules(spec, **changes)), recorded)


@needs_zoo
def test_one_nms_over_all_classes_finds_what_class_by_class_finds_here():
    spec = spec_as_recorded("lufficc_large", "det2")
    by_class = with_rules(spec, nms_scope=NmsScope.CLASS)

    # boxes of different classes meet only below 0: as zoo's notes say, none did
    assert are_same(found_with("lufficc_large", by_class), as_recorded("lufficc_large", "det2"))
