"""Data sets in memory: samples, their class names, and what was wrong with the annotations.

Every reader turns its format into `AnnotatedImage`s; one rule for all formats then checks sizes,
boxes and classes, and lists in `Dataset.problems` whatever is left out.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mbv3ssd_deploy.core.truth import GroundTruth
from mbv3ssd_deploy.data.images import read_image_size
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress

BACKGROUND = "background"
"""Label 0 of every data set; never annotated."""
_BACKGROUND_KEYS = frozenset({"background", "bg"})

Box = tuple[float, float, float, float]
"""Corners x1, y1, x2, y2 in pixels with continuous edges."""
_ROUNDING_PX = 1.0
"""A box may leave the image by this much without a remark: conventions differ by one pixel."""
_LEAST_SIDE_PX = 0.01
"""A thinner box has no area: rounding to float32 could make it vanish."""


class Split(enum.StrEnum):
    """A part of a data set; each format has its own way of naming them."""

    TRAIN = "train"
    VAL = "val"
    TRAINVAL = "trainval"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its objects; the image itself is read when it is needed.

    Attributes:
        image_id: its name in the data set (VOC's file stem, COCO's id as text).
        image_path: the file.
        width: in pixels.
        height: in pixels.
        truth: the objects.
    """

    image_id: str
    image_path: Path
    width: int
    height: int
    truth: GroundTruth


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """Something in the annotations that was left out or changed.

    Attributes:
        place: file, and line where there is one.
        reason: one clause, e.g. "a box of zero area".
        kind: a key of `PROBLEM_KINDS`.
    """

    place: str
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one split.

    Attributes:
        name: the source as the user wrote it.
        class_names: by label; `class_names[0]` is "background".
        samples: in the order of the data set's own list.
        problems: what was left out, in the order of reading.
    """

    name: str
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    problems: tuple[DatasetProblem, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One object as annotated, not yet checked.

    Attributes:
        class_name: without blanks around it.
        box: corners; may be inverted, not finite or outside the image.
        place: file and line.
        difficult: VOC's flag.
        crowd: COCO's flag.
        area: of the segmentation in square pixels, if there is one.
    """

    class_name: str
    box: Box
    place: str
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and its annotation, not yet compared with each other.

    Attributes:
        image_id: its name in the data set.
        image_path: the file.
        place: where the annotation is.
        objects: in the annotation's order.
        declared_size: (width, height) in the annotation, if any.
        relative: whether boxes are fractions of width and height instead of pixels.
    """

    image_id: str
    image_path: Path
    place: str
    objects: tuple[AnnotatedObject, ...]
    declared_size: tuple[int, int] | None = None
    relative: bool = False


def checked_samples(
    images: Sequence[AnnotatedImage],
    labels: Mapping[str, int],
    problems: list[DatasetProblem],
    progress: Progress,
) -> Iterator[Sample]:
    """Yield a sample for each image that is readable and has the size of its annotation.

    Args:
        images: in the data set's order.
        labels: label by class name.
        problems: receives everything that is left out.
        progress: called after each image.
    """
    step = "reading image sizes"
    progress(step, 0, len(images))
    for done, image in enumerate(images, start=1):
        size = _checked_size(image, problems)
        if size is not None:
            objects = _objects_in_pixels(image, size)
            truth = truth_from_objects(objects, size, labels, problems)
            yield Sample(image.image_id, image.image_path, *size, truth)
        progress(step, done, len(images))


def dataset_from_samples(
    name: str,
    class_names: tuple[str, ...],
    samples: Sequence[Sample],
    problems: Sequence[DatasetProblem],
) -> Dataset:
    """Return the data set of `samples`.

    Raises:
        DatasetError: no sample, or no object; the message summarises `problems`.
    """
    reasons = "".join(f"\n  {line}" for line in summary_of_problems(problems))
    if not samples:
        raise DatasetError(f"no image can be used{reasons}", where=name)
    if not any(len(sample.truth) for sample in samples):
        raise DatasetError(f"no object is annotated in {len(samples)} images{reasons}", where=name)
    return Dataset(name, class_names, tuple(samples), tuple(problems))


def _checked_size(image: AnnotatedImage, problems: list[DatasetProblem]) -> tuple[int, int] | None:
    try:
        size = read_image_size(image.image_path)
    except DatasetError as error:
        kind = "broken-image" if image.image_path.exists() else "missing-image"
        problems.append(DatasetProblem(str(image.image_path), error.message, kind))
        return None
    declared = image.declared_size
    if declared is not None and min(declared) > 0 and declared != size:
        reason = (
            f"drawn for an image of {declared[0]} x {declared[1]}, "
            f"but {image.image_path.name} has {size[0]} x {size[1]} pixels"
        )
        problems.append(DatasetProblem(image.place, reason, "size-mismatch"))
        return None
    return size


def _objects_in_pixels(image: AnnotatedImage, size: tuple[int, int]) -> Iterator[AnnotatedObject]:
    width, height = size if image.relative else (1, 1)
    for obj in image.objects:
        x1, y1, x2, y2 = obj.box
        yield replace(obj, box=(x1 * width, y1 * height, x2 * width, y2 * height))


def truth_from_objects(
    objects: Iterable[AnnotatedObject],
    size: tuple[int, int],
    labels: Mapping[str, int],
    problems: list[DatasetProblem],
) -> GroundTruth:
    """Return the objects of known classes whose boxes are in the image, clipped to it.

    Args:
        objects: in the annotation's order.
        size: the image's (width, height).
        labels: label by class name.
        problems: receives each object that is left out or clipped.
    """
    kept: list[tuple[AnnotatedObject, Box]] = []
    for obj in objects:
        if obj.class_name not in labels:
            problems.append(_unknown_class(obj, labels))
            continue
        box = _box_in_image(obj, size, problems)
        if box is not None:
            kept.append((obj, box))
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    areas = [
        float(side.prod()) if obj.area is None else obj.area
        for (obj, _), side in zip(kept, boxes[:, 2:] - boxes[:, :2], strict=True)
    ]
    return GroundTruth(
        boxes=boxes,
        labels=np.array([labels[obj.class_name] for obj, _ in kept], np.int64),
        difficult=np.array([obj.difficult for obj, _ in kept], bool),
        crowd=np.array([obj.crowd for obj, _ in kept], bool),
        areas=np.array(areas, np.float32),
    )


def _box_in_image(
    obj: AnnotatedObject, size: tuple[int, int], problems: list[DatasetProblem]
) -> Box | None:
    """Return the part of the box that is in the image, or None and a problem."""

    def note(reason: str, kind: str) -> None:
        text = f"{obj.class_name} {x1:g}, {y1:g}, {x2:g}, {y2:g}: {reason}"
        problems.append(DatasetProblem(obj.place, text, kind))

    x1, y1, x2, y2 = obj.box
    if not all(map(math.isfinite, obj.box)):
        note("not finite numbers", "not-a-number")
        return None
    if x2 < x1 or y2 < y1:
        note("an inverted box", "inverted-box")
        return None
    if min(x2 - x1, y2 - y1) < _LEAST_SIDE_PX:
        note("a box of zero area", "empty-box")
        return None
    width, height = size
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if min(inside[2] - inside[0], inside[3] - inside[1]) < _LEAST_SIDE_PX:
        note(f"outside the image of {width} x {height}", "box-outside")
        return None
    if max(abs(a - b) for a, b in zip(inside, obj.box, strict=True)) > _ROUNDING_PX:
        note(f"partly outside the image of {width} x {height}, clipped to it", "box-cut")
    return inside


def _unknown_class(obj: AnnotatedObject, labels: Mapping[str, int]) -> DatasetProblem:
    similar = [name for name in labels if class_key(name) == class_key(obj.class_name)]
    known = f", but {similar[0]!r} is" if similar else ""
    reason = f"class {obj.class_name!r} is not among the classes{known}"
    return DatasetProblem(obj.place, reason, "unknown-class")


# Class names


def class_key(name: str) -> str:
    """Return a class name without case, blanks, hyphens and underscores."""
    return "".join(name.casefold().split()).replace("_", "").replace("-", "")


def class_names_found(names: Mapping[str, str], *, where: str) -> tuple[str, ...]:
    """Return "background" and the names sorted.

    Args:
        names: class name -> the place of its first object.
        where: the data set, for the message.

    Raises:
        DatasetError: no names, names that differ by case or blanks only, or "background".
    """
    if not names:
        raise DatasetError(
            "no annotation has a class name",
            where=where,
            hint="draw boxes first, or list the classes in labels.txt, one per line",
        )
    check_class_names(sorted(names), where=where, places=names)
    return (BACKGROUND, *sorted(names))


def read_class_list(path: Path) -> tuple[str, ...]:
    """Return "background" and the names in a file with one per line.

    Raises:
        DatasetError: the file cannot be read, is empty, or has duplicate names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"the list of classes cannot be read: {error}", where=str(path)
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if names and class_key(names[0]) in _BACKGROUND_KEYS:
        names = names[1:]
    if not names:
        raise DatasetError("the list of classes is empty", where=str(path))
    check_class_names(names, where=str(path))
    return (BACKGROUND, *names)


def check_class_names(
    names: Iterable[str], *, where: str, places: Mapping[str, str] | None = None
) -> None:
    """Check that names are distinct for a person too, and none is the background.

    Args:
        names: without the background.
        where: for the message.
        places: where each name was found, if known.

    Raises:
        DatasetError: every pair is named.
    """

    def shown(name: str) -> str:
        return f"{name!r} ({places[name]})" if places and name in places else repr(name)

    first: dict[str, str] = {}
    clashes = []
    for name in names:
        key = class_key(name)
        if key in _BACKGROUND_KEYS:
            clashes.append(f"{shown(name)} is the background, which is never annotated")
        elif key in first:
            both = f"{shown(first[key])} and {shown(name)}"
            clashes.append(f"{both} differ by case or blanks only" if name != first[key] else both)
        first.setdefault(key, name)
    if clashes:
        raise DatasetError(
            "duplicate class names:\n  " + "\n  ".join(clashes),
            where=where,
            hint="rename one of each pair in the annotations",
        )


def labels_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """Return the label of each class except the background, which `class_names` has first.

    Raises:
        ValueError: the first name is not the background's.
    """
    if not class_names or class_names[0] != BACKGROUND:
        raise ValueError(f"class names begin with {BACKGROUND!r}, not {class_names[:1]}")
    return {name: label for label, name in enumerate(class_names) if label}


# Summaries of problems

PROBLEM_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "split-made": "the data names no split, so one was made",
        "missing-split": "not every folder has this split",
        "missing-image": "annotations without an image, left out",
        "missing-annotation": "images without an annotation, left out",
        "no-label-file": "images without a label file, used as images without objects",
        "broken-annotation": "annotations that cannot be read, left out",
        "broken-image": "images that cannot be read, left out",
        "duplicate-image": "duplicate images, used once",
        "size-mismatch": "annotations drawn for an image of another size, left out",
        "category-holes": "category ids with gaps, renumbered",
        "empty-class": "folders without an image, not used as a class",
        "broken-object": "objects that cannot be read, left out",
        "blank-in-class": "class names with blanks around them, removed",
        "unknown-class": "objects of a class that is unknown or not selected, left out",
        "not-a-number": "boxes that are not numbers, left out",
        "inverted-box": "inverted boxes, left out",
        "empty-box": "boxes of zero area, left out",
        "box-outside": "boxes outside their image, left out",
        "box-cut": "boxes partly outside their image, clipped to it",
    }
)
"""What each `DatasetProblem.kind` means; a summary keeps this order."""
_NOTICES = frozenset({"split-made", "missing-split", "category-holes"})
"""Kinds that lose nothing; they are not counted."""


def summary_of_problems(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return a line per kind: how many, what it means, and the first case with its place."""
    counts = Counter(problem.kind for problem in problems)
    first: dict[str, DatasetProblem] = {}
    for problem in problems:
        first.setdefault(problem.kind, problem)
    order = [kind for kind in PROBLEM_KINDS if kind in counts]
    order += sorted(set(counts) - set(PROBLEM_KINDS))
    return tuple(_summary_line(kind, counts[kind], first[kind]) for kind in order)


def summary_of_training(
    train: Sequence[DatasetProblem], val: Sequence[DatasetProblem]
) -> tuple[str, ...]:
    """Return the lines of both parts, each with its part; a line of both parts once."""
    of_train, of_val = summary_of_problems(train), summary_of_problems(val)
    both = [line for line in of_train if line in of_val]
    return (
        *(f"training and validation data: {line}" for line in both),
        *(f"training data: {line}" for line in of_train if line not in both),
        *(f"validation data: {line}" for line in of_val if line not in both),
        *remark_on_more((*train, *val)),
    )


def remark_on_more(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return how to list every case, if a summary does not."""
    hidden = len(set(problems)) - len({problem.kind for problem in problems})
    return ("-v lists every case with its file",) if hidden else ()


def every_problem(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return a line for each distinct problem."""
    return tuple(dict.fromkeys(f"{problem.place}: {problem.reason}" for problem in problems))


def _summary_line(kind: str, count: int, first: DatasetProblem) -> str:
    meaning = PROBLEM_KINDS.get(kind, kind)
    if count == 1 and kind in _NOTICES:
        return f"{meaning}; {first.place}: {first.reason}"
    named = "first: " if count > 1 else ""
    return f"{count} x {meaning}; {named}{first.place}: {first.reason}"
