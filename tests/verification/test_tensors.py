"""Two arrays compared: pass, fail, and the description of the worst element."""

import math

import numpy as np
import pytest

from mbv3ssd_deploy.verification.rules import RULES, Check
from mbv3ssd_deploy.verification.tensors import Tolerance, compare_tensors, merged_diffs

EXACT = Tolerance(atol=0.0, rtol=0.0)
ONE_IN_TEN = Tolerance(atol=0.5, rtol=0.1)
BY_SCALE = Tolerance(atol=0.5, rtol=0.1, scaled=True)
ONNX = RULES[Check.ONNX_CPU].heads


def array(*values):
    return np.array(values, np.float32)


def test_equal_arrays_pass_a_tolerance_of_zero():
    diff = compare_tensors("loc", array(1, -2), array(1, -2), EXACT)

    assert diff.passed
    assert (diff.max_abs, diff.needed_atol, diff.elements) == (0.0, 0.0, 2)
    assert diff.cosine == pytest.approx(1.0)


def test_the_tolerance_is_absolute_plus_relative():
    # allowed at 0.5: 0.5 + 0.1 * 0.5 = 0.55
    assert compare_tensors("loc", array(0.5), array(1.046875), ONE_IN_TEN).passed
    assert not compare_tensors("loc", array(0.5), array(1.0625), ONE_IN_TEN).passed


def test_the_absolute_part_grows_with_the_whole_tensor_where_that_is_above_one():
    # rms of 0, 4, 4, 4 is sqrt(12); allowed at 0: 0.5 * sqrt(12) = 1.732
    large, off = array(0, 4, 4, 4), array(1.75, 0, 0, 0)
    diff = compare_tensors("conf", large, large + off, BY_SCALE)

    assert diff.scale == pytest.approx(math.sqrt(12))
    assert not diff.passed
    assert diff.needed_atol == pytest.approx(1.75 / math.sqrt(12))
    assert "where max(1, rms) is 3.46" in diff.sentence()
    assert compare_tensors("conf", large, large + 0.97 * off, BY_SCALE).passed
    # the tolerance of a small tensor is not tightened
    assert compare_tensors("loc", large / 100, large / 100 + off / 4, BY_SCALE).scale == 1.0


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_the_scale_is_that_of_the_reference_and_of_what_is_finite(odd):
    assert compare_tensors("loc", array(odd, 3), array(odd, 3), BY_SCALE).scale == 3.0
    assert compare_tensors("loc", array(odd), array(odd), BY_SCALE).scale == 1.0
    assert compare_tensors("loc", array(1, 3e-4), array(1, 3e30), BY_SCALE).scale == 1.0


def test_a_tolerance_that_is_not_scaled_is_the_same_for_every_tensor():
    diff = compare_tensors("conf", array(0, 4, 4, 4), array(0.625, 4, 4, 4), ONE_IN_TEN)

    assert (diff.scale, diff.passed, diff.needed_atol) == (1.0, False, 0.625)
    assert "rms" not in diff.sentence()


def large_logits():
    """(300, 21) logits of rms 5."""
    return np.random.default_rng(3).normal(0, 5, (300, 21)).astype(np.float32)


def one_channel_up(logits):
    return logits + 2e-3 * (np.arange(21) == 7)


def two_priors_exchanged(logits):
    return logits[[1, 0, *range(2, 300)]]


def one_level_scaled(logits):
    return logits * np.where(np.arange(300) < 50, 1.01, 1.0)[:, None]


@pytest.mark.parametrize("mistake", [one_channel_up, two_priors_exchanged, one_level_scaled])
def test_no_mistake_hides_behind_large_logits(mistake):
    logits = large_logits()

    diff = compare_tensors("conf", logits, mistake(logits).astype(np.float32), ONNX)

    assert diff.scale == pytest.approx(5, rel=0.02)
    assert not diff.passed


def test_the_worst_element_is_named_with_both_values():
    expected = np.zeros((2, 3), np.float32)
    actual = expected.copy()
    actual[0, 1], actual[1, 2] = 1.0, -4.0

    diff = compare_tensors("conf", expected, actual, EXACT, image="cat.png")

    assert diff.worst_index == (1, 2)
    assert (diff.expected_at_worst, diff.actual_at_worst) == (0.0, -4.0)
    assert diff.bad_elements == 2
    assert "worst at [1, 2] of cat.png" in diff.sentence()
    assert "expected 0, got -4" in diff.sentence()


def test_the_needed_tolerance_passes_and_anything_less_does_not():
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(50, 4)).astype(np.float32) * 10
    actual = (expected + rng.normal(size=(50, 4)) * 0.1).astype(np.float32)

    needed = compare_tensors("loc", expected, actual, Tolerance(0.0, 1e-3)).needed_atol

    assert needed > 0
    assert compare_tensors("loc", expected, actual, Tolerance(needed * 1.000001, 1e-3)).passed
    assert not compare_tensors("loc", expected, actual, Tolerance(needed * 0.99, 1e-3)).passed


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_passes_only_against_the_very_same(odd):
    generous = Tolerance(atol=1e30, rtol=1e30)

    assert compare_tensors("loc", array(odd, 1), array(odd, 1), EXACT).passed
    for expected, actual in [(odd, 1.0), (1.0, odd), (odd, 3e38)]:
        diff = compare_tensors("loc", array(expected, 1), array(actual, 1), generous)
        assert diff.bad_elements == 1
        assert diff.max_abs == math.inf
        assert diff.needed_atol == math.inf
    assert "would have passed" not in diff.sentence()


def test_infinities_of_both_signs_differ():
    assert not compare_tensors("loc", array(math.inf), array(-math.inf), ONE_IN_TEN).passed


def test_what_is_not_finite_is_counted_on_both_sides():
    diff = compare_tensors("loc", array(math.nan, 1, 2), array(0, math.inf, math.nan), EXACT)

    assert (diff.expected_not_finite, diff.actual_not_finite) == (1, 2)
    assert math.isnan(diff.cosine)


def test_cosines():
    assert compare_tensors("a", array(1, 0), array(0, 1), EXACT).cosine == 0.0
    assert compare_tensors("a", array(1, 1), array(-2, -2), EXACT).cosine == pytest.approx(-1.0)
    assert compare_tensors("a", array(0, 0), array(0, 0), EXACT).cosine == 1.0
    assert compare_tensors("a", array(0, 0), array(0, 1), EXACT).cosine == 0.0


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="proves nothing"):
        compare_tensors("loc", array(), array(), EXACT)
    with pytest.raises(ValueError, match="shape"):
        compare_tensors("loc", array(1, 2), array(1), EXACT)
    with pytest.raises(ValueError, match="no diffs"):
        merged_diffs([])


def test_merged_diffs_keep_the_worst_image_and_add_the_counts_up():
    small = compare_tensors("loc", array(1, 1), array(1, 1.5), EXACT, image="a.png")
    large = compare_tensors("loc", array(0.5, 0.5), array(4.5, 0), EXACT, image="b.png")
    fine = compare_tensors("loc", array(1, 1), array(1, 1), EXACT, image="c.png")

    diff = merged_diffs([small, large, fine])

    assert diff.image == "b.png"
    assert (diff.worst_index, diff.max_abs, diff.needed_atol) == ((0,), 4.0, 4.0)
    assert (diff.elements, diff.bad_elements) == (6, 3)
    assert diff.cosine == large.cosine


def test_a_nan_in_one_image_survives_the_merge():
    broken = compare_tensors("loc", array(1), array(math.nan), EXACT, image="b.png")
    fine = compare_tensors("loc", array(1), array(1), EXACT, image="a.png")

    diff = merged_diffs([fine, broken])

    assert math.isnan(diff.cosine)
    assert (diff.image, diff.actual_not_finite) == ("b.png", 1)


def test_diffs_of_different_tensors_do_not_merge():
    loc = compare_tensors("loc", array(1), array(1), EXACT)
    conf = compare_tensors("conf", array(1), array(1), EXACT)

    with pytest.raises(ValueError, match="one tensor"):
        merged_diffs([loc, conf])


def test_the_element_that_breaks_the_tolerance_is_named_not_the_largest_distance():
    expected = np.array([1000.0, 0.0], np.float32)
    actual = np.array([1000.5, 0.01], np.float32)

    diff = compare_tensors("t", expected, actual, Tolerance(1e-6, 1e-3))

    assert diff.bad_elements == 1
    assert diff.worst_index == (1,)
    assert diff.max_abs == pytest.approx(0.5)
    assert diff.needed_atol * diff.scale == pytest.approx(0.01)
