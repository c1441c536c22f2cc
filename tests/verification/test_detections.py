"""Boxes of two runs: matched, lost, new and borderline."""

import numpy as np
import pytest

from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.verification.detections import LISTED, Cut, DetectionPair, compare_detections


def found(*rows):
    """Each row: label, score, x1, y1, x2, y2."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))


def compare(*pairs, threshold=0.3, keep_total=None, iou=0.6):
    named = [DetectionPair(f"{i}.png", a, b) for i, (a, b) in enumerate(pairs)]
    return compare_detections(named, Cut(threshold, iou, keep_total))


CAT = (1, 0.9, 0.1, 0.1, 0.5, 0.5)
DOG = (2, 0.8, 0.5, 0.5, 0.9, 0.9)


def moved(row, by, score=None):
    label, old, *corners = row
    return (label, old if score is None else score, *(corner + by for corner in corners))


def test_equal_boxes_all_match():
    diff = compare((found(CAT, DOG), found(DOG, CAT)), (found(CAT), found(CAT)))

    assert (diff.reference, diff.actual, diff.counted) == (3, 3, 3)
    assert diff.matched == (3, 3, 3)
    assert diff.share_at(0.99) == 1.0
    assert (diff.lost, diff.new, diff.score_max, diff.worst_iou) == (0, 0, 0.0, 1.0)


def test_a_moved_box_is_matched_only_at_the_looser_overlaps():
    # 0.4 wide, moved by 0.004: IoU = (0.396 / 0.4) ^ 2 / (2 - that) = 0.9610
    diff = compare((found(CAT, DOG), found(moved(CAT, 0.004), DOG)))

    assert [diff.matched_at(iou) for iou in (0.99, 0.95, 0.5)] == [1, 2, 2]
    assert diff.worst_iou == pytest.approx(0.9610, abs=1e-4)
    assert diff.worst_image == "0.png"


def test_two_classes_exchanged_match_nothing():
    exchanged = found((2, *CAT[1:]), (1, *DOG[1:]))

    diff = compare((found(CAT, DOG), exchanged))

    assert diff.matched == (0, 0, 0)
    assert (diff.lost, diff.new) == (2, 2)
    assert diff.share_at(0.5) == 0.0


def test_lost_and_new_boxes_are_listed_with_their_image_by_score():
    diff = compare(
        (found(CAT), found(CAT)),
        (found(CAT, DOG), found()),
        (found(), found(moved(DOG, 0, 0.4), moved(DOG, 0.05, 0.7))),
    )

    assert [(box.image, box.label) for box in diff.worst_lost] == [("1.png", 1), ("1.png", 2)]
    assert [round(box.score, 2) for box in diff.worst_new] == [0.7, 0.4]
    assert (diff.lost, diff.new) == (2, 2)


def test_the_list_is_short_and_the_count_is_whole():
    many = found(*(moved(CAT, i / 100, 0.9) for i in range(30)))

    diff = compare((many, found()))

    assert (diff.lost, len(diff.worst_lost)) == (30, LISTED)


def test_boxes_near_the_threshold_are_borderline():
    faint, clear = moved(DOG, 0, 0.319), moved(DOG, 0, 0.321)

    diff = compare((found(CAT, faint), found(CAT)), threshold=0.3)
    assert (diff.lost, diff.flicker_lost, diff.counted) == (0, 1, 1)
    assert diff.share_at(0.99) == 1.0

    diff = compare((found(CAT, clear), found(CAT)), threshold=0.3)
    assert (diff.lost, diff.flicker_lost, diff.counted) == (1, 0, 2)
    assert diff.share_at(0.99) == 0.5

    diff = compare((found(CAT), found(CAT, faint)), threshold=0.3)
    assert (diff.new, diff.flicker_new, diff.counted) == (0, 1, 1)


def test_in_a_full_list_the_last_place_is_the_threshold():
    reference = found(CAT, moved(DOG, 0, 0.61))
    actual = found(CAT, moved(DOG, -0.4, 0.62))

    roomy = compare((reference, actual), keep_total=3)
    full = compare((reference, actual), keep_total=2)

    assert (roomy.lost, roomy.new) == (1, 1)
    assert (full.lost, full.new, full.flicker_lost, full.flicker_new) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("iou", "lost"), [(0.5, 1), (0.598, 1), (0.6005, 0), (0.5995, 0), (0.602, 1)]
)
def test_a_box_near_the_nms_limit_is_borderline(iou, lost):
    # overlap 3 / 5 with a better box of its class
    better, worse = (1, 0.9, 0.0, 0.0, 0.4, 0.4), (1, 0.8, 0.1, 0.0, 0.5, 0.4)

    diff = compare((found(better, worse), found(better)), iou=iou)

    assert (diff.lost, diff.flicker_lost) == (lost, 1 - lost)


def test_only_a_better_box_of_the_same_class_suppresses():
    box, beside = (1, 0.8, 0.1, 0.0, 0.5, 0.4), (0.0, 0.0, 0.4, 0.4)

    for label, score in ((2, 0.9), (1, 0.7)):
        other = (label, score, *beside)
        diff = compare((found(other, box), found(other)), iou=0.6)
        assert (diff.lost, diff.flicker_lost) == (1, 0)


def test_score_differences_are_of_matched_boxes():
    reference = found(CAT, moved(DOG, 0, 0.8))
    actual = found(moved(CAT, 0, 0.89), moved(DOG, 0, 0.83))

    diff = compare((reference, actual))

    assert diff.score_max == pytest.approx(0.03, abs=1e-6)
    assert diff.score_p50 == pytest.approx(0.02, abs=1e-6)


def test_score_differences_are_reported_for_each_overlap():
    # IoU 0.9610, as above
    actual = found(moved(CAT, 0.004, 0.7), moved(DOG, 0, 0.83))

    diff = compare((found(CAT, DOG), actual))

    assert diff.score_at(0.99) == pytest.approx(0.03, abs=1e-6)
    assert diff.score_at(0.95) == diff.score_at(0.5) == pytest.approx(0.2, abs=1e-6)


def test_a_looser_match_never_replaces_a_stricter_one():
    # the surer box lost its match; its neighbour's match overlaps it by more than 0.5
    sure, neighbour = moved(CAT, 0, 0.9), moved(CAT, 0.05, 0.8)

    diff = compare((found(sure, neighbour), found(neighbour)))

    assert diff.matched == (1, 1, 1)
    assert diff.lost == 1


def test_no_boxes_are_not_an_agreement():
    diff = compare((found(), found()))

    assert (diff.reference, diff.counted, diff.share_at(0.99)) == (0, 0, 0.0)


# two boxes of a class, IoU 0.6, of which only the better one is kept
FIRST, SECOND = (1, 0.9, 0.0, 0.0, 0.4, 0.4), (1, 0.9, 0.1, 0.0, 0.5, 0.4)


def compare_tied(reference, actual, tied):
    cut = Cut(score_threshold=0.3, iou_threshold=0.5, keep_total=None)
    return compare_detections([DetectionPair("0.png", reference, actual, tied)], cut)


def test_a_box_that_replaces_another_by_a_tie_is_borderline():
    diff = compare_tied(found(FIRST, DOG), found(SECOND, DOG), found(SECOND, DOG))

    assert (diff.tied_lost, diff.tied_new) == (diff.flicker_lost, diff.flicker_new) == (1, 1)
    assert (diff.counted, diff.matched, diff.lost, diff.new) == (1, (1, 1, 1), 0, 0)


def test_without_ties_it_only_matches_at_a_looser_overlap():
    for tied in (None, found(FIRST, DOG)):
        diff = compare_tied(found(FIRST, DOG), found(SECOND, DOG), tied)

        assert (diff.tied_lost, diff.tied_new) == (0, 0)
        assert (diff.counted, diff.matched) == (2, (1, 1, 2))


def test_ties_must_give_the_very_box_and_its_score():
    elsewhere, surer = moved(SECOND, 0.01), (*SECOND[:1], 0.9001, *SECOND[2:])

    for other in (elsewhere, surer):
        diff = compare_tied(found(DOG), found(DOG, other), found(DOG, SECOND))
        assert (diff.tied_new, diff.new) == (0, 1)


def test_a_box_that_ties_do_not_remove_is_lost():
    diff = compare_tied(found(FIRST, DOG), found(DOG), found(FIRST, DOG))

    assert (diff.tied_lost, diff.lost, diff.flicker_lost) == (0, 1, 0)
