import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mbv3ssd_deploy.core.boxes import (
    centre_from_corners,
    corners_from_centre,
    decode_boxes,
    iou_matrix,
)
from mbv3ssd_deploy.core.spec import BoxCoder

CODER = BoxCoder(0.1, 0.2)
CAPPED = BoxCoder(0.1, 0.2, max_log_size=np.log(2.0))
PRIOR = np.array([[0.5, 0.25, 0.2, 0.4]])
numbers = st.floats(-2, 2, width=32)
rows = st.integers(0, 12)
boxes_of = rows.flatmap(lambda n: arrays(np.float32, (n, 4), elements=numbers))


def f32(*rows):
    return np.array(rows, dtype=np.float32)


def test_centre_form_becomes_corners():
    assert np.allclose(corners_from_centre(PRIOR), [[0.4, 0.05, 0.6, 0.45]], atol=1e-12)


@given(boxes_of)
@settings(deadline=None)
def test_the_two_forms_are_each_others_inverse(boxes):
    back = corners_from_centre(centre_from_corners(boxes.astype(np.float64)))

    assert np.allclose(back, boxes, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_box_forms_and_iou_keep_the_float_type(dtype):
    boxes = PRIOR.astype(dtype)

    assert corners_from_centre(boxes).dtype == dtype
    assert centre_from_corners(boxes).dtype == dtype
    assert iou_matrix(boxes, boxes, 1e-5).dtype == dtype


def test_an_offset_of_zero_gives_the_prior_itself():
    decoded = decode_boxes(f32([0, 0, 0, 0]), PRIOR, CODER)

    assert decoded.dtype == np.float32
    assert np.allclose(decoded, corners_from_centre(PRIOR), atol=1e-7)


def test_a_size_stays_within_the_smallest_and_the_largest_log():
    limited = dataclasses.replace(CODER, max_log_size=np.log(3), min_log_size=-np.log(2))
    decoded = decode_boxes(f32([0, 0, 99, -99]), PRIOR, limited)

    assert np.allclose(centre_from_corners(decoded)[:, 2:], PRIOR[:, 2:] * [3, 0.5])


def test_decoding_moves_by_the_prior_size_and_scales_by_the_exponential():
    decoded = decode_boxes(f32([10, -5, 5 * np.log(2), 5 * np.log(0.5)]), PRIOR, CODER)

    # centre 0.5 + 1 * 0.2, 0.25 - 0.5 * 0.4; size 0.2 * 2, 0.4 / 2
    assert np.allclose(centre_from_corners(decoded), [[0.7, 0.05, 0.4, 0.2]], atol=1e-6)


def test_a_size_offset_is_capped_above_and_free_below():
    decoded = decode_boxes(f32([0, 0, 100, -5 * np.log(4)]), PRIOR, CAPPED)

    assert np.allclose(centre_from_corners(decoded)[0, 2:], [0.4, 0.1], atol=1e-6)


def test_a_size_offset_beyond_float32_becomes_infinite_without_a_warning():
    decoded = decode_boxes(f32([0, 0, 1e4, 0]), PRIOR, CODER)

    assert np.isinf(decoded[0, [0, 2]]).all()
    assert np.isfinite(decoded[0, [1, 3]]).all()


def test_offsets_that_do_not_fit_the_priors_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 4\) and priors \(1, 4\)"):
        decode_boxes(np.zeros((2, 4), np.float32), PRIOR, CODER)


def test_iou_of_known_boxes():
    square = f32([0, 0, 2, 2])
    others = f32([0, 0, 2, 2], [1, 0, 3, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0.5, 0.5, 1.5, 1.5])

    assert np.allclose(iou_matrix(square, others), [[1, 2 / 6, 1 / 7, 0, 1 / 4]])


def test_epsilon_is_added_to_the_union():
    square = f32([0, 0, 2, 2])

    assert iou_matrix(square, square, 1.0).item() == pytest.approx(4 / 5)


def test_a_box_without_area_or_turned_inside_out_overlaps_nothing():
    flat, inverted, square = f32([1, 0, 1, 2]), f32([2, 2, 0, 0]), f32([0, 0, 2, 2])

    for odd in (flat, inverted):
        assert iou_matrix(odd, odd).item() == 0
        assert iou_matrix(odd, square).item() == 0


def test_boxes_too_large_for_float32_overlap_nothing_without_a_warning():
    huge = f32([-3e38, -3e38, 3e38, 3e38])

    assert iou_matrix(huge, huge).item() == 0


@given(boxes_of, boxes_of)
@settings(deadline=None)
def test_iou_is_symmetric_and_within_0_and_1(a, b):
    iou = iou_matrix(a, b)

    assert np.array_equal(iou, iou_matrix(b, a).T)
    assert ((iou >= 0) & (iou <= 1.000001)).all()


@given(boxes_of, st.floats(-3, 3))
@settings(deadline=None)
def test_iou_does_not_depend_on_where_the_boxes_stand(boxes, shift):
    boxes = boxes.astype(np.float64)
    moved = boxes + shift
    # boxes thinner than the rounding of the shift say nothing about the shift
    sides = boxes[:, 2:] - boxes[:, :2]
    thick = (np.abs(sides) > 1e-3).all(axis=1)

    before = iou_matrix(boxes[thick], boxes[thick])
    assert np.allclose(before, iou_matrix(moved[thick], moved[thick]), atol=1e-9)
