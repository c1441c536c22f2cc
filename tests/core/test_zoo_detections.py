"""Final detections from recorded heads, against what the families' own code found in them."""

import dataclasses

import numpy as np
import pytest
from reference_specs import qfgaohao_spec, torchvision_spec
from zoo import meta, needs_zoo, oracle

from mbv3ssd_deploy.core.detections import detections_from_heads, scaled

SPECS = {
    "qfgaohao_large": qfgaohao_spec(21),
    "qfgaohao_small": qfgaohao_spec(21),
    "torchvision_coco": torchvision_spec(91),
    "torchvision_fulltail": torchvision_spec(21),
    "torchvision_small": torchvision_spec(21),
}
SETTINGS = ("det", "det2", "det3")
# neighbours in a ranking whose scores are nearer than this may have swapped places
TIE = 2e-6


def decode_as_recorded(spec, setting):
    if spec.family == "torchvision":
        changes = {
            "score_threshold": setting["score_thresh"],
            "iou_threshold": setting["nms_thresh"],
            "candidates_per_class": setting["topk_candidates_per_class"],
            "keep_total": setting["detections_per_img"],
        }
    else:
        top_k = setting["top_k_per_class"]
        changes = {
            "score_threshold": setting["prob_threshold"],
            "iou_threshold": setting["iou_threshold"],
            "candidates_per_class": setting["candidate_size"],
            "keep_per_class": top_k if top_k > 0 else None,
        }
    return dataclasses.replace(spec, decode=dataclasses.replace(spec.decode, **changes))


def found_and_recorded(folder, prefix):
    about, recorded = meta(folder), oracle(folder)
    setting = next(s for s in about["detections"] if s["prefix"] == prefix)
    spec = decode_as_recorded(SPECS[folder], setting)
    found = detections_from_heads(recorded["img_loc"], recorded["img_logits"], spec)
    image = about["image"]
    found = scaled(found, image["width"], image["height"])
    return found, {k: recorded[f"{prefix}_{k}"] for k in ("boxes", "scores", "labels")}


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


@needs_zoo
@pytest.mark.parametrize("prefix", SETTINGS)
@pytest.mark.parametrize("folder", SPECS)
def test_detections_are_the_originals(folder, prefix):
    found, recorded = found_and_recorded(folder, prefix)

    assert len(found) == len(recorded["scores"]) > 0
    assert np.abs(found.scores - recorded["scores"]).max() < 1e-6
    places = [partner(found, recorded, row) for row in range(len(found))]
    assert sorted(places) == list(range(len(found)))
    if SPECS[folder].family == "qfgaohao":
        assert np.array_equal(found.labels, recorded["labels"])


@needs_zoo
@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        ("qfgaohao_large", {"iou_threshold": 0.5}),
        ("qfgaohao_large", {"candidates_per_class": 100}),
        ("torchvision_coco", {"clip_before_nms": False}),
        ("torchvision_coco", {"keep_total": None}),
    ],
)
def test_the_recorded_detections_tell_the_rules_apart(folder, changes):
    spec, recorded = SPECS[folder], oracle(folder)
    prefix = "det2" if spec.family == "qfgaohao" else "det"
    other = dataclasses.replace(spec, decode=dataclasses.replace(spec.decode, **changes))

    heads = recorded["img_loc"], recorded["img_logits"]
    found = scaled(detections_from_heads(*heads, other), 500, 332)

    boxes = recorded[f"{prefix}_boxes"]
    assert len(found) != len(boxes) or np.abs(found.boxes - boxes).max() > 0.1
