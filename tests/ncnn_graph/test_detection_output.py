import ncnn_child
import numpy as np
import pytest

from mbv3ssd_deploy.core.detections import softmax
from mbv3ssd_deploy.ncnn_graph.detection_output import (
    detections_from_detection_output,
    detections_from_rows,
)
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer

VARIANCES = (0.1, 0.1, 0.2, 0.2)
OPTIONS = {"nms_threshold": 0.45, "nms_top_k": 300, "keep_top_k": 100, "confidence_threshold": 0.1}

JUST_BELOW = np.nextafter(np.float32(0.75), np.float32(0))
JUST_ABOVE = np.nextafter(np.float32(0.25), np.float32(1))


def priors_of(count, seed=0):
    random = np.random.default_rng(seed)
    centre, size = random.uniform(0, 1, (count, 2)), random.uniform(0.05, 0.6, (count, 2))
    return np.hstack((centre - size / 2, centre + size / 2)).astype(np.float32)


def random_heads(seed, count=300, classes=5, sharpness=3.0):
    random = np.random.default_rng(seed)
    loc = random.standard_normal((count, 4)).astype(np.float32)
    logits = (sharpness * random.standard_normal((count, classes))).astype(np.float32)
    return loc, softmax(logits), priors_of(count, seed)


def certain_heads(rows):
    """One prior a row of scores, side by side and not overlapping."""
    scores = np.float32(rows)
    left = np.arange(len(scores), dtype=np.float32) / len(scores)
    priors = np.stack((left, left, left + 1e-3, left + 1e-3), axis=1)
    return np.zeros((len(scores), 4), np.float32), scores, priors


def same_place_heads(rows):
    loc, scores, priors = certain_heads(rows)
    priors[:] = (0.2, 0.2, 0.6, 0.7)
    return loc, scores, priors


def overlapping(share):
    """Two unit boxes, the second moved so that their IoU is `share`."""
    shift = (1 - share) / (1 + share)
    boxes = np.float32([(0, 0, 1, 1), (shift, 0, 1 + shift, 1)])
    return np.zeros((2, 4), np.float32), np.float32([(0.1, 0.9), (0.2, 0.8)]), boxes


CASES = {
    "nothing above the threshold": (certain_heads([(0.95, 0.05)] * 3), {}),
    "only background": (certain_heads([(1.0, 0.0, 0.0)] * 2), {}),
    "one": (certain_heads([(0.2, 0.8), (0.95, 0.05)]), {}),
    "one certain": (certain_heads([(0.0, 1.0)]), {}),
    "equal scores apart": (certain_heads([(0.5, 0.5)] * 4), {}),
    "exactly the threshold": (
        certain_heads([(0.5, 0.5), (0.25, 0.75)]),
        {"confidence_threshold": 0.5},
    ),
    "background just below the shortcut": (
        certain_heads([(0.75, 0.25), (JUST_BELOW, JUST_ABOVE)]),
        {"confidence_threshold": 0.25},
    ),
    "one place, one class": (same_place_heads([(0.1, 0.9), (0.2, 0.8), (0.3, 0.7)]), {}),
    "one place, two classes": (same_place_heads([(0.1, 0.8, 0.1), (0.2, 0.1, 0.7)]), {}),
    "overlap just below": (overlapping(0.44), {}),
    "overlap just above": (overlapping(0.46), {}),
    "no suppression": (overlapping(0.9), {"nms_threshold": 1.0}),
    "keep_top_k": (random_heads(1), {"keep_top_k": 7}),
    "nms_top_k": (random_heads(2), {"nms_top_k": 3}),
    "top_k of one": (random_heads(3), {"nms_top_k": 1, "keep_top_k": 1}),
    "threshold 0": (random_heads(4), {"confidence_threshold": 0.0, "keep_top_k": 2000}),
    "low threshold": (random_heads(5), {"confidence_threshold": 0.01, "keep_top_k": 1000}),
    "boxes too large for float32": (
        (
            np.float32([(0, 0, 600, 600), (0, 0, 0, 0)]),
            np.float32([(0.1, 0.9), (0.2, 0.8)]),
            priors_of(2),
        ),
        {},
    ),
    **{f"random {seed}": (random_heads(seed), {}) for seed in range(10, 22)},
    **{f"soft {seed}": (random_heads(seed, 300, 5, 0.5), {}) for seed in range(22, 26)},
    "many": (random_heads(30, count=3000, classes=21), {"confidence_threshold": 0.02}),
}


def prior_layer(name, priors):
    blob = np.stack((priors.ravel(), np.tile(np.float32(VARIANCES), len(priors))))
    return build_layer(
        "MemoryData",
        name,
        (),
        (name,),
        {"w": blob.shape[1], "h": 2},
        weights=(Weight("data", blob),),
    )


@pytest.fixture(scope="module")
def from_ncnn():
    """What the real ncnn finds in all cases, in one network."""
    layers, images = [], {}
    for index, ((loc, scores, priors), changes) in enumerate(CASES.values()):
        names = (f"loc{index}", f"conf{index}", f"prior{index}")
        images |= {names[0]: loc.ravel(), names[1]: scores}
        params = OPTIONS | changes | {"num_class": scores.shape[1]}
        layers += [
            build_layer("Input", names[0], (), (names[0],)),
            build_layer("Input", names[1], (), (names[1],)),
            prior_layer(names[2], priors),
            build_layer("DetectionOutput", f"d{index}", names, (f"out{index}",), params),
        ]
    outputs = [f"out{index}" for index in range(len(CASES))]
    found = ncnn_child.run_graph(NcnnGraph(tuple(layers)), images, outputs)
    return dict(zip(CASES, found.values(), strict=True))


def mirrored(name):
    (loc, scores, priors), changes = CASES[name]
    return detections_from_detection_output(loc, scores, priors, VARIANCES, **(OPTIONS | changes))


def in_one_order(detections):
    """Sorted so that equal scores, whose order ncnn leaves to chance, meet."""
    order = np.lexsort((*detections.boxes.T, detections.labels, -detections.scores))
    return detections.boxes[order], detections.scores[order], detections.labels[order]


@pytest.mark.parametrize("name", CASES)
def test_the_mirror_equals_ncnn(from_ncnn, name):
    expected, found = detections_from_rows(from_ncnn[name]), mirrored(name)

    boxes, scores, labels = in_one_order(expected)
    own_boxes, own_scores, own_labels = in_one_order(found)
    np.testing.assert_array_equal(own_labels, labels)
    np.testing.assert_array_equal(own_scores, scores)
    np.testing.assert_allclose(own_boxes, boxes, rtol=1e-6, atol=1e-6)


COUNTS = {
    "nothing above the threshold": 0,
    "only background": 0,
    "one": 1,
    "equal scores apart": 4,
    "exactly the threshold": 1,
    "background just below the shortcut": 1,
    "one place, one class": 1,
    "one place, two classes": 2,
    "overlap just below": 2,
    "overlap just above": 1,
    "keep_top_k": 7,
    "top_k of one": 1,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_the_cases_are_what_their_names_say(name, count):
    assert len(mirrored(name)) == count


def test_the_limit_of_candidates_counts_class_by_class():
    assert np.bincount(mirrored("nms_top_k").labels, minlength=5).max() <= 3
    assert np.bincount(mirrored("random 10").labels, minlength=5).max() > 3


def test_nothing_found_is_an_empty_blob_in_ncnn(from_ncnn):
    assert from_ncnn["only background"] is None


def test_equal_scores_rank_by_prior_then_label():
    found = detections_from_detection_output(
        *certain_heads([(0.2, 0.4, 0.4), (0.2, 0.4, 0.4)]), VARIANCES, **OPTIONS
    )

    assert found.labels.tolist() == [1, 2, 1, 2]
    assert (found.boxes[:2, 0] < found.boxes[2:, 0]).all()


def test_a_prior_that_ncnn_does_not_decode_is_a_box_of_zeros():
    # ncnn shows what the memory held, so there is nothing to compare with
    heads = certain_heads([(0.75, JUST_ABOVE), (JUST_BELOW, JUST_ABOVE)])

    found = detections_from_detection_output(
        *heads, VARIANCES, **(OPTIONS | {"confidence_threshold": 0.25})
    )

    assert found.boxes.any(axis=1).tolist() == [False, True]


def test_variances_may_differ_from_prior_to_prior():
    loc, scores, priors = random_heads(7)
    each = np.tile(np.float32(VARIANCES), (len(loc), 1))

    same = detections_from_detection_output(loc, scores, priors, each, **OPTIONS)
    each[:, 0] *= 2
    other = detections_from_detection_output(loc, scores, priors, each, **OPTIONS)

    expected = detections_from_detection_output(loc, scores, priors, VARIANCES, **OPTIONS)
    np.testing.assert_array_equal(same.boxes, expected.boxes)
    assert not np.array_equal(other.boxes, expected.boxes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"keep_top_k": 0}, "keep_top_k 0 must be"), ({"nms_top_k": -1}, "nms_top_k -1 and")],
)
def test_limits_that_ncnn_throws_on_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        detections_from_detection_output(*random_heads(1), VARIANCES, **(OPTIONS | changes))


def test_shapes_that_do_not_belong_together_are_refused():
    loc, scores, priors = random_heads(1)

    with pytest.raises(ValueError, match="are not"):
        detections_from_detection_output(loc[:-1], scores, priors, VARIANCES, **OPTIONS)


@pytest.mark.parametrize("rows", [None, np.zeros((0, 6), np.float32), np.zeros(0, np.float32)])
def test_an_empty_blob_is_no_detections(rows):
    assert len(detections_from_rows(rows)) == 0


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 7\)"):
        detections_from_rows(np.zeros((2, 7), np.float32))
