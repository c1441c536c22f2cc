import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.core.nms import nms

# few distinct numbers, so that equal scores and equal boxes are common
corner = st.integers(0, 6).map(float)
score = st.sampled_from([0.1, 0.2, 0.3, 0.4])
threshold = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@st.composite
def candidates(draw):
    n = draw(st.integers(0, 30))
    ends = draw(arrays(np.float32, (n, 4), elements=corner))
    boxes = np.concatenate([ends[:, :2], ends[:, :2] + ends[:, 2:]], axis=1)
    return boxes, draw(arrays(np.float32, n, elements=score))


def one_by_one(boxes, scores, iou_threshold, epsilon=0.0):
    """The rule as it is told: take the best, drop what it hides, and again."""
    waiting = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = []
    while waiting:
        best = waiting.pop(0)
        kept.append(best)
        iou = {i: iou_matrix(boxes[[best]], boxes[[i]], epsilon).item() for i in waiting}
        waiting = [i for i in waiting if not iou[i] > iou_threshold]
    return kept


def f32(*rows):
    return np.array(rows, dtype=np.float32)


PAIR = f32([0, 0, 2, 2], [1, 0, 3, 2])  # IoU 1/3


def test_the_better_of_two_overlapping_boxes_stays():
    assert nms(PAIR, f32(0.4, 0.9), 0.3).tolist() == [1]


def test_an_overlap_of_exactly_the_threshold_is_allowed():
    half = f32([0, 0, 2, 2], [0, 0, 2, 1])

    assert nms(half, f32(0.9, 0.4), 0.5).tolist() == [0, 1]
    assert nms(half, f32(0.9, 0.4), 0.49).tolist() == [0]


def test_a_hidden_box_hides_nothing():
    # each overlaps the next one by a half; the middle one is hidden by the first
    chain = f32([0, 0, 4, 2], [1, 0, 5, 2], [2, 0, 6, 2])

    assert nms(chain, f32(0.9, 0.8, 0.7), 0.5).tolist() == [0, 2]


def test_equal_scores_rank_by_index():
    assert nms(PAIR, f32(0.5, 0.5), 0.3).tolist() == [0]


def test_epsilon_lowers_the_overlap():
    assert nms(PAIR, f32(0.9, 0.4), 0.3, 1.0).tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_dropped_and_hides_nothing(bad):
    spoilt = PAIR.copy()
    spoilt[0, 2] = bad

    assert nms(spoilt, f32(0.9, 0.4), 0.3).tolist() == [1]
    assert nms(PAIR, f32(bad, 0.4), 0.3).tolist() == [1]


def test_an_overlap_of_exactly_the_threshold_hides_where_the_rule_says_so():
    half = f32([0, 0, 2, 2], [0, 0, 2, 1])

    assert nms(half, f32(0.9, 0.4), 0.5, suppress_at_threshold=True).tolist() == [0]
    assert nms(half, f32(0.9, 0.4), 0.51, suppress_at_threshold=True).tolist() == [0, 1]


@given(candidates(), threshold, st.integers(0, 9))
@settings(deadline=None)
def test_a_limit_gives_the_first_of_what_would_be_kept(found, iou_threshold, limit):
    kept = nms(*found, iou_threshold)

    assert nms(*found, iou_threshold, limit=limit).tolist() == kept[:limit].tolist()


def test_nothing_in_nothing_out():
    kept = nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.5)

    assert kept.shape == (0,)
    assert kept.dtype == np.int64


@given(candidates(), threshold)
@settings(deadline=None)
def test_the_told_rule_is_kept(found, iou_threshold):
    assert nms(*found, iou_threshold).tolist() == one_by_one(*found, iou_threshold)


@given(candidates(), threshold)
@settings(deadline=None)
def test_kept_boxes_are_a_ranked_subset_and_keeping_them_again_changes_nothing(found, limit):
    boxes, scores = found
    kept = nms(boxes, scores, limit)

    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(scores[kept]) <= 0).all()
    assert nms(boxes[kept], scores[kept], limit).tolist() == list(range(len(kept)))


@given(candidates(), threshold, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_rows_matters_to_ties_only(found, limit, random):
    boxes, _ = found
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
    order = list(range(len(boxes)))
    random.shuffle(order)

    assert np.array(order, int)[nms(boxes[order], scores[order], limit)].tolist() == (
        nms(boxes, scores, limit).tolist()
    )


@pytest.mark.parametrize("count", [255, 256, 257, 900])
def test_many_boxes_give_what_one_by_one_gives(count):
    random = np.random.default_rng(count)
    centre, size = random.random((count, 2)), random.random((count, 2)) * 0.1
    boxes = np.concatenate([centre - size, centre + size], axis=1).astype(np.float32)
    scores = np.round(random.random(count), 2).astype(np.float32)
    overlaps = iou_matrix(boxes, boxes) > 0.3
    expected = []
    for i in sorted(range(count), key=lambda i: (-scores[i], i)):
        if not overlaps[expected, i].any():
            expected.append(i)

    assert nms(boxes, scores, 0.3, limit=90).tolist() == expected[:90]

    assert nms(boxes, scores, 0.3).tolist() == expected
    assert count > len(expected) > 100
