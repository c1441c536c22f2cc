"""The C++ post-processing gives the list of core/detections.py, by every rule that there is."""

import dataclasses

import numpy as np
import pytest
from cpp_parity import as_array, differences
from random_heads import random_heads, random_rules, small_priors
from reference_specs import ZOO_SPECS, qfgaohao_spec
from zoo import meta, needs_zoo, oracle, reduced
from zoo_settings import rules, with_rules

from mbv3ssd_deploy.core.boxes import decode_boxes
from mbv3ssd_deploy.core.detections import (
    detections_from_heads,
    detections_from_scores,
    scaled,
    softmax,
)
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.device.contract import render_contract

PROBABILITIES, CORNERS = 1, 1


def small_spec(classes=5, **changes):
    spec = dataclasses.replace(qfgaohao_spec(classes), priors=small_priors())
    return dataclasses.replace(spec, decode=dataclasses.replace(spec.decode, **changes))


def assert_same(detector, spec, loc, conf, size=(300, 200)):
    found = detector.detect(loc, conf, size)
    expected = as_array(scaled(detections_from_heads(loc, conf, spec), *size))
    assert differences(found, expected) == ""
    return found


@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_priors_equal_pythons_bit_by_bit(library, folder):
    spec = ZOO_SPECS[folder]

    assert np.array_equal(
        library.open(render_contract(spec)).priors(),
        build_priors(spec.priors).astype(np.float32),
    )


@pytest.mark.parametrize("part", range(3))
def test_every_rule_gives_pythons_list_bit_by_bit(library, part):
    """Boxes and probabilities are not rounded, so that the lists are equal."""
    for seed in range(part, 300, 3):
        assert_lists_equal(library, seed)


def assert_lists_equal(library, seed):
    random = np.random.default_rng(seed)
    classes = int(random.integers(2, 24))
    spec = random_rules(random, small_spec(classes))
    detector = library.open(render_contract(spec))
    detector.call("set_head_form", PROBABILITIES, CORNERS)
    for _ in range(3):
        loc, conf = random_heads(random, 57, classes, spread=3.0)
        boxes = decode_boxes(loc, build_priors(spec.priors), spec.coder)
        scores = softmax(conf)
        if seed % 3 == 0:
            scores = np.round(scores, 2)  # equal scores
        if seed % 5 == 0:
            scores[random.integers(0, 57, 4), random.integers(0, classes, 4)] = np.nan, np.inf, 1, 2
            boxes[random.integers(0, 57, 3), random.integers(0, 4, 3)] = np.nan, np.inf, -np.inf
        if seed % 7 == 0:
            boxes = np.ascontiguousarray(boxes[:, [2, 3, 0, 1]])  # turned round: no area

        found = detector.detect(boxes, scores)

        size = spec.input.width, spec.input.height
        expected = as_array(detections_from_scores(boxes, scores, spec.decode, size))
        for name in expected.dtype.names:
            assert np.array_equal(found[name], expected[name]), (seed, name)
        assert np.array_equal(scores[found["prior"], found["label"]], found["score"]), seed


@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_random_heads_of_every_family(library, folder):
    spec = ZOO_SPECS[folder]
    detector = library.open(render_contract(spec))
    random = np.random.default_rng(7)
    for _ in range(4):
        heads = random_heads(random, spec.priors.count, spec.num_classes)

        assert len(assert_same(detector, spec, *heads)) > 4


@pytest.mark.parametrize("part", range(4))
def test_random_heads_by_random_rules(library, part):
    for seed in range(part, 100, 4):
        random = np.random.default_rng([1, seed])
        spec = random_rules(random, small_spec(int(random.integers(2, 24))))
        detector = library.open(render_contract(spec))
        for _ in range(10):
            assert_same(detector, spec, *random_heads(random, 57, spec.num_classes))


KEPT = [
    (folder, setting["prefix"])
    for folder in ZOO_SPECS
    for setting in reduced(folder)[0]["detections"]
]


@pytest.mark.parametrize(("folder", "prefix"), KEPT)
def test_the_originals_detections_from_the_committed_fixtures(library, folder, prefix):
    about, recorded = reduced(folder)
    setting = next(s for s in about["detections"] if s["prefix"] == prefix)
    spec = with_rules(ZOO_SPECS[folder], **rules(setting))
    # rows that were left out are background for certain
    loc = np.zeros((spec.priors.count, 4), np.float32)
    conf = np.zeros((spec.priors.count, spec.num_classes), np.float32)
    conf[:, 0] = 200
    loc[recorded["img_rows"]] = recorded["img_loc"]
    conf[recorded["img_rows"]] = recorded["img_logits"]
    size = about["image"]["width"], about["image"]["height"]

    found = library.open(render_contract(spec)).detect(loc, conf, size)

    theirs = np.zeros(len(recorded[f"{prefix}_scores"]), found.dtype)
    theirs["box"], theirs["score"] = recorded[f"{prefix}_boxes"], recorded[f"{prefix}_scores"]
    theirs["label"] = recorded[f"{prefix}_labels"]
    assert differences(found, theirs) == ""
    assert len(found) > 0


@needs_zoo
@pytest.mark.parametrize("prefix", ["det", "det2", "det3"])
@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_the_originals_detections_from_whole_fixtures(library, folder, prefix):
    setting = next(s for s in meta(folder)["detections"] if s["prefix"] == prefix)
    spec = with_rules(ZOO_SPECS[folder], **rules(setting))
    image, recorded = meta(folder)["image"], oracle(folder)

    found = assert_same(
        library.open(render_contract(spec)),
        spec,
        recorded["img_loc"],
        recorded["img_logits"],
        (image["width"], image["height"]),
    )

    assert len(found) == len(recorded[f"{prefix}_scores"])
