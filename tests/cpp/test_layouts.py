"""The same numbers in every layout that an engine may give them in are the same detections."""

import dataclasses

import numpy as np
import pytest
from cpp_library import Head, LibraryError, Status, floats, rows
from random_heads import random_heads, small_priors
from reference_specs import lufficc_spec, qfgaohao_spec

from mbv3ssd_deploy.core.detections import softmax
from mbv3ssd_deploy.core.priors import build_priors, level_slices
from mbv3ssd_deploy.device.contract import render_contract

CLASSES = 7
PROBABILITIES = 1
PLANES = 1


@pytest.fixture(params=[qfgaohao_spec, lufficc_spec], ids=["by class", "all classes"])
def spec(request):
    return dataclasses.replace(request.param(CLASSES), priors=small_priors())


@pytest.fixture
def detector(library, spec):
    return library.open(render_contract(spec))


@pytest.fixture
def heads(spec):
    return random_heads(np.random.default_rng(3), spec.priors.count, CLASSES)


def planes_of(numbers, level, gap=0):
    """Rows (n, k) of one level as planes (A k, cells + gap), the gap filled with NaN."""
    boxes, cells = level.boxes_per_cell, level.rows * level.cols
    planes = numbers.reshape(cells, boxes, -1).transpose(1, 2, 0).reshape(-1, cells)
    apart = np.full((len(planes), cells + gap), np.nan, np.float32)
    apart[:, :cells] = planes
    return apart


def level_heads(spec, loc, conf, gap):
    """The arrays, level by level; their owner must keep them."""
    slices = zip(level_slices(spec.priors), spec.priors.levels, strict=True)
    return [(planes_of(loc[s], level, gap), planes_of(conf[s], level, gap)) for s, level in slices]


def head_of(loc, conf, gap=0):
    step = loc.shape[1] if gap else 0
    return Head(floats(loc), floats(conf), loc.size - gap, conf.size - gap, PLANES, step, step)


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_planes_are_read_as_rows(detector, spec, heads, gap):
    expected = detector.detect(*heads)
    arrays = level_heads(spec, *heads, gap)

    found = detector.postprocess(*(head_of(*pair, gap) for pair in arrays))

    assert len(expected) > 8
    assert np.array_equal(found, expected)


def test_rows_may_come_level_by_level(detector, spec, heads):
    expected = detector.detect(*heads)
    parts = [tuple(np.ascontiguousarray(a[s]) for a in heads) for s in level_slices(spec.priors)]

    assert np.array_equal(detector.postprocess(*(rows(*part) for part in parts)), expected)


@pytest.mark.parametrize("as_planes", [False, True])
def test_probabilities_are_taken_as_they_are(detector, spec, heads, as_planes):
    expected = detector.detect(*heads)
    detector.call("set_head_form", PROBABILITIES, 0)
    shares = softmax(heads[1])
    arrays = level_heads(spec, heads[0], shares, 0)
    parts = [head_of(*pair) for pair in arrays] if as_planes else [rows(heads[0], shares)]

    found = detector.postprocess(*parts)

    assert np.array_equal(found["label"], expected["label"])
    assert np.array_equal(found["box"], expected["box"])
    assert np.abs(found["score"] - expected["score"]).max() < 1e-6


def test_given_priors_take_the_place_of_computed_ones(detector, spec, heads):
    expected = detector.detect(*heads)
    own = build_priors(spec.priors).astype(np.float32)
    moved = own + np.float32([0.25, 0, 0, 0])

    detector.call("set_priors", floats(moved), len(moved))
    found = detector.detect(*heads)

    assert not np.array_equal(found["box"], expected["box"])
    detector.call("set_priors", floats(own), len(own))
    assert np.array_equal(detector.detect(*heads), expected)


def test_the_thresholds_can_be_changed(detector, heads):
    many = detector.detect(*heads)
    detector.call("set_thresholds", 0.9, 0.45)

    few = detector.detect(*heads)

    assert 0 < len(few) < len(many)
    assert few["score"].min() > 0.9


def test_boxes_are_scaled_and_cut_on_demand(detector, heads):
    unscaled = detector.detect(*heads)["box"]
    scaled = detector.detect(*heads, size=(640, 480))["box"]
    detector.call("set_clip", 1)
    cut = detector.detect(*heads, size=(640, 480))["box"]

    size = np.float32([640, 480, 640, 480])
    assert np.array_equal(scaled, unscaled * size)
    assert (scaled < 0).any()
    assert np.array_equal(cut, np.clip(scaled, 0, size))


def test_nan_and_infinity_in_heads_drop_their_prior_only(detector, heads):
    loc, conf = (array.copy() for array in heads)
    expected = detector.detect(loc, conf)
    bad = expected["prior"][[0, 3, 5]]
    conf[bad[0], 2], conf[bad[1], 4], loc[bad[2], 0] = np.nan, np.inf, np.nan

    found = detector.detect(loc, conf)

    assert not np.isin(found["prior"], bad).any()
    assert np.isfinite(found["box"]).all()
    assert len(found) >= len(expected) - 3 * (CLASSES - 1)


BROKEN = {
    "no loc": ({"loc": None}, "loc is a null pointer"),
    "no conf": ({"conf": None}, "conf is a null pointer"),
    "loc too short": ({"loc_size": 57 * 4 - 1}, "loc is not 4 numbers for each prior"),
    "conf too long": ({"conf_size": 57 * 7 + 1}, "conf is not one number for each prior and class"),
    "unknown layout": ({"layout": 2}, "neither rows nor planes"),
    "planes in one": ({"layout": PLANES}, "one part for each level"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_heads_that_do_not_fit_are_refused(detector, heads, name):
    changes, message = BROKEN[name]
    head = rows(*heads)
    for field, value in changes.items():
        setattr(head, field, value)

    with pytest.raises(LibraryError, match=message) as caught:
        detector.postprocess(head)

    assert caught.value.status is Status.BAD_ARGUMENT


def test_planes_that_do_not_fit_are_refused(detector, spec, heads):
    arrays = level_heads(spec, *heads, 0)
    parts = [head_of(*pair) for pair in arrays]
    parts[1].conf_size -= 1
    with pytest.raises(LibraryError, match="head part 1: conf has fewer numbers"):
        detector.postprocess(*parts)
    parts[1].conf_size += 1
    parts[0].loc_plane_step = 14
    with pytest.raises(LibraryError, match="head part 0: loc has planes that overlap"):
        detector.postprocess(*parts)
    with pytest.raises(LibraryError, match="in 1 part or in 3, one per level, not in 2"):
        detector.postprocess(*parts[:2])
    with pytest.raises(LibraryError, match="more heads than levels"):
        detector.postprocess(*parts, *parts)


@pytest.mark.parametrize("size", [(0, 1), (1, -1), (np.nan, 1), (1, np.inf)])
def test_an_image_without_pixels_is_refused(detector, heads, size):
    with pytest.raises(LibraryError, match="has no pixels"):
        detector.detect(*heads, size=size)


@pytest.mark.parametrize("thresholds", [(-0.1, 0.5), (0.5, 1.1), (np.nan, 0.5), (0.5, np.nan)])
def test_thresholds_outside_0_to_1_are_refused(detector, thresholds):
    with pytest.raises(LibraryError, match="thresholds must lie within"):
        detector.call("set_thresholds", *thresholds)
