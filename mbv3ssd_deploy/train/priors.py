"""How well priors fit the objects of a data set, and sizes that fit better.

Of all priors of one shape on one level, the one with the nearest centre overlaps a box best, since
overlap falls with either distance. So one prior per shape is compared, and many sizes can be tried.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mbv3ssd_deploy.core.arrays import F64, I64
from mbv3ssd_deploy.core.spec import PriorLevel, PriorSpec
from mbv3ssd_deploy.data.dataset import Sample

THRESHOLD = 0.5
POOR_RECALL = 0.9
"""Below this share of a class's objects with a fitting prior, other sizes are tried."""
_MOST_OF_A_CLASS = 1000
_SIZES = 16
_ROUNDS = 3
_LEAST_GAIN = 1e-3


class LabelledBoxes(NamedTuple):
    """Objects: `boxes` (n, 4) corners in units of their images, `labels` (n,) from 1."""

    boxes: F64
    labels: I64


class PriorFit(NamedTuple):
    """How well priors fit.

    `recall` is the share of a class's objects that overlap a prior by 0.5 or more, `mean_iou` the
    mean of each object's best overlap; both are means over the classes, so that a rare class
    counts. `worst_recall` and `worst_label` are of the class with the lowest recall.
    """

    recall: float
    mean_iou: float
    worst_recall: float
    worst_label: int

    @property
    def is_poor(self) -> bool:
        """Whether other sizes should be tried."""
        return self.worst_recall < POOR_RECALL


def labelled_boxes(samples: Sequence[Sample]) -> LabelledBoxes:
    """Return the objects of `samples` without crowds; of each class about 1000 at most."""
    boxes, labels = [np.zeros((0, 4))], [np.zeros(0, np.int64)]
    for sample in samples:
        wanted = ~sample.truth.crowd
        boxes.append(sample.truth.boxes[wanted] / ((sample.width, sample.height) * 2))
        labels.append(sample.truth.labels[wanted])
    every, label_of = np.concatenate(boxes), np.concatenate(labels)
    kept = np.zeros(len(every), bool)
    for label in np.unique(label_of):
        rows = np.flatnonzero(label_of == label)
        kept[rows[:: math.ceil(len(rows) / _MOST_OF_A_CLASS)]] = True
    return LabelledBoxes(every[kept], label_of[kept])


def fit_of_priors(priors: PriorSpec, objects: LabelledBoxes) -> PriorFit:
    """Return how well `priors` fit; perfectly if there are no objects."""
    if not len(objects.labels):
        return PriorFit(1.0, 1.0, 1.0, 0)
    scaled = _in_frame(priors, objects.boxes)
    best = np.max([_best_on_level(level, scaled) for level in priors.levels], axis=0)
    labels = np.unique(objects.labels)
    recalls = [float((best[objects.labels == one] >= THRESHOLD).mean()) for one in labels]
    means = [float(best[objects.labels == one].mean()) for one in labels]
    worst = int(np.argmin(recalls))
    return PriorFit(
        float(np.mean(recalls)), float(np.mean(means)), recalls[worst], int(labels[worst])
    )


def proposed_priors(priors: PriorSpec, objects: LabelledBoxes) -> PriorSpec:
    """Return `priors` with sizes that fit the objects, each class counting alike.

    Level by level, pairs of sizes between those of the smallest and the largest objects are tried
    for the two squares of a cell, and kept where the sum of mean best overlap and recall rises, in
    three rounds at most. Cells and ratios stay, and a level that no object needs keeps its sizes.
    """
    if not len(objects.labels):
        return priors
    scaled = _in_frame(priors, objects.boxes)
    _, group, counts = np.unique(objects.labels, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[group] / len(counts)
    sizes = _sizes_to_try(scaled)
    levels = list(priors.levels)
    best = [_best_on_level(level, scaled) for level in levels]
    value = _value(np.max(best, axis=0), weights)
    for _ in range(_ROUNDS):
        before = value
        for index, level in enumerate(levels):
            others = np.max([b for i, b in enumerate(best) if i != index] or [best[0] * 0], axis=0)
            # priors smaller than their cells would leave gaps
            fitting = [size for size in sizes if size >= max(level.step_x, level.step_y)]
            for small, large in itertools.combinations(fitting, 2):
                tried = _with_sizes(level, small, large)
                overlap = _best_on_level(tried, scaled)
                gained = _value(np.maximum(others, overlap), weights)
                if gained > value + _LEAST_GAIN:
                    value, levels[index], best[index] = gained, tried, overlap
        if value <= before:
            break
    return dataclasses.replace(priors, levels=tuple(levels))


def _in_frame(priors: PriorSpec, boxes: F64) -> F64:
    """Return corners in units of the prior frame as cx, cy, w, h."""
    frame = np.array((priors.frame_width, priors.frame_height))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * frame
    return np.hstack([centres, (boxes[:, 2:] - boxes[:, :2]) * frame])


def _sizes_to_try(boxes_cxcywh: F64) -> list[float]:
    sides = np.sqrt(boxes_cxcywh[:, 2:].prod(axis=1))
    low, high = np.percentile(sides, (1, 99))
    return [round(size, 2) for size in np.geomspace(0.8 * low, 1.25 * high, _SIZES).tolist()]


def _with_sizes(level: PriorLevel, small: float, large: float) -> PriorLevel:
    """Return `level` with the squares `small` and `large`; with `small` where it has only one."""
    if level.max_size is None:
        return dataclasses.replace(level, min_size=small)
    return dataclasses.replace(level, min_size=small, max_size=round(large * large / small, 2))


def _value(best: F64, weights: F64) -> float:
    return float(((best + (best >= THRESHOLD)) * weights).sum())


def _best_on_level(level: PriorLevel, boxes_cxcywh: F64) -> F64:
    """Return the best overlap (n,) of each box with the unclipped priors of a level."""
    column = np.clip(np.floor(boxes_cxcywh[:, 0] / level.step_x), 0, level.cols - 1)
    row = np.clip(np.floor(boxes_cxcywh[:, 1] / level.step_y), 0, level.rows - 1)
    across = np.abs(boxes_cxcywh[:, 0] - (column + 0.5) * level.step_x)
    down = np.abs(boxes_cxcywh[:, 1] - (row + 0.5) * level.step_y)
    shapes = np.array(_shapes(level))[:, None, :]
    sides = boxes_cxcywh[None, :, 2:]
    wide = _shared(shapes[..., 0], sides[..., 0], across)
    high = _shared(shapes[..., 1], sides[..., 1], down)
    shared = wide * high
    union = shapes.prod(axis=2) + sides.prod(axis=2) - shared
    best: F64 = (shared / np.maximum(union, 1e-12)).max(axis=0)
    return best


def _shared(one: F64, other: F64, distance: F64) -> F64:
    """Return the overlap of two intervals of these lengths, their centres `distance` apart."""
    reach = (one + other) / 2 - distance
    return np.clip(np.minimum(reach, np.minimum(one, other)), 0, None)


def _shapes(level: PriorLevel) -> list[tuple[float, float]]:
    small = level.min_size
    shapes = [(small, small)]
    if level.max_size is not None:
        between = math.sqrt(small * level.max_size)
        shapes.append((between, between))
    return shapes + [(small * math.sqrt(r), small / math.sqrt(r)) for r in level.ratios]
