import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference_specs import qfgaohao_spec, torchvision_spec

from mbv3ssd_deploy.core.boxes import corners_from_centre, iou_matrix
from mbv3ssd_deploy.core.detections import (
    Detections,
    detections_from_heads,
    detections_from_scores,
    scaled,
    softmax,
)
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import BoxEdges, DecodeSpec, NmsScope, ResultOrder

RULES = DecodeSpec(
    score_threshold=0.1,
    iou_threshold=0.5,
    candidates_per_class=None,
    keep_per_class=None,
    keep_total=None,
    clip_before_nms=False,
    iou_epsilon=0.0,
    order=ResultOrder.SCORE,
)
# four boxes that do not touch
APART = np.array([[x, 0, x + 0.1, 0.1] for x in (0.0, 0.2, 0.4, 0.6)], dtype=np.float32)


def f32(*rows):
    return np.array(rows, dtype=np.float32)


def found(boxes, scores, **changes):
    return detections_from_scores(boxes, scores, dataclasses.replace(RULES, **changes), (10, 10))


def as_rows(detections):
    """Each detection as (left edge of its box, label): enough to tell the boxes of APART."""
    left = np.round(detections.boxes[:, 0].astype(float), 3).tolist()
    return list(zip(left, detections.labels.tolist(), strict=True))


def test_softmax_adds_up_to_one_and_stays_in_float32():
    shares = softmax(f32([0, np.log(3)], [1000, 1000], [-1000, 1000]))

    assert shares.dtype == np.float32
    assert np.allclose(shares, [[0.25, 0.75], [0.5, 0.5], [0, 1]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_softmax_of_a_broken_row_is_nan_and_spares_the_others(bad):
    shares = softmax(f32([0, bad], [0, 0]))

    assert np.isnan(shares[0]).all()
    assert shares[1].tolist() == [0.5, 0.5]


def test_detections_are_read_only_copies():
    boxes = APART.copy()
    detections = Detections(boxes, f32(0.9, 0.8, 0.7, 0.6), np.array([1, 1, 2, 3]))
    boxes[:] = 0

    assert len(detections) == 4
    assert np.array_equal(detections.boxes, APART)
    assert detections.labels.dtype == np.int64
    for array in (detections.boxes, detections.scores, detections.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_detections_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\), \(3,\), \(4,\)"):
        Detections(APART, f32(0.9, 0.8, 0.7), np.ones(4))


def test_scaling_gives_pixels():
    detections = Detections(f32([0.25, 0.5, 0.75, 1.0]), f32(0.9), np.array([1]))

    assert scaled(detections, 400, 100).boxes.tolist() == [[100, 50, 300, 100]]


def test_the_background_is_never_reported_and_the_threshold_is_strict():
    scores = f32([0.9, 0.05, 0.05], [0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [0, 0, 1])

    rows = as_rows(found(APART, scores, score_threshold=0.25))

    assert rows == [(0.6, 2), (0.4, 2), (0.4, 1)]


def test_classes_do_not_suppress_each_other():
    same = np.repeat(APART[:1], 2, axis=0)
    scores = f32([0, 0.6, 0.4], [0, 0.3, 0.7])

    detections = found(same, scores)

    assert detections.labels.tolist() == [2, 1]
    assert np.allclose(detections.scores, [0.7, 0.6])


def test_equal_scores_rank_by_prior_then_label():
    scores = f32([0, 0.2, 0.4], [0, 0.4, 0.4], [0, 0.4, 0.2])

    rows = as_rows(found(APART[:3], scores))

    assert rows == [(0.0, 2), (0.2, 1), (0.2, 2), (0.4, 1), (0.0, 1), (0.4, 2)]


def test_class_order_goes_label_by_label():
    scores = f32([0, 0.2, 0.4], [0, 0.4, 0.6], [0, 0.4, 0.2])

    rows = as_rows(found(APART[:3], scores, order=ResultOrder.CLASS))

    assert rows == [(0.2, 1), (0.4, 1), (0.0, 1), (0.2, 2), (0.0, 2), (0.4, 2)]


@pytest.mark.parametrize("order", ResultOrder)
def test_keep_total_keeps_the_best_over_all_classes(order):
    scores = f32([0, 0.9, 0.2], [0, 0.3, 0.6], [0, 0.8, 0.5])

    detections = found(APART[:3], scores, keep_total=3, order=order)

    assert sorted(detections.scores.tolist(), reverse=True) == f32(0.9, 0.8, 0.6).tolist()


def test_class_prior_order_goes_prior_by_prior_in_each_label():
    scores = f32([0, 0.2, 0.4], [0, 0.4, 0.6], [0, 0.4, 0.2])

    rows = as_rows(found(APART[:3], scores, order=ResultOrder.CLASS_PRIOR))

    assert rows == [(0.0, 1), (0.2, 1), (0.4, 1), (0.0, 2), (0.2, 2), (0.4, 2)]


@pytest.mark.parametrize("order", ResultOrder)
@pytest.mark.parametrize("scope", NmsScope)
def test_a_list_that_was_cut_is_ordered_by_score(order, scope):
    scores = f32([0, 0.2, 0.9], [0, 0.4, 0.6], [0, 0.8, 0.3])
    rules = {"order": order, "nms_scope": scope}

    cut = found(APART[:3], scores, keep_total=5, **rules)
    whole = found(APART[:3], scores, keep_total=6, **rules)

    assert np.allclose(cut.scores, [0.9, 0.8, 0.6, 0.4, 0.3])
    assert np.array_equal(whole.scores, found(APART[:3], scores, **rules).scores)


def test_inclusive_boxes_end_on_their_last_pixel():
    # an input of 10 x 10 pixels
    boxes = f32([-0.2, 0.1, 0.5, 0.4], [0.7, 0.7, 1.5, 1.0])
    scores = f32([0, 0.9], [0, 0.8])
    edges = {"box_edges": BoxEdges.INCLUSIVE}

    free = found(boxes, scores, **edges)
    clipped = found(boxes, scores, clip_before_nms=True, **edges)

    assert np.allclose(free.boxes, [[-0.2, 0.1, 0.4, 0.3], [0.7, 0.7, 1.4, 0.9]])
    assert np.allclose(clipped.boxes, [[0, 0.1, 0.4, 0.3], [0.7, 0.7, 0.9, 0.9]])


def test_inclusive_boxes_overlap_by_the_pixels_they_cover():
    # 4 x 4 and 4 x 2 pixels: 8 of 16; without the last pixels it would be 3 of 9
    boxes, scores = f32([0, 0, 0.4, 0.4], [0, 0, 0.4, 0.2]), f32([0, 0.9], [0, 0.8])
    rules = {"box_edges": BoxEdges.INCLUSIVE, "iou_threshold": 0.4}

    assert len(found(boxes, scores, **rules)) == 1
    assert len(found(boxes, scores, **(rules | {"iou_threshold": 0.6}))) == 2


def test_an_iou_of_exactly_the_threshold_suppresses_where_the_rule_says_so():
    boxes, scores = f32([0, 0, 1, 1], [0, 0, 1, 0.5]), f32([0, 0.9], [0, 0.8])

    assert len(found(boxes, scores)) == 2
    assert len(found(boxes, scores, suppress_at_threshold=True)) == 1


@pytest.mark.parametrize(("scope", "count"), [(NmsScope.CLASS, 2), (NmsScope.ALL_CLASSES, 1)])
def test_over_all_classes_a_box_below_0_meets_one_of_another_class(scope, count):
    # in pixels of 10 x 10 the largest coordinate is 10, so that label 2 moves 11 pixels further;
    # from -11 to -1 it then covers exactly what the box of label 1 covers
    boxes = f32([0, 0, 1, 1], [-1.1, -1.1, -0.1, -0.1])
    scores = f32([0, 0.9, 0], [0, 0, 0.8])

    detections = found(boxes, scores, nms_scope=scope)

    assert len(detections) == count
    assert detections.boxes[0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("per_class", [None, 1])
def test_over_all_classes_boxes_within_the_image_compete_class_by_class(per_class):
    random = np.random.default_rng(5)
    ends = random.random((60, 4), dtype=np.float32)
    boxes, scores = np.sort(ends, axis=1), random.random((60, 4), dtype=np.float32)
    rules = {"keep_per_class": per_class, "candidates_per_class": 40}

    over_all = found(boxes, scores, nms_scope=NmsScope.ALL_CLASSES, **rules)
    by_class = found(boxes, scores, **rules)

    assert np.array_equal(over_all.boxes, by_class.boxes)
    assert np.array_equal(over_all.labels, by_class.labels)
    assert len(by_class) == (3 if per_class else 67)


@pytest.mark.parametrize("scope", NmsScope)
def test_nothing_found_is_an_empty_list(scope):
    detections = found(APART, np.zeros((4, 3), np.float32), nms_scope=scope, keep_per_class=2)

    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)


def test_keep_per_class_cuts_each_class_after_suppression():
    boxes = np.concatenate([APART[:1], APART[:1], APART[1:3]])
    scores = f32([0, 0.9, 0.1], [0, 0.8, 0.1], [0, 0.7, 0.2], [0, 0.6, 0.3])

    rows = as_rows(found(boxes, scores, keep_per_class=2))

    # the second box is hidden by the first and takes no place
    assert rows == [(0.0, 1), (0.2, 1), (0.4, 2), (0.2, 2)]


def test_candidates_are_cut_before_suppression():
    boxes = np.concatenate([APART[:1], APART[:1], APART[1:3]])
    scores = f32([0, 0.9], [0, 0.8], [0, 0.7], [0, 0.6])

    rows = as_rows(found(boxes, scores, candidates_per_class=2))

    assert rows == [(0.0, 1)]


def test_clipping_happens_before_suppression():
    # inside the image the second box is half of the first; whole, it is a third
    boxes = f32([0.0, 0, 0.5, 1], [-0.5, 0, 0.5, 1])
    scores = f32([0, 0.9], [0, 0.8])

    assert len(found(boxes, scores)) == 2
    clipped = found(boxes, scores, clip_before_nms=True)
    assert clipped.boxes.tolist() == [[0.0, 0.0, 0.5, 1.0]]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_dropped_and_takes_no_candidates_place(bad, clip):
    boxes = APART.copy()
    boxes[0, 2] = bad
    scores = f32([0, 0.9], [0, bad], [0, 0.7], [0, 0.6])

    rows = as_rows(found(boxes, scores, candidates_per_class=2, clip_before_nms=clip))

    assert rows == [(0.4, 1), (0.6, 1)]


def test_heads_go_through_softmax_and_the_coder():
    spec = qfgaohao_spec(3)
    conf = np.zeros((3000, 3), np.float32)
    conf[:, 0] = 20
    conf[2997] = (0, 0, 5)
    loc = np.zeros((3000, 4), np.float32)

    detections = detections_from_heads(loc, conf, spec)

    prior = corners_from_centre(build_priors(spec.priors))[2997]
    assert detections.labels.tolist() == [2]
    assert detections.scores[0] == pytest.approx(np.exp(5) / (2 + np.exp(5)), abs=1e-6)
    assert np.allclose(detections.boxes, [prior], atol=1e-6)


def test_priors_that_are_handed_over_are_used():
    spec = qfgaohao_spec(3)
    conf = np.tile(f32([0, 0, 9]), (4, 1))
    centred = np.array([[x, 0.5, 0.1, 0.1] for x in (0.2, 0.4, 0.6, 0.8)])

    detections = detections_from_heads(np.zeros((4, 4), np.float32), conf, spec, centred)

    assert np.allclose(detections.boxes, corners_from_centre(centred), atol=1e-6)


def test_heads_of_a_wrong_shape_are_refused():
    loc, conf = np.zeros((3000, 4), np.float32), np.zeros((3000, 21), np.float32)

    with pytest.raises(ValueError, match=r"logits \(3000, 21\) are not \(3000, 3\)"):
        detections_from_heads(loc, conf, qfgaohao_spec(3))
    with pytest.raises(ValueError, match=r"logits \(2999, 21\)"):
        detections_from_heads(loc, conf[1:], qfgaohao_spec())
    with pytest.raises(ValueError, match="not both"):
        detections_from_heads(loc[1:], conf[1:], qfgaohao_spec())
    with pytest.raises(ValueError, match="are not"):
        detections_from_scores(APART, np.zeros((3, 3), np.float32), RULES, (10, 10))


def test_broken_heads_give_no_traceback_and_spare_the_good_priors():
    spec = torchvision_spec(3)
    loc = np.zeros((3234, 4), np.float32)
    conf = np.zeros((3234, 3), np.float32)
    conf[:, 0] = 20
    conf[-3:] = (0, 0, 9)
    conf[-3, 1], loc[-2, 0] = np.nan, np.inf

    detections = detections_from_heads(loc, conf, spec)

    assert detections.labels.tolist() == [2]
    assert np.isfinite(detections.boxes).all()


@given(
    arrays(np.float32, (12, 4), elements=st.floats(0, 1, width=32)),
    arrays(np.float32, (12, 4), elements=st.sampled_from([0.0, 0.2, 0.4, 0.6, np.nan])),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([None, 1, 5]),
    st.sampled_from(list(ResultOrder)),
)
@settings(deadline=None)
def test_whatever_comes_in_the_rules_hold(ends, scores, per_class, total, order):
    ends.sort(axis=1)
    boxes = ends[:, [0, 1, 2, 3]]
    limits = {"keep_per_class": per_class, "keep_total": total, "order": order}

    detections = found(boxes, scores, **limits)

    again = found(boxes.copy(), scores.copy(), **limits)
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(detections, name), getattr(again, name))
    assert (detections.scores > RULES.score_threshold).all()
    assert (detections.labels > 0).all()
    assert total is None or len(detections) <= total
    for label in range(1, 4):
        own = detections.labels == label
        assert per_class is None or own.sum() <= per_class
        iou = iou_matrix(detections.boxes[own], detections.boxes[own])
        np.fill_diagonal(iou, 0)
        assert (iou <= RULES.iou_threshold).all()
        assert order is ResultOrder.CLASS_PRIOR or (np.diff(detections.scores[own]) <= 0).all()
