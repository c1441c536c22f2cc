"""Candidates, and which of them suppress each other: the steps between scores and detections.

Each step keeps some of the candidates and may reorder them; `core.detections` puts them in a
row, and `DecodeSpec` holds their rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mbv3ssd_deploy.core.arrays import F32, I64, Bools
from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.core.spec import DecodeSpec, NmsScope, ResultOrder


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Priors that may hold an object of a class: `priors`, `labels` and `scores`, each (n,)."""

    priors: I64
    labels: I64
    scores: F32

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: I64) -> Candidates:
        """Return these rows only, in their order."""
        return Candidates(self.priors[rows], self.labels[rows], self.scores[rows])


def candidates_above(scores: F32, decode: DecodeSpec) -> Candidates:
    """Return the scores above the threshold, class by class, best first, limited per class.

    Args:
        scores: (P, C); column 0 is the background and left out; NaN is never above a threshold.
        decode: has `score_threshold` and `candidates_per_class`.
    """
    ranked = []
    for of_class in scores.T[1:]:
        above = np.flatnonzero(of_class > decode.score_threshold)
        ranked.append(above[best_first(of_class[above])][: decode.candidates_per_class])
    labels = np.repeat(np.arange(1, scores.shape[1]), [len(rows) for rows in ranked])
    priors = np.concatenate(ranked)
    return Candidates(priors, labels, scores[priors, labels])


def suppressed(
    found: Candidates, boxes: F32, decode: DecodeSpec, input_size: tuple[int, int]
) -> Candidates:
    """Return the candidates that no better one of their scope hides, best first in each class.

    Args:
        found: the candidates.
        boxes: (P, 4) normalised corners of the areas that the priors' boxes cover.
        decode: has `nms_scope`, `iou_threshold`, `iou_epsilon` and `suppress_at_threshold`.
        input_size: width and height of the network's input.
    """
    return found.take(_SCOPES[decode.nms_scope](found, boxes, decode, input_size))


def best_of_each_class(found: Candidates, decode: DecodeSpec) -> Candidates:
    """Return at most `keep_per_class` of each class; the best of a class must come first."""
    if decode.keep_per_class is None:
        return found
    by_class = [np.flatnonzero(found.labels == label) for label in np.unique(found.labels)]
    return found.take(_joined([rows[: decode.keep_per_class] for rows in by_class]))


def in_result_order(found: Candidates, decode: DecodeSpec) -> Candidates:
    """Return the best `keep_total` over all classes, in the order of the result."""
    is_cut = decode.keep_total is not None and len(found) > decode.keep_total
    # the last key of lexsort ranks first
    keys: dict[ResultOrder, tuple[F32 | I64, ...]] = {
        ResultOrder.SCORE: (found.labels, found.priors, -found.scores),
        ResultOrder.CLASS: (found.priors, -found.scores, found.labels),
        ResultOrder.CLASS_PRIOR: (found.priors, found.labels),
    }
    order = ResultOrder.SCORE if is_cut else decode.order
    return found.take(np.lexsort(keys[order])[: decode.keep_total])


def _survivors_by_class(
    found: Candidates, boxes: F32, decode: DecodeSpec, _: tuple[int, int]
) -> I64:
    kept = []
    for label in np.unique(found.labels):
        rows = np.flatnonzero(found.labels == label)
        scores = found.scores[rows]
        winners = nms(
            boxes[found.priors[rows]],
            scores,
            decode.iou_threshold,
            decode.iou_epsilon,
            suppress_at_threshold=decode.suppress_at_threshold,
            limit=decode.keep_per_class,
        )
        kept.append(rows[winners])
    return _joined(kept)


def _survivors_over_all(
    found: Candidates, boxes: F32, decode: DecodeSpec, input_size: tuple[int, int]
) -> I64:
    width, height = input_size
    rows = np.lexsort((found.labels, found.priors))  # who of two equal scores comes first
    pixels = boxes[found.priors[rows]] * np.array((width, height) * 2, dtype=np.float32)
    apart = pixels.max(initial=0.0) + 1
    shifted = pixels + found.labels[rows, None].astype(np.float32) * apart
    winners = nms(
        shifted,
        found.scores[rows],
        decode.iou_threshold,
        decode.iou_epsilon * width * height,
        suppress_at_threshold=decode.suppress_at_threshold,
        limit=_enough(decode),
    )
    return rows[winners]


def _enough(decode: DecodeSpec) -> int | None:
    """Return how many winners over all classes decide the result: all, where classes are cut."""
    if decode.keep_total is None or decode.keep_per_class is not None:
        return None
    return decode.keep_total + 1  # one more, to detect a cut


def _joined(rows: list[I64]) -> I64:
    return np.concatenate([np.empty(0, dtype=np.int64), *rows])


_SCOPES: Mapping[NmsScope, Callable[[Candidates, F32, DecodeSpec, tuple[int, int]], I64]] = (
    MappingProxyType(
        {
            NmsScope.CLASS: _survivors_by_class,
            NmsScope.ALL_CLASSES: _survivors_over_all,
        }
    )
)


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
