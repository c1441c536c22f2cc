"""From annotated objects to checked boxes and labels, by one rule for all formats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.core.truth import GroundTruth
from mbv3ssd_deploy.data.dataset import DatasetProblem

Box = tuple[float, float, float, float]
"""Corners x1, y1, x2, y2 in pixels with continuous edges."""

_ROUNDING_PX = 1.0
"""By so much a box may leave the image without a word: conventions differ by one pixel."""
_LEAST_SIDE_PX = 0.01
"""What is thinner has no area: rounding to float32 could make it vanish."""


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One object as it stands in the annotation, before anything is checked.

    Attributes:
        class_name: as written, blanks around it taken off.
        box: corners; not yet clipped, perhaps inverted or not finite.
        place: file and line, for whoever has to mend it.
        difficult: VOC's flag.
        crowd: COCO's flag.
        area: of the segmentation in square pixels, where there is one.
    """

    class_name: str
    box: Box
    place: str
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


def truth_from_objects(
    objects: Iterable[AnnotatedObject],
    size: tuple[int, int],
    labels: Mapping[str, int],
    problems: list[DatasetProblem],
) -> GroundTruth:
    """Return the objects whose class is known and whose box lies in the image, clipped to it.

    Args:
        objects: in the annotation's order.
        size: the image's (width, height).
        labels: label by class name.
        problems: gets a line for each object that is left out or cut.
    """
    kept: list[tuple[AnnotatedObject, Box]] = []
    for thing in objects:
        if thing.class_name not in labels:
            problems.append(_unknown_class(thing, labels))
            continue
        box = _box_in_image(thing, size, problems)
        if box is not None:
            kept.append((thing, box))
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [
        float(side.prod()) if thing.area is None else thing.area
        for (thing, _), side in zip(kept, sides, strict=True)
    ]
    return GroundTruth(
        boxes=boxes,
        labels=np.array([labels[thing.class_name] for thing, _ in kept], np.int64),
        difficult=np.array([thing.difficult for thing, _ in kept], bool),
        crowd=np.array([thing.crowd for thing, _ in kept], bool),
        areas=np.array(areas, np.float32),
    )


def _box_in_image(
    thing: AnnotatedObject, size: tuple[int, int], problems: list[DatasetProblem]
) -> Box | None:
    """Return the part of the box that lies in the image, or None and a problem."""
    x1, y1, x2, y2 = thing.box
    words = f"{thing.class_name} {x1:g}, {y1:g}, {x2:g}, {y2:g}"
    if not all(map(math.isfinite, thing.box)):
        problems.append(DatasetProblem(thing.place, f"{words}: not finite numbers", "not-a-number"))
        return None
    if x2 < x1 or y2 < y1:
        problems.append(DatasetProblem(thing.place, f"{words}: an inverted box", "inverted-box"))
        return None
    if min(x2 - x1, y2 - y1) < _LEAST_SIDE_PX:
        problems.append(DatasetProblem(thing.place, f"{words}: a box of zero area", "empty-box"))
        return None
    width, height = size
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if min(inside[2] - inside[0], inside[3] - inside[1]) < _LEAST_SIDE_PX:
        reason = f"{words}: outside the image of {width} x {height}"
        problems.append(DatasetProblem(thing.place, reason, "box-outside"))
        return None
    if max(abs(a - b) for a, b in zip(inside, thing.box, strict=True)) > _ROUNDING_PX:
        reason = f"{words}: partly outside the image of {width} x {height}, and cut at its edge"
        problems.append(DatasetProblem(thing.place, reason, "box-cut"))
    return inside


def _unknown_class(thing: AnnotatedObject, labels: Mapping[str, int]) -> DatasetProblem:
    alike = [name for name in labels if class_key(name) == class_key(thing.class_name)]
    known = f", but {alike[0]!r} is" if alike else ""
    reason = f"class {thing.class_name!r} is not among the classes{known}"
    return DatasetProblem(thing.place, reason, "unknown-class")


def class_key(name: str) -> str:
    """Return what is left of a class name without case, blanks, hyphens and underscores."""
    return "".join(name.casefold().split()).replace("_", "").replace("-", "")
