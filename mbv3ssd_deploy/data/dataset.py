"""A data set in memory: where the images lie, what is in them, and what was wrong with it."""

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


class Split(enum.StrEnum):
    """Which part of a data set is asked for; each format has its own way of naming them."""

    TRAIN = "train"
    VAL = "val"
    TRAINVAL = "trainval"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its objects. The image itself is read when it is needed.

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
    """Something in the annotations that was left out.

    Attributes:
        place: file, and line where there is one.
        reason: one clause, e.g. "a box of zero area".
        kind: a short code to count by, e.g. "empty-box".
    """

    place: str
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one split.

    Attributes:
        name: what it was read from, as the user wrote it.
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


BACKGROUND = "background"
"""Label 0 of every data set; nobody annotates it."""

_BACKGROUND_KEYS = frozenset({"background", "bg"})


def class_names_found(names: Mapping[str, str], *, where: str) -> tuple[str, ...]:
    """Return "background" and the names sorted.

    Args:
        names: class name -> the place where it was first seen.
        where: the data set, for the message.

    Raises:
        DatasetError: none, two that differ by case or blank only, or one that means background.
    """
    if not names:
        raise DatasetError(
            "no annotation names a class",
            where=where,
            hint="draw boxes first, or list the classes in labels.txt, one a line",
        )
    check_class_names(sorted(names), where=where, places=names)
    return (BACKGROUND, *sorted(names))


def read_class_list(path: Path) -> tuple[str, ...]:
    """Return "background" and the names of a file with one a line, which may begin with it.

    Raises:
        DatasetError: it cannot be read, is empty, or its names are not distinct.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the list of classes cannot be read: {error}", where=str(path)) from (
            error
        )
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
    """Refuse names that a person would take for each other, or for the background.

    Args:
        names: without the background.
        where: for the message.
        places: where each name was first seen, when that is known.

    Raises:
        DatasetError: names every pair.
    """
    seen: dict[str, str] = {}
    clashes = []
    for name in names:
        key = class_key(name)
        if key in _BACKGROUND_KEYS:
            clashes.append(f"{_named(name, places)} means the background, which nobody annotates")
        elif key in seen:
            both = f"{_named(seen[key], places)} and {_named(name, places)}"
            clashes.append(f"{both} differ by case or blank only" if name != seen[key] else both)
        seen.setdefault(key, name)
    if clashes:
        raise DatasetError(
            "class names that cannot be told apart:\n  " + "\n  ".join(clashes),
            where=where,
            hint="rename one of each pair in the annotations",
        )


def labels_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """Return the label of each class but the background; `class_names` has it first.

    Raises:
        ValueError: the first name is not the background's.
    """
    if not class_names or class_names[0] != BACKGROUND:
        raise ValueError(f"class names begin with {BACKGROUND!r}, not {class_names[:1]}")
    return {name: label for label, name in enumerate(class_names) if label}


def _named(name: str, places: Mapping[str, str] | None) -> str:
    return f"{name!r} ({places[name]})" if places and name in places else repr(name)


PROBLEM_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "split-made": "no split is named, so one was made",
        "missing-split": "not every folder has this split",
        "missing-image": "annotations without an image, left out",
        "missing-annotation": "images without an annotation, left out",
        "no-label-file": "images without a label file, taken as images without objects",
        "broken-annotation": "annotations that cannot be read, left out",
        "broken-image": "images that cannot be read, left out",
        "duplicate-image": "images that are there twice, kept once",
        "size-mismatch": "annotations drawn for an image of another size, left out",
        "category-holes": "category ids with holes, numbered anew",
        "empty-class": "folders without an image, taken for no class",
        "broken-object": "objects that cannot be read, left out",
        "blank-in-class": "class names with blanks around them, taken off",
        "unknown-class": "objects of a class that is unknown or not asked for, left out",
        "not-a-number": "boxes that are no numbers, left out",
        "inverted-box": "inverted boxes, left out",
        "empty-box": "boxes of zero area, left out",
        "box-outside": "boxes outside their image, left out",
        "box-cut": "boxes partly outside their image, cut at its edge",
    }
)
"""What each `DatasetProblem.kind` means; a summary keeps this order."""

_NOTICES = frozenset({"split-made", "missing-split", "category-holes"})
"""Nothing is lost by these; they are said without a count."""


def summary_of_problems(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return a line per kind: how many, what it means, and the first case with its place."""
    counts = Counter(problem.kind for problem in problems)
    first: dict[str, DatasetProblem] = {}
    for problem in problems:
        first.setdefault(problem.kind, problem)
    order = [kind for kind in PROBLEM_KINDS if kind in counts]
    order += sorted(set(counts) - set(PROBLEM_KINDS))
    return tuple(_line(kind, counts[kind], first[kind]) for kind in order)


def summary_of_training(
    train: Sequence[DatasetProblem], val: Sequence[DatasetProblem]
) -> tuple[str, ...]:
    """Return the lines of two parts, each saying of which it is, once where it is of both."""
    of_train, of_val = summary_of_problems(train), summary_of_problems(val)
    both = [line for line in of_train if line in of_val]
    return (
        *(f"training and validation data: {line}" for line in both),
        *(f"training data: {line}" for line in of_train if line not in both),
        *(f"validation data: {line}" for line in of_val if line not in both),
        *remark_on_more((*train, *val)),
    )


def remark_on_more(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return how to see what a summary does not name; nothing where it names all."""
    hidden = len(set(problems)) - len({problem.kind for problem in problems})
    return ("-v names every case, with its file",) if hidden else ()


def every_problem(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return a line for each problem, once."""
    return tuple(dict.fromkeys(f"{problem.place}: {problem.reason}" for problem in problems))


def _line(kind: str, count: int, first: DatasetProblem) -> str:
    meaning = PROBLEM_KINDS.get(kind, kind)
    if count == 1 and kind in _NOTICES:
        return f"{meaning}; {first.place}: {first.reason}"
    named = "first: " if count > 1 else ""
    return f"{count} x {meaning}; {named}{first.place}: {first.reason}"


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and what its annotation says, before either is checked against the other.

    Attributes:
        image_id: its name in the data set.
        image_path: the file.
        place: where the annotation stands.
        objects: in the annotation's order.
        declared_size: (width, height) that the annotation gives, if any.
        relative: the boxes are shares of the image's width and height, not pixels.
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
    """Yield a sample for each image that can be read and is as large as its annotation says.

    Args:
        images: in the data set's order.
        labels: label by class name.
        problems: gets a line for everything that is left out.
        progress: told after each image.
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
    """Return the data set; without a sample or without an object there is none.

    Raises:
        DatasetError: nothing is left; the message sums up why.
    """
    summary = summary_of_problems(problems)
    if not samples:
        raise DatasetError(f"not one image can be used{_as_reasons(summary)}", where=name)
    if not any(len(sample.truth) for sample in samples):
        raise DatasetError(
            f"not one object is annotated in {len(samples)} images{_as_reasons(summary)}",
            where=name,
        )
    return Dataset(name, class_names, tuple(samples), tuple(problems))


def _as_reasons(summary: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in summary)


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


def _objects_in_pixels(image: AnnotatedImage, size: tuple[int, int]) -> tuple[AnnotatedObject, ...]:
    if not image.relative:
        return image.objects
    width, height = size
    return tuple(
        replace(
            thing,
            box=(
                thing.box[0] * width,
                thing.box[1] * height,
                thing.box[2] * width,
                thing.box[3] * height,
            ),
        )
        for thing in image.objects
    )
