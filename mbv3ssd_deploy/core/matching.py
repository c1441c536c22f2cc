"""Which detection of one run is which of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64, I64
from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.nms import best_first


@dataclass(frozen=True, slots=True)
class Match:
    """Detection `reference` of the one run is `actual` of the other (indices into the two).

    `score_difference` is actual minus reference.
    """

    reference: int
    actual: int
    iou: float
    score_difference: float


@dataclass(frozen=True, slots=True)
class Matching:
    """Two lists of detections, matched with each other.

    `pairs` are in the order of their reference index. `lost` are the reference's detections
    without a partner, `new` the actual ones without a partner, both ascending.
    """

    pairs: tuple[Match, ...]
    lost: tuple[int, ...]
    new: tuple[int, ...]


def match_detections(reference: Detections, actual: Detections, iou_threshold: float) -> Matching:
    """Pair the detections of two runs, each at most once, within a class only.

    Greedy: the reference's detections choose in the order of their score, then index; each takes
    the free one with the largest IoU, then the lowest index, if that IoU is at least
    `iou_threshold`. IoU is evaluated in float64. Two boxes that are equal number for number have
    IoU 1 even when they have no area (clipped ones at the image's edge).

    Raises:
        ValueError: the threshold is not within (0, 1]: at 0, boxes far apart would pair.
    """
    if not 0.0 < iou_threshold <= 1.0:
        raise ValueError(f"the IoU threshold {iou_threshold} is not within (0, 1]")
    pairs: list[Match] = []
    for label in np.unique(reference.labels):
        ours = np.flatnonzero(reference.labels == label)
        theirs = np.flatnonzero(actual.labels == label)
        pairs += _pairs_in_class(reference, actual, ours, theirs, iou_threshold)
    pairs.sort(key=lambda pair: pair.reference)
    lost = set(range(len(reference))) - {pair.reference for pair in pairs}
    new = set(range(len(actual))) - {pair.actual for pair in pairs}
    return Matching(tuple(pairs), tuple(sorted(lost)), tuple(sorted(new)))


def _pairs_in_class(
    reference: Detections, actual: Detections, ours: I64, theirs: I64, iou_threshold: float
) -> list[Match]:
    if not theirs.size:
        return []
    free = _iou(reference.boxes[ours], actual.boxes[theirs])
    pairs = []
    for row in best_first(reference.scores[ours]):
        column = int(free[row].argmax())
        iou = float(free[row, column])
        if iou >= iou_threshold:
            free[:, column] = -1.0
            mine, other = int(ours[row]), int(theirs[column])
            difference = float(actual.scores[other]) - float(reference.scores[mine])
            pairs.append(Match(mine, other, iou, difference))
    return pairs


def _iou(a: F32, b: F32) -> F64:
    equal = (a[:, None, :] == b[None, :, :]).all(axis=2)
    return np.where(equal, 1.0, iou_matrix(a.astype(np.float64), b.astype(np.float64)))
