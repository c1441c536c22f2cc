"""Two runs compared by their boxes: matched, lost, new and borderline ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mbv3ssd_deploy.core.arrays import I64
from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.matching import Match, match_detections

MATCH_IOUS = (0.99, 0.95, 0.5)
"""The overlaps at which boxes are matched, strictest first; below the last a box is lost."""
SCORE_MARGIN = 0.02
"""A box within this of the score at which its list ends is borderline."""
NMS_MARGIN = 0.001
"""So does a box whose overlap with a better one is this near to the IoU that suppresses it."""
TIE = 2e-5
"""So far float32 may move a score; where that alone moves a box, two scores were tied."""
LISTED = 10
"""How many lost and new boxes a diff names, the surest first."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the lists of both runs end.

    Attributes:
        score_threshold: a score must be above it.
        iou_threshold: above it a better box of the class suppresses another.
        keep_total: the longest list; None for no limit.
        iou_epsilon: added to the union for the IoU of NMS.
    """

    score_threshold: float
    iou_threshold: float
    keep_total: int | None
    iou_epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class DetectionPair:
    """What two runs found on the same image.

    Attributes:
        image: its name.
        reference: the boxes of the reference.
        actual: the boxes of the other run.
        tied: the boxes of the reference's own heads after ties, each score that
            the other run moves by at most `TIE` being moved so; None where nothing is to explain.
    """

    image: str
    reference: Detections
    actual: Detections
    tied: Detections | None = None


@dataclass(frozen=True, slots=True)
class UnmatchedBox:
    """A box without a match in the other run; `box` are normalised corners."""

    image: str
    label: int
    score: float
    box: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DetectionDiff:
    """The detections of one run over all images, compared with the reference's.

    Attributes:
        reference: how many boxes the reference found.
        actual: how many the other run found.
        matched: how many of the reference's have a match, at each of `MATCH_IOUS`.
        lost: the reference's boxes without a match, except borderline ones.
        new: boxes that the reference does not have, except borderline ones.
        flicker_lost: lost within `SCORE_MARGIN` of the score at which the list was cut, or within
            `NMS_MARGIN` of the IoU that suppresses, or by a tie.
        flicker_new: likewise.
        tied_lost: how many of `flicker_lost` are ties: missing in `DetectionPair.tied`, too.
        tied_new: how many of `flicker_new` are ties: in it, with their score.
        score_p50: median of |score difference| over the matched boxes.
        score_p99: its 99th percentile.
        score_max: its largest.
        score_max_at: its largest over the boxes matched at each of `MATCH_IOUS`, or stricter.
        worst_iou: the smallest overlap of two matched boxes; 1 when nothing matched.
        worst_image: where that is.
        worst_lost: the surest of the lost boxes.
        worst_new: the surest of the new ones.
    """

    reference: int
    actual: int
    matched: tuple[int, ...]
    lost: int
    new: int
    flicker_lost: int
    flicker_new: int
    tied_lost: int
    tied_new: int
    score_p50: float
    score_p99: float
    score_max: float
    score_max_at: tuple[float, ...]
    worst_iou: float
    worst_image: str
    worst_lost: tuple[UnmatchedBox, ...]
    worst_new: tuple[UnmatchedBox, ...]

    @property
    def counted(self) -> int:
        """N: the reference's boxes without the borderline ones that were lost."""
        return self.reference - self.flicker_lost

    def matched_at(self, iou: float) -> int:
        """Return how many boxes match at `iou`, one of `MATCH_IOUS`."""
        return self.matched[MATCH_IOUS.index(iou)]

    def share_at(self, iou: float) -> float:
        """Return the share of the counted boxes that match; 0 if none is counted."""
        return self.matched_at(iou) / self.counted if self.counted else 0.0

    def score_at(self, iou: float) -> float:
        """Return the largest |score difference| of the boxes that `matched_at` counts."""
        return self.score_max_at[MATCH_IOUS.index(iou)]


@dataclass(slots=True)
class _Tally:
    """What comes together while the images pass."""

    pairs: list[list[Match]] = field(default_factory=lambda: [[] for _ in MATCH_IOUS])
    worst: tuple[float, str] = (1.0, "")
    lost: list[UnmatchedBox] = field(default_factory=list)
    new: list[UnmatchedBox] = field(default_factory=list)
    flicker_lost: int = 0
    flicker_new: int = 0
    tied_lost: int = 0
    tied_new: int = 0


def compare_detections(pairs: Iterable[DetectionPair], cut: Cut) -> DetectionDiff:
    """Compare the boxes of two runs, image by image, class by class.

    Boxes are matched at the strictest IoU first, unmatched ones at the next. A box without a match
    is borderline if the last digits of its run decided about it:

    * its score is within `SCORE_MARGIN` of the end of its list: the threshold, or in a full list
      the lowest score;
    * its overlap with a better box of its class, in either run, is within `NMS_MARGIN` of the IoU
      at which that box suppresses it.

    Unmatched boxes are first compared with `DetectionPair.tied`. A box of the reference that is
    missing there, and a new one that is in it, are ties: the reference's own heads, with scores
    moved by at most `TIE`, give the same. Ties are borderline, too.

    Args:
        pairs: one per image.
        cut: where the lists of both runs end.
    """
    tally, each = _Tally(), tuple(pairs)
    for pair in each:
        _add_image(tally, pair, cut)
    matches = [match for tier in tally.pairs for match in tier]
    gaps = np.abs([match.score_difference for match in matches]) if matches else np.zeros(1)
    worst_scores = [
        max((abs(match.score_difference) for match in tier), default=0.0) for tier in tally.pairs
    ]
    return DetectionDiff(
        reference=sum(len(pair.reference) for pair in each),
        actual=sum(len(pair.actual) for pair in each),
        matched=tuple(np.cumsum([len(tier) for tier in tally.pairs]).tolist()),
        lost=len(tally.lost),
        new=len(tally.new),
        flicker_lost=tally.flicker_lost + tally.tied_lost,
        flicker_new=tally.flicker_new + tally.tied_new,
        tied_lost=tally.tied_lost,
        tied_new=tally.tied_new,
        score_p50=float(np.percentile(gaps, 50)),
        score_p99=float(np.percentile(gaps, 99)),
        score_max=float(gaps.max()),
        score_max_at=tuple(np.maximum.accumulate(worst_scores).tolist()),
        worst_iou=tally.worst[0],
        worst_image=tally.worst[1],
        worst_lost=_surest(tally.lost),
        worst_new=_surest(tally.new),
    )


def _add_image(tally: _Tally, pair: DetectionPair, cut: Cut) -> None:
    lost, new = _match_in_tiers(tally, pair)
    unmatched = [_unmatched(pair.image, pair.reference, index) for index in lost]
    steady = [box for box in unmatched if not _is_borderline(box, pair, cut)]
    tally.lost += steady
    tally.flicker_lost += len(unmatched) - len(steady)
    unmatched = [_unmatched(pair.image, pair.actual, index) for index in new]
    steady = [box for box in unmatched if not _is_borderline(box, pair, cut)]
    tally.new += steady
    tally.flicker_new += len(unmatched) - len(steady)


def _is_borderline(box: UnmatchedBox, pair: DetectionPair, cut: Cut) -> bool:
    lists = (pair.reference, pair.actual)
    lowest = max(cut.score_threshold, *(_lowest(found, cut.keep_total) for found in lists))
    if abs(box.score - lowest) <= SCORE_MARGIN:
        return True
    return any(_is_near_nms_limit(box, found, cut) for found in lists)


def _is_near_nms_limit(box: UnmatchedBox, found: Detections, cut: Cut) -> bool:
    better = (found.labels == box.label) & (found.scores >= box.score)
    boxes = found.boxes[better].astype(np.float64)
    overlaps = iou_matrix(np.array([box.box]), boxes, cut.iou_epsilon)
    return bool((np.abs(overlaps - cut.iou_threshold) <= NMS_MARGIN).any())


def _match_in_tiers(tally: _Tally, pair: DetectionPair) -> tuple[Sequence[int], Sequence[int]]:
    """Match at each IoU what the stricter ones left over; return the lost and the new indices."""
    lost = np.arange(len(pair.reference))
    new = np.arange(len(pair.actual))
    for tier, iou in enumerate(MATCH_IOUS):
        matching = match_detections(_subset(pair.reference, lost), _subset(pair.actual, new), iou)
        tally.pairs[tier] += matching.pairs
        lost, new = lost[list(matching.lost)], new[list(matching.new)]
        worst = min((match.iou for match in matching.pairs), default=1.0)
        tally.worst = min(tally.worst, (worst, pair.image), key=lambda entry: entry[0])
        if tier == 0 and pair.tied is not None:
            lost, new = _without_ties(tally, pair, pair.tied, (lost, new))
    return lost.tolist(), new.tolist()


def _without_ties(
    tally: _Tally, pair: DetectionPair, tied: Detections, unmatched: tuple[I64, I64]
) -> tuple[I64, I64]:
    """Return the lost and the new indices that `tied` does not explain; count the others."""
    lost, new = unmatched
    gone = match_detections(pair.reference, tied, MATCH_IOUS[0]).lost
    there = [
        match.reference
        for match in match_detections(pair.actual, tied, MATCH_IOUS[0]).pairs
        if abs(match.score_difference) <= TIE
    ]
    left, unknown = np.setdiff1d(lost, gone), np.setdiff1d(new, there)
    tally.tied_lost += len(lost) - len(left)
    tally.tied_new += len(new) - len(unknown)
    return left, unknown


def _subset(detections: Detections, indices: np.ndarray) -> Detections:
    return Detections(
        detections.boxes[indices], detections.scores[indices], detections.labels[indices]
    )


def _lowest(detections: Detections, keep_total: int | None) -> float:
    full = keep_total is not None and len(detections) >= keep_total
    return float(detections.scores.min()) if full else 0.0


def _unmatched(image: str, detections: Detections, index: int) -> UnmatchedBox:
    return UnmatchedBox(
        image,
        int(detections.labels[index]),
        float(detections.scores[index]),
        tuple(detections.boxes[index].tolist()),
    )


def _surest(boxes: Sequence[UnmatchedBox]) -> tuple[UnmatchedBox, ...]:
    return tuple(sorted(boxes, key=lambda box: -box.score)[:LISTED])
