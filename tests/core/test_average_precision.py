"""One metric: VOC by hand, COCO as pycocotools has it, and what happens at every border."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools_judge import assert_as_pycocotools

from mbv3ssd_deploy.core.average_precision import Protocol, average_precision
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.truth import truth_from_boxes

VOC = (Protocol.VOC07, Protocol.VOC_AREA)
HERE, THERE, AWAY = (0, 0, 40, 40), (60, 0, 100, 40), (0, 200, 40, 240)


def found(*rows):
    """Detections from (box, score) or (box, score, label)."""
    rows = [(*row, 1)[:3] for row in rows]
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))


def there(*boxes, labels=None, **flags):
    truth = truth_from_boxes(boxes, labels or [1] * len(boxes))
    return replace(truth, **{name: np.array(values, bool) for name, values in flags.items()})


def ap(detections, truths, protocol, class_count=2):
    return average_precision(detections, truths, class_count, protocol)


def test_voc_by_hand():
    # right, wrong, right of three objects: precision 1 up to recall 1/3, then 2/3 up to 2/3
    truths = [there(HERE, THERE), there(HERE)]
    seen = [found((HERE, 0.9), (AWAY, 0.8)), found((HERE, 0.7))]

    eleven, area = (ap(seen, truths, protocol) for protocol in VOC)

    assert eleven.mean == pytest.approx((4 * 1 + 3 * 2 / 3) / 11, abs=1e-15)
    assert area.mean == pytest.approx((1 + 2 / 3) / 3, abs=1e-15)
    curve = area.per_class[0].curve
    assert curve.recall.tolist() == [1 / 3, 2 / 3]
    assert curve.precision.tolist() == [1.0, 2 / 3]
    np.testing.assert_allclose(curve.scores, [0.9, 0.7])


def test_three_of_ten_reach_a_recall_of_three_tenths():
    truths = [there(HERE) for _ in range(10)]
    seen = [found((HERE, 0.9))] * 3 + [found()] * 7

    assert ap(seen, truths, Protocol.VOC07).mean == 4 / 11
    assert ap(seen, truths, Protocol.VOC_AREA).mean == 0.3


@pytest.mark.parametrize("protocol", VOC)
def test_the_second_detection_of_an_object_is_false(protocol):
    truths = [there(HERE, THERE)]
    duplicate = [found((HERE, 0.9), (HERE, 0.8), (THERE, 0.7))]
    expected = {Protocol.VOC07: (6 + 5 * 2 / 3) / 11, Protocol.VOC_AREA: (1 + 2 / 3) / 2}

    assert ap(duplicate, truths, protocol).mean == pytest.approx(expected[protocol], abs=1e-15)


@pytest.mark.parametrize("protocol", VOC)
def test_voc_hits_the_nearest_object_even_when_it_is_taken(protocol):
    # both overlap the first object most; COCO lets the second one take what is left
    truths = [there((0, 0, 40, 40), (0, 0, 40, 30))]
    seen = [found(((0, 0, 40, 40), 0.9), ((0, 0, 40, 38), 0.8))]
    voc = {Protocol.VOC07: 6 / 11, Protocol.VOC_AREA: 0.5}

    assert ap(seen, truths, protocol).mean == voc[protocol]
    assert ap(seen, truths, Protocol.COCO).by_iou[0.5] == 1.0


@pytest.mark.parametrize("protocol", [*VOC, Protocol.COCO])
def test_a_difficult_object_is_neither_hit_nor_missed(protocol):
    truths = [there(HERE, THERE, difficult=[False, True])]

    for seen in ([found((HERE, 0.8))], [found((THERE, 0.9), (HERE, 0.8))]):
        report = ap(seen, truths, protocol)
        assert report.mean == 1.0
        assert report.per_class[0].truths == 1


@pytest.mark.parametrize("protocol", VOC)
def test_duplicates_of_a_difficult_object_are_not_false(protocol):
    truths = [there(HERE, THERE, difficult=[False, True])]
    seen = [found((THERE, 0.9), (THERE, 0.9), (HERE, 0.8))]

    assert ap(seen, truths, protocol).mean == 1.0


@pytest.mark.parametrize("protocol", [*VOC, Protocol.COCO])
def test_a_class_without_objects_does_not_count(protocol):
    truths = [there(HERE)]
    seen = [found((HERE, 0.9), (AWAY, 0.95, 2))]

    report = ap(seen, truths, protocol, class_count=4)

    assert report.mean == 1.0
    assert [one.truths for one in report.per_class] == [1, 0, 0]
    assert [one.detections for one in report.per_class] == [1, 1, 0]
    assert math.isnan(report.per_class[1].ap)
    assert math.isnan(report.per_class[2].ap)


@pytest.mark.parametrize("protocol", [*VOC, Protocol.COCO])
def test_nothing_found_is_zero_and_nothing_there_is_no_number(protocol):
    assert ap([found()], [there(HERE)], protocol).mean == 0.0
    assert math.isnan(ap([found((HERE, 0.5))], [there()], protocol).mean)
    assert math.isnan(ap([], [], protocol).mean)
    assert math.isnan(ap([], [], protocol, class_count=1).mean)


@pytest.mark.parametrize("protocol", [*VOC, Protocol.COCO])
def test_an_overlap_of_exactly_half_hits(protocol):
    half = [found(((0, 0, 40, 20), 0.9))]
    less = [found(((0, 0, 40, 19), 0.9))]

    assert ap(half, [there(HERE)], protocol).by_iou[0.5] == 1.0
    assert ap(less, [there(HERE)], protocol).by_iou[0.5] == 0.0


@pytest.mark.parametrize("protocol", [*VOC, Protocol.COCO])
def test_equal_scores_rank_by_image_and_then_by_place(protocol):
    truths = [there(HERE), there(HERE)]
    early, late = found((HERE, 0.5), (AWAY, 0.5)), found((AWAY, 0.5), (HERE, 0.5))

    means = [ap(seen, truths, protocol).mean for seen in ([early, late], [late, early])]

    assert means[0] > means[1]


@pytest.mark.parametrize("protocol", [*VOC, Protocol.COCO])
def test_sizes_see_their_own_objects_only(protocol):
    small, large = (0, 0, 20, 20), (200, 200, 400, 400)
    truths = [there(small, large)]

    report = ap([found((large, 0.9), ((500, 500, 700, 700), 0.95))], truths, protocol)

    assert report.by_size["small"] == 0.0
    assert math.isnan(report.by_size["medium"])
    assert report.by_size["large"] == 0.5
    assert ap([found((small, 0.9))], truths, protocol).by_size["small"] == 1.0


def test_a_crowd_swallows_what_lies_in_it():
    crowd = there(HERE, (100, 100, 300, 300), crowd=[False, True])
    inside = [((120, 120, 160, 160), 0.95), ((200, 200, 260, 260), 0.94)]

    assert ap([found((HERE, 0.9), *inside)], [crowd], Protocol.COCO).mean == 1.0
    assert ap([found((HERE, 0.9), *inside)], [there(HERE)], Protocol.COCO).mean < 0.5


def test_labels_and_lists_must_belong_together():
    with pytest.raises(ValueError, match=r"labels reach from 1 to 2, not within 1\.\.1"):
        ap([found((HERE, 0.9, 2), (HERE, 0.9))], [there(HERE)], Protocol.VOC07)
    with pytest.raises(ValueError, match="labels reach from 0"):
        ap([found((HERE, 0.9, 0))], [there(HERE)], Protocol.VOC07)
    with pytest.raises(ValueError, match="0 lists of detections for 1 images"):
        ap([], [there(HERE)], Protocol.VOC07)


# --- pycocotools -------------------------------------------------------------------------------


@st.composite
def scenes(draw):
    """Objects on a coarse grid, so that equal overlaps and equal scores are frequent."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    grid = draw(st.sampled_from((1, 8, 16)))
    images, class_count = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    pairs = [image(random, grid, class_count) for _ in range(images)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], class_count


def image(random, grid, class_count):
    count = int(random.integers(0, 7))
    corner = random.integers(0, 200, (count, 2))
    sizes = random.choice((12, 24, 40, 90, 160), (count, 2))
    boxes = np.concatenate([corner, corner + sizes], axis=1) // grid * grid
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    truth = truth_from_boxes(boxes, random.integers(1, class_count, count))
    truth = replace(truth, crowd=random.random(count) < 0.2)
    copies = np.repeat(np.arange(count), random.integers(0, 4, count))
    moved = boxes[copies] + random.integers(-1, 2, (len(copies), 4)) * grid
    labels = np.where(random.random(len(copies)) < 0.9, truth.labels[copies], 1)
    strays = random.integers(0, 180, (3, 2))
    moved = np.concatenate([moved, np.concatenate([strays, strays + 30], axis=1)])
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    labels = np.concatenate([labels, random.integers(1, class_count, 3)])
    scores = random.integers(1, 9, len(moved)) / 8
    return Detections(moved, scores, labels), truth


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_coco_is_what_pycocotools_says_on_random_scenes(scene):
    assert_as_pycocotools(*scene)


def test_coco_keeps_the_best_hundred_of_a_class_in_an_image():
    random = np.random.default_rng(5)
    boxes = random.integers(0, 300, (250, 4))
    boxes[:, 2:] = boxes[:, :2] + 10 + boxes[:, 2:] // 3
    scores, labels = random.random(250), np.arange(250) % 2 + 1
    truth = truth_from_boxes(boxes[::3], labels[::3])

    report = assert_as_pycocotools([Detections(boxes, scores, labels)], [truth], 3)

    assert [one.detections for one in report.per_class] == [100, 100]
