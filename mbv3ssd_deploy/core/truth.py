"""What is really in an image: the objects that training and evaluation measure against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mbv3ssd_deploy.core.arrays import F32, F64, I64, Bools
from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.core.detections import Detections


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The annotated objects of one image, in the annotation's order. Arrays are read-only.

    Attributes:
        boxes: float32 (n, 4), corners x1, y1, x2, y2 in pixels with continuous edges: a box
            around the whole image is 0, 0, width, height.
        labels: int64 (n,), indices into the class names; 0 is the background and never occurs.
        difficult: bool (n,), VOC's `difficult`: neither a hit nor a miss.
        crowd: bool (n,), COCO's `iscrowd`: a region that holds many objects.
        areas: float32 (n,), in square pixels: the segmentation's if the annotation has one,
            the box's otherwise.

    Raises:
        ValueError: the arrays do not belong together.
    """

    boxes: F32
    labels: I64
    difficult: Bools
    crowd: Bools
    areas: F32

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.boxes.shape != (count, 4) or any(
            array.shape != (count,) for array in (self.difficult, self.crowd, self.areas)
        ):
            raise ValueError("boxes, labels, difficult, crowd and areas differ in length")
        if count and self.labels.min() < 1:
            raise ValueError("label 0 is the background, which is never annotated")
        for array in (self.boxes, self.labels, self.difficult, self.crowd, self.areas):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)


def truth_from_boxes(boxes: F32, labels: I64, *, difficult: Bools | None = None) -> GroundTruth:
    """Return the truth of plain boxes: no crowds, areas from the boxes.

    Args:
        boxes: (n, 4) corners in pixels.
        labels: (n,), from 1.
        difficult: (n,); none is where it is left out.

    Raises:
        ValueError: the arrays do not belong together.
    """
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return GroundTruth(
        boxes=boxes,
        labels=np.array(labels, np.int64).reshape(-1),
        difficult=np.zeros(count, bool) if difficult is None else np.array(difficult, bool),
        crowd=np.zeros(count, bool),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
    )


SMALL_AREA, MEDIUM_AREA = 32.0**2, 96.0**2
AREA_RANGES: tuple[tuple[str, float, float], ...] = (
    ("all", 0.0, 1e10),
    ("small", 0.0, SMALL_AREA),
    ("medium", SMALL_AREA, MEDIUM_AREA),
    ("large", MEDIUM_AREA, 1e10),
)
"""COCO's sizes in square pixels, both ends inside (cocoeval.py, `setDetParams`)."""


@dataclass(frozen=True, slots=True)
class ClassObjects:
    """All detections and all objects of one class, image by image.

    Attributes:
        found_images: (D,) the image of each detection, ascending.
        found_boxes: (D, 4) corners in pixels.
        scores: (D,) descending within an image; equal scores in the order they were given in.
        ranks: (D,) the place within the image, from 0.
        images: (G,) the image of each object, ascending.
        boxes: (G, 4) corners in pixels.
        difficult: (G,).
        crowd: (G,).
        areas: (G,) in square pixels.
    """

    found_images: I64
    found_boxes: F64
    scores: F64
    ranks: I64
    images: I64
    boxes: F64
    difficult: Bools
    crowd: Bools
    areas: F64


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of a class's detections, for A area ranges and T overlaps.

    Attributes:
        scores: (D,) best first over all images.
        ranks: (D,) the place of each within its image, from 0.
        right: (A, T, D) it hit an object that counts.
        left_out: (A, T, D) it is neither right nor wrong.
        counts: (A,) how many objects count.
    """

    scores: F64
    ranks: I64
    right: Bools
    left_out: Bools
    counts: I64


def objects_by_class(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    class_count: int,
    *,
    limit: int | None = None,
) -> Iterator[ClassObjects]:
    """Yield what was found and what is there, class by class from label 1.

    Args:
        detections: one list an image, boxes in its pixels.
        truths: one an image, in the same order.
        class_count: with the background.
        limit: keep the best so many detections of a class in an image.

    Raises:
        ValueError: the two do not belong together, or a label is outside the classes.
    """
    if len(detections) != len(truths):
        raise ValueError(f"{len(detections)} lists of detections for {len(truths)} images")
    images, labels = _labelled([one.labels for one in detections], class_count)
    scores = _joined([one.scores for one in detections])
    boxes = _joined([one.boxes for one in detections], width=4)
    order = np.lexsort((-scores, images, labels))  # stable: equal scores stay as they were given
    images, labels, scores, boxes = images[order], labels[order], scores[order], boxes[order]
    truth_images, truth_labels = _labelled([one.labels for one in truths], class_count)
    order = np.lexsort((truth_images, truth_labels))
    truth_images, truth_labels = truth_images[order], truth_labels[order]
    truth_boxes = _joined([one.boxes for one in truths], width=4)[order]
    areas = _joined([one.areas for one in truths])[order]
    difficult = _joined([one.difficult for one in truths])[order] > 0
    crowd = _joined([one.crowd for one in truths])[order] > 0
    for label in range(1, class_count):
        ours = _run_of(labels, label)
        rows = np.arange(ours.start, ours.stop)
        ranks = np.arange(len(rows)) - np.searchsorted(images[rows], images[rows])
        rows, ranks = (
            (rows, ranks) if limit is None else (rows[ranks < limit], ranks[ranks < limit])
        )
        theirs = _run_of(truth_labels, label)
        yield ClassObjects(
            found_images=images[rows],
            found_boxes=boxes[rows],
            scores=scores[rows],
            ranks=ranks,
            images=truth_images[theirs],
            boxes=truth_boxes[theirs],
            difficult=difficult[theirs],
            crowd=crowd[theirs],
            areas=areas[theirs],
        )


def voc_verdicts(objects: ClassObjects, iou: float) -> Verdicts:
    """Return what became of the detections of a class by VOC's rule, with T = 1.

    An overlap of exactly `iou` hits. Of equal overlaps the first object counts; of equal scores the
    first image, then the first detection. COCO's crowds are treated as difficult.
    """
    hit = np.full(len(objects.scores), -1)  # the object, or -1
    for found, there, overlaps in _meetings(objects, np.zeros_like(objects.crowd)):
        nearest = overlaps.argmax(axis=1) + there.start
        hit[found] = np.where(overlaps.max(axis=1) >= iou, nearest, -1)
    order = np.argsort(-objects.scores, kind="stable")
    hit = hit[order]
    # unique returns the first place of each object; the misses are one value, and no first hit
    is_first = np.zeros(len(hit), bool)
    is_first[np.unique(hit, return_index=True)[1]] = True
    is_first &= hit >= 0
    ignored = _ignored(objects)
    hits_ignored = np.pad(ignored, ((0, 0), (0, 1)))[:, hit]  # a miss, -1, finds the padding
    right = is_first & ~hits_ignored
    left_out = hits_ignored | (~right & _outside(_areas(objects.found_boxes[order])))
    return Verdicts(
        scores=objects.scores[order],
        ranks=objects.ranks[order],
        right=right[:, None],
        left_out=left_out[:, None],
        counts=(~ignored).sum(axis=1),
    )


def coco_verdicts(objects: ClassObjects, ious: F64) -> Verdicts:
    """Return what became of the detections of a class by COCO's rule at the overlaps `ious` (T,).

    Of equal overlaps the last object counts, those that do not count standing behind all others;
    of equal scores the first image, then the first detection. The overlap with a crowd is the
    share of the detection that is in it. VOC's difficult objects are ignored, and matched once.
    """
    ignored = _ignored(objects)
    shape = (len(AREA_RANGES), len(ious), len(objects.scores))
    hits, hits_ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    free = np.ones((len(AREA_RANGES), len(ious), len(objects.images)), bool)
    for found, there, overlaps in _meetings(objects, objects.crowd):
        image = _ImageMatch(ignored[:, there], objects.crowd[there], free[:, :, there])
        for row in np.flatnonzero(overlaps.max(axis=1) >= ious.min()):
            index = found.start + row
            hits[:, :, index], hits_ignored[:, :, index] = image.take(overlaps[row], ious)
    outside = _outside(_areas(objects.found_boxes))[:, None]
    order = np.argsort(-objects.scores, kind="stable")
    return Verdicts(
        scores=objects.scores[order],
        ranks=objects.ranks[order],
        right=(hits & ~hits_ignored)[:, :, order],
        left_out=(hits_ignored | (~hits & outside))[:, :, order],
        counts=(~ignored).sum(axis=1),
    )


@dataclass(frozen=True, slots=True)
class _ImageMatch:
    """The objects of one image: `ignored` (A, n), `crowd` (n,), `free` (A, T, n) is written to."""

    ignored: Bools
    crowd: Bools
    free: Bools

    def take(self, overlaps: F64, ious: F64) -> tuple[Bools, Bools]:
        """Let one detection, `overlaps` (n,), take an object; return whether and which kind.

        Both answers are (A, T): it took one, and the one does not count.
        """
        reached = self.free & (overlaps >= ious[:, None])
        counting = reached & ~self.ignored[:, None]
        others = reached & self.ignored[:, None]
        has_counting: Bools = counting.max(axis=2)
        choice = np.where(has_counting[:, :, None], counting, others)
        hits: Bools = choice.max(axis=2)
        ranked = np.where(choice, overlaps, -1.0)[:, :, ::-1]  # the last of equal overlaps wins
        taken = len(self.crowd) - 1 - ranked.argmax(axis=2)
        area, level = np.nonzero(hits & ~self.crowd[taken])
        self.free[area, level, taken[area, level]] = False
        return hits, hits & ~has_counting


def _meetings(objects: ClassObjects, crowd: Bools) -> Iterator[tuple[slice, slice, F64]]:
    """Yield the rows of detections and of objects of each image with both, and their overlaps."""
    for image in np.intersect1d(objects.found_images, objects.images):
        found, there = _run_of(objects.found_images, image), _run_of(objects.images, image)
        boxes, targets = objects.found_boxes[found], objects.boxes[there]
        yield found, there, _overlaps(boxes, targets, crowd[there])


def _overlaps(boxes: F64, targets: F64, crowd: Bools) -> F64:
    """Return the IoU (n, m); with a crowd, the intersection over the detection's own area."""
    overlaps = iou_matrix(boxes, targets)
    if crowd.any():
        areas = (boxes[:, None, 2:] - boxes[:, None, :2]).prod(axis=2)
        first = np.maximum(boxes[:, None, :2], targets[None, crowd, :2])
        last = np.minimum(boxes[:, None, 2:], targets[None, crowd, 2:])
        shared = np.maximum(last - first, 0).prod(axis=2)
        overlaps[:, crowd] = np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)
    return overlaps


def _ignored(objects: ClassObjects) -> Bools:
    """Return which objects do not count in which area range, (A, G)."""
    ignored: Bools = objects.difficult | objects.crowd | _outside(objects.areas)
    return ignored


def _outside(areas: F64) -> Bools:
    """Return which areas (n,) are outside which range, (A, n)."""
    return np.stack([(areas < low) | (areas > high) for _, low, high in AREA_RANGES])


def _areas(boxes: F64) -> F64:
    areas: F64 = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _labelled(labels: Sequence[I64], class_count: int) -> tuple[I64, I64]:
    """Return the image and the label of every row of a list of labels an image."""
    images = np.repeat(np.arange(len(labels)), [len(one) for one in labels])
    joined = np.concatenate([np.zeros(0, np.int64), *labels])
    if joined.size and not 1 <= joined.min() <= joined.max() < class_count:
        raise ValueError(
            f"labels reach from {joined.min()} to {joined.max()}, not within 1..{class_count - 1}"
        )
    return images, joined


def _joined(arrays: Sequence[npt.NDArray[Any]], width: int = 0) -> F64:
    empty = np.zeros((0, width) if width else 0)
    return np.concatenate([empty, *arrays]).astype(np.float64, copy=False)


def _run_of(ascending: I64, value: int) -> slice:
    """Return the index of `value` in an ascending array."""
    first, last = np.searchsorted(ascending, value), np.searchsorted(ascending, value, "right")
    return slice(int(first), int(last))
