"""Greedy non-maximum suppression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mbv3ssd_deploy.core.arrays import F32, I64, Bools
from mbv3ssd_deploy.core.boxes import iou_matrix

# Boxes are compared block by block: a whole matrix of 3000 priors would be 36 MB, many times over.
_BLOCK = 256


def best_first(scores: npt.NDArray[np.floating]) -> I64:
    """Return the order that sorts `scores` (n,) descending; equal scores keep their order."""
    return np.argsort(-scores, kind="stable").astype(np.int64)


def nms(  # noqa: PLR0913 -- the boxes, and every rule that a family may have
    boxes: F32,
    scores: F32,
    iou_threshold: float,
    iou_epsilon: float = 0.0,
    *,
    suppress_at_threshold: bool = False,
    limit: int | None = None,
) -> I64:
    """Return the indices of the boxes that no better kept box hides, best first.

    A box is hidden when its IoU (`core.boxes.iou_matrix`) with a kept one is strictly above
    `iou_threshold`. Equal scores rank by index. A row whose box or score is not finite is dropped
    before sorting.

    Args:
        boxes: (n, 4) corners, in any unit.
        scores: (n,).
        iou_threshold: the largest overlap that two kept boxes may have.
        iou_epsilon: added to the union.
        suppress_at_threshold: whether a box whose IoU is the threshold is hidden, too.
        limit: how many boxes are wanted; the search ends there.
    """
    hides = np.greater_equal if suppress_at_threshold else np.greater
    usable = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    waiting = usable[best_first(scores[usable])]
    kept = [waiting[:0]]
    while waiting.size and (limit is None or sum(map(len, kept)) < limit):
        block, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
        inside = iou_matrix(boxes[block], boxes[block], iou_epsilon)
        winners = block[_survivors(hides(inside, iou_threshold))]
        kept.append(winners)
        if waiting.size:
            across = iou_matrix(boxes[winners], boxes[waiting], iou_epsilon)
            waiting = waiting[~hides(across, iou_threshold).any(axis=0)]
    return np.concatenate(kept)[:limit]


def _survivors(overlaps: Bools) -> Bools:
    """Return who stays when, in order, each row that stays removes all later rows it overlaps."""
    alive = np.ones(len(overlaps), dtype=np.bool_)
    for row, overlapped in enumerate(overlaps):
        if alive[row]:
            alive[row + 1 :] &= ~overlapped[row + 1 :]
    return alive
