"""How well priors fit the objects of a data set, and sizes that fit better."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.core.boxes import corners_from_centre, iou_matrix
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import PriorSpec
from mbv3ssd_deploy.data.dataset import Sample

THRESHOLD = 0.5
POOR_RECALL = 0.9
"""Below this share of objects with a fitting prior, other sizes are worth a try."""
_MOST_BOXES = 5000
_GROWTH = 1.2
"""The least step between the sizes of two levels."""


class PriorFit(NamedTuple):
    """How well priors fit.

    `recall` is the share of objects that overlap a prior by 0.5 or more, `mean_iou` the mean of
    each object's best overlap, `objects` how many were counted.
    """

    recall: float
    mean_iou: float
    objects: int

    @property
    def is_poor(self) -> bool:
        """Whether other sizes are worth a try."""
        return self.objects > 0 and self.recall < POOR_RECALL


def normalised_boxes(samples: Sequence[Sample]) -> F64:
    """Return the boxes (n, 4) of all objects as corners in units of their images.

    Of very many, every n-th is taken, so that at most 5000 remain.
    """
    scaled = [
        sample.truth.boxes[~sample.truth.crowd].astype(np.float64)
        / ((sample.width, sample.height) * 2)
        for sample in samples
    ]
    boxes = np.concatenate([np.zeros((0, 4)), *scaled])
    return boxes[:: -(-len(boxes) // _MOST_BOXES) or 1]


def fit_of_priors(priors: PriorSpec, boxes: F64) -> PriorFit:
    """Return how well `priors` fit `boxes` (n, 4), normalised corners."""
    if not len(boxes):
        return PriorFit(1.0, 1.0, 0)
    corners = corners_from_centre(build_priors(priors))
    best = np.concatenate(
        [iou_matrix(boxes[i : i + 500], corners).max(axis=1) for i in range(0, len(boxes), 500)]
    )
    return PriorFit(float((best >= THRESHOLD).mean()), float(best.mean()), len(boxes))


def proposed_priors(priors: PriorSpec, boxes: F64) -> PriorSpec:
    """Return `priors` with the sizes of their levels spread over those of `boxes` (n, 4).

    The smallest prior lies at the 5th percentile of the objects' sizes (the root of the area), the
    largest level's at the 95th; between them sizes grow by equal factors, and never by less than
    1.2. Cells and ratios stay. Candidates with somewhat smaller and larger ends are compared, and
    the one with the best mean overlap wins; if none is better, `priors` come back.
    """
    if not len(boxes):
        return priors
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes = np.sqrt(sides.prod(axis=1)) * np.sqrt(priors.frame_width * priors.frame_height)
    low, high = np.percentile(sizes, (5, 95))
    candidates = [priors]
    for first, last in itertools.product((0.7, 0.85, 1.0, 1.2, 1.4), (0.8, 1.0, 1.25)):
        candidates.append(_with_sizes(priors, low * first, max(high * last, low * first)))
    return max(candidates, key=lambda spec: fit_of_priors(spec, boxes).mean_iou)


def _with_sizes(priors: PriorSpec, smallest: float, largest: float) -> PriorSpec:
    count = len(priors.levels)
    growth = max((largest / smallest) ** (1 / (count - 1)), _GROWTH) if count > 1 else _GROWTH
    edge = max(priors.frame_width, priors.frame_height)
    # a prior beyond the image fits nothing, but every level must keep its boxes
    sizes = [round(min(smallest * growth**place, edge), 2) for place in range(count + 1)]
    levels = tuple(
        dataclasses.replace(
            level, min_size=size, max_size=None if level.max_size is None else following
        )
        for level, (size, following) in zip(priors.levels, itertools.pairwise(sizes), strict=True)
    )
    return dataclasses.replace(priors, levels=levels)
