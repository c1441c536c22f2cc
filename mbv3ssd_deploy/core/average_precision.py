"""Average precision: one metric for training, evaluation and every runtime.

`core.truth` decides which detection is a hit; this file turns hits into numbers.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from mbv3ssd_deploy.core.arrays import F64, I64, Bools
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.truth import (
    AREA_RANGES,
    GroundTruth,
    Verdicts,
    coco_verdicts,
    objects_by_class,
    voc_verdicts,
)

Key = TypeVar("Key")
UNDEFINED = math.nan
"""The precision of what is not there to be found."""

_VOC_IOU = 0.5
# as pycocotools writes them: the last digit of 0.95 and of the recalls decides about ties
_COCO_IOUS = np.linspace(0.5, 0.95, 10)
_COCO_RECALLS = np.linspace(0.0, 1.0, 101)
_COCO_LIMITS = (1, 10, 100)


class Protocol(enum.StrEnum):
    """How a benchmark makes one number of many hits."""

    VOC07 = "voc07"
    """Pascal VOC up to 2009: the mean of the best precision at 11 recalls, IoU 0.5."""
    VOC_AREA = "voc"
    """Pascal VOC from 2010: the area under the precision-recall curve, IoU 0.5."""
    COCO = "coco"
    """COCO: the mean over ten IoUs, 0.5 to 0.95, of the mean precision at 101 recalls; the best
    100 detections of a class in an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A class's precision and recall at IoU 0.5, one entry for every object that is found.

    Attributes:
        recall: (n,) ascending.
        precision: (n,) as measured, not smoothed.
        scores: (n,) the threshold at which both are reached, descending.
    """

    recall: F64
    precision: F64
    scores: F64


@dataclass(frozen=True, slots=True, eq=False)
class ClassAp:
    """How well one class is found.

    Attributes:
        label: from 1.
        ap: the average precision, 0..1; NaN without an object that counts.
        truths: objects that count.
        detections: those that were judged.
        by_iou: the average precision at each IoU of the protocol.
        by_size: the average precision by COCO's sizes; NaN where no object of the size counts.
        average_recall: COCO only, else empty: by 1, 10, 100 detections an image and by size.
        curve: at IoU 0.5.
    """

    label: int
    ap: float
    truths: int
    detections: int
    by_iou: Mapping[float, float]
    by_size: Mapping[str, float]
    average_recall: Mapping[str, float]
    curve: Curve


@dataclass(frozen=True, slots=True, eq=False)
class ApReport:
    """How well all classes are found.

    A mean is over the classes with objects that count (of that size); NaN without such a class.

    Attributes:
        protocol: which benchmark's rules.
        mean: mAP, 0..1.
        per_class: by label, from 1; a class without objects is among them, its precision NaN.
        by_iou: mAP at each IoU of the protocol.
        by_size: mAP of "small", "medium" and "large" objects, by COCO's areas.
        average_recall: COCO only, else empty: keys "1", "10", "100", "small", "medium", "large".
    """

    protocol: Protocol
    mean: float
    per_class: tuple[ClassAp, ...]
    by_iou: Mapping[float, float] = field(default_factory=dict)
    by_size: Mapping[str, float] = field(default_factory=dict)
    average_recall: Mapping[str, float] = field(default_factory=dict)

    @property
    def truths(self) -> int:
        """How many objects count."""
        return sum(one.truths for one in self.per_class)


def average_precision(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    class_count: int,
    protocol: Protocol,
) -> ApReport:
    """Return the average precision of a data set.

    Args:
        detections: one list an image, boxes in its pixels, in any order; for a sound curve they
            should reach down to low scores.
        truths: one an image, in the same order.
        class_count: with the background, as in `DetectorSpec.num_classes`.
        protocol: whose rules.

    Raises:
        ValueError: the lists differ in length, or a label is outside the classes.
    """
    rules = _RULES[protocol]
    groups = objects_by_class(detections, truths, class_count, limit=rules.limit)
    per_class = tuple(
        _class_ap(label, rules.judge(objects), rules) for label, objects in enumerate(groups, 1)
    )
    return ApReport(
        protocol=protocol,
        mean=mean_of_defined([one.ap for one in per_class]),
        per_class=per_class,
        by_iou=_means([one.by_iou for one in per_class]),
        by_size=_means([one.by_size for one in per_class]),
        average_recall=_means([one.average_recall for one in per_class]),
    )


def mean_of_defined(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else UNDEFINED


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a protocol is made of: overlaps, the cut in an image, and the reading of a curve."""

    ious: tuple[float, ...]
    limit: int | None
    judge: Callable[..., Verdicts]
    precision: Callable[[I64, I64, int], float]


def _class_ap(label: int, verdicts: Verdicts, rules: _Rules) -> ClassAp:
    table = _ap_table(verdicts, rules)
    names = [name for name, _, _ in AREA_RANGES]
    by_size = {name: float(row.mean()) for name, row in zip(names, table, strict=True)}
    return ClassAp(
        label=label,
        ap=by_size.pop("all"),
        truths=int(verdicts.counts[0]),
        detections=len(verdicts.scores),
        by_iou=MappingProxyType(dict(zip(rules.ious, table[0].tolist(), strict=True))),
        by_size=MappingProxyType(by_size),
        average_recall=MappingProxyType(_recalls(verdicts) if rules.limit else {}),
        curve=_curve(verdicts),
    )


def _ap_table(verdicts: Verdicts, rules: _Rules) -> F64:
    """Return the average precision by area range and IoU, (A, T)."""
    areas, levels, _ = verdicts.right.shape
    table = np.full((areas, levels), UNDEFINED)
    for area, count in enumerate(verdicts.counts):
        for level in range(levels if count else 0):
            right = verdicts.right[area, level]
            judged = right[~verdicts.left_out[area, level]]
            places = np.flatnonzero(judged) + 1  # how many were judged when each hit came
            table[area, level] = rules.precision(places, np.arange(1, len(places) + 1), int(count))
    return table


def _at_eleven_recalls(places: I64, hits: I64, count: int) -> float:
    """Return the mean of the best precision at recall 0, 0.1, .. 1 or more (VOC devkit to 2009).

    In whole numbers, so that 3 objects of 10 do reach a recall of 0.3.
    """
    best = _best_from_here(hits / places)
    first = np.searchsorted(hits * 10, np.arange(11) * count)
    return float(np.append(best, 0.0)[first].sum() / 11)


def _area(places: I64, hits: I64, count: int) -> float:
    """Return the area under the curve of the best precision at this or any larger recall.

    Every hit widens the curve by 1 / count (VOC devkit from 2010).
    """
    return float(_best_from_here(hits / places).sum() / count)


def _at_101_recalls(places: I64, hits: I64, count: int) -> float:
    """Return the mean best precision at recall 0, 0.01, .. 1 (`accumulate` in cocoeval.py)."""
    best = _best_from_here(hits / places)
    first = np.searchsorted(hits / count, _COCO_RECALLS)
    return float(np.append(best, 0.0)[first].mean())


def _best_from_here(precision: F64) -> F64:
    best: F64 = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def _recalls(verdicts: Verdicts) -> dict[str, float]:
    """Return COCO's average recalls of one class: the mean over the IoUs of the largest recall."""
    names = [name for name, _, _ in AREA_RANGES]
    cuts = [("all", limit, str(limit)) for limit in _COCO_LIMITS]
    cuts += [(size, _COCO_LIMITS[-1], size) for size in names[1:]]
    found = {}
    for size, limit, key in cuts:
        area = names.index(size)
        count = int(verdicts.counts[area])
        within: Bools = verdicts.right[area][:, verdicts.ranks < limit]
        found[key] = float((within.sum(axis=1) / count).mean()) if count else UNDEFINED
    return found


def _curve(verdicts: Verdicts) -> Curve:
    kept = ~verdicts.left_out[0, 0]
    judged, scores = verdicts.right[0, 0][kept], verdicts.scores[kept]
    places = np.flatnonzero(judged)
    hits = np.arange(1, len(places) + 1)
    return Curve(hits / max(int(verdicts.counts[0]), 1), hits / (places + 1), scores[places])


def _means(tables: Sequence[Mapping[Key, float]]) -> Mapping[Key, float]:
    keys = list(tables[0]) if tables else []
    return MappingProxyType({k: mean_of_defined([one[k] for one in tables]) for k in keys})


_RULES: Mapping[Protocol, _Rules] = MappingProxyType(
    {
        Protocol.VOC07: _Rules(
            (_VOC_IOU,), None, lambda objects: voc_verdicts(objects, _VOC_IOU), _at_eleven_recalls
        ),
        Protocol.VOC_AREA: _Rules(
            (_VOC_IOU,), None, lambda objects: voc_verdicts(objects, _VOC_IOU), _area
        ),
        Protocol.COCO: _Rules(
            tuple(_COCO_IOUS.round(2).tolist()),
            _COCO_LIMITS[-1],
            lambda objects: coco_verdicts(objects, _COCO_IOUS),
            _at_101_recalls,
        ),
    }
)
