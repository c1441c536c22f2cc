import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.matching import Match, match_detections

UNIT = (0.0, 0.0, 1.0, 1.0)


def detections(*rows):
    """Each row is a box, a score and a label."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))


def cut(width):
    """The unit box with its right part cut off: its IoU with the unit box is `width`."""
    return (0.0, 0.0, width, 1.0)


@st.composite
def many(draw):
    n = draw(st.integers(0, 12))
    ends = draw(arrays(np.float32, (n, 4), elements=st.integers(0, 5).map(float)))
    boxes = np.concatenate([ends[:, :2], ends[:, :2] + ends[:, 2:]], axis=1)
    scores = draw(arrays(np.float32, n, elements=st.sampled_from([0.25, 0.5, 0.75])))
    return Detections(boxes, scores, draw(arrays(np.int64, n, elements=st.integers(1, 2))))


def test_a_pair_tells_who_how_well_and_how_the_score_moved():
    matching = match_detections(
        detections((UNIT, 0.5, 1)), detections((UNIT, 0.9, 2), (cut(0.75), 0.75, 1)), 0.5
    )

    assert matching.pairs == (Match(0, 1, 0.75, 0.25),)
    assert matching.lost == ()
    assert matching.new == (0,)


def test_an_iou_of_exactly_the_threshold_matches():
    pair = detections((UNIT, 0.5, 1)), detections((cut(0.5), 0.5, 1))

    assert len(match_detections(*pair, 0.5).pairs) == 1
    assert match_detections(*pair, 0.501).lost == (0,)


def test_the_largest_iou_is_taken_then_the_lowest_index():
    actual = detections((cut(0.5), 0.5, 1), (cut(0.75), 0.5, 1), (cut(0.75), 0.9, 1))

    assert match_detections(detections((UNIT, 0.5, 1)), actual, 0.5).pairs[0].actual == 1


def test_the_better_scored_reference_chooses_first():
    reference = detections((cut(0.9), 0.3, 1), (UNIT, 0.8, 1))
    actual = detections((cut(0.9), 0.5, 1))

    matching = match_detections(reference, actual, 0.5)

    assert [(p.reference, p.actual) for p in matching.pairs] == [(1, 0)]
    assert matching.lost == (0,)


def test_equal_scores_choose_by_index_and_pairs_stand_by_reference():
    reference = detections((UNIT, 0.5, 2), (UNIT, 0.5, 1), (UNIT, 0.5, 1))
    actual = detections((cut(0.75), 0.5, 1), (UNIT, 0.5, 1), (UNIT, 0.5, 2))

    pairs = match_detections(reference, actual, 0.5).pairs

    assert [(p.reference, p.actual) for p in pairs] == [(0, 2), (1, 1), (2, 0)]


def test_equal_boxes_without_area_match():
    edge = (1.0, 0.25, 1.0, 0.5)

    matching = match_detections(detections((edge, 0.5, 1)), detections((edge, 0.5, 1)), 0.99)

    assert matching.pairs == (Match(0, 0, 1.0, 0.0),)


def test_nothing_against_something():
    some = detections((UNIT, 0.5, 1), (UNIT, 0.5, 2))

    assert match_detections(detections(), some, 0.5).new == (0, 1)
    assert match_detections(some, detections(), 0.5).lost == (0, 1)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_that_pairs_anything_or_nothing_is_refused(threshold):
    with pytest.raises(ValueError, match="IoU threshold"):
        match_detections(detections(), detections(), threshold)


@given(many())
@settings(deadline=None)
def test_a_run_matches_itself_whole(run):
    matching = match_detections(run, run, 1.0)

    assert matching.lost == matching.new == ()
    assert all(pair.iou == 1.0 for pair in matching.pairs)


@given(many(), many(), st.sampled_from([0.25, 0.5, 1.0]))
@settings(deadline=None)
def test_every_detection_is_told_once_and_each_pair_is_honest(reference, actual, threshold):
    matching = match_detections(reference, actual, threshold)

    ours = [p.reference for p in matching.pairs]
    theirs = [p.actual for p in matching.pairs]
    assert sorted([*ours, *matching.lost]) == list(range(len(reference)))
    assert sorted([*theirs, *matching.new]) == list(range(len(actual)))
    for pair in matching.pairs:
        assert pair.iou >= threshold
        assert reference.labels[pair.reference] == actual.labels[pair.actual]
    assert matching == match_detections(reference, actual, threshold)


@given(many(), many(), st.sampled_from([0.25, 0.5, 1.0]))
@settings(deadline=None)
def test_no_pair_is_left_that_could_still_match(reference, actual, threshold):
    matching = match_detections(reference, actual, threshold)

    lost, new = list(matching.lost), list(matching.new)
    possible = iou_matrix(reference.boxes[lost], actual.boxes[new]) >= threshold
    same_class = reference.labels[lost][:, None] == actual.labels[new][None, :]
    assert not (possible & same_class).any()
