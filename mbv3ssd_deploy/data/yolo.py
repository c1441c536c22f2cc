"""Data sets described by YOLO's `data.yaml`: images, and a text file of boxes for each.

A label line is `class x_centre y_centre width height`, each a share of the image's width or
height, classes from 0; a longer line is a polygon `class x1 y1 x2 y2 ...`, whose box is used.
Labels of `.../images/NAME.jpg` are in `.../labels/NAME.txt`. Source: Ultralytics' description of
the format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mbv3ssd_deploy.data.dataset import (
    BACKGROUND,
    AnnotatedImage,
    AnnotatedObject,
    Box,
    Dataset,
    DatasetProblem,
    Split,
    check_class_names,
    checked_samples,
    dataset_from_samples,
    labels_by_name,
)
from mbv3ssd_deploy.data.images import IMAGE_EXTENSIONS
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class _Description:
    """What `data.yaml` says: class name by YOLO's number, image files or folders by split."""

    path: Path
    names: dict[int, str]
    parts: dict[Split, list[Path]]


def read_yolo(
    path: Path,
    split: Split,
    *,
    class_names: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read one split of the data set that a `data.yaml` describes.

    Its `path` counts from the file's own folder; `train`, `val` and `test` from there. Each is a
    folder (searched through), a text file with an image a line, or a list of these.

    Args:
        path: the `data.yaml`.
        split: which part; trainval joins train and val.
        class_names: by label, background first; by default `names` in its order.
        progress: called after every step.

    Raises:
        DatasetError: the file cannot be understood, the split is missing or empty, or nothing
            usable is left.
    """
    described = _read_description(path)
    problems: list[DatasetProblem] = []
    names = class_names or (BACKGROUND, *(name for _, name in sorted(described.names.items())))
    files = _images_of_split(described, split, problems)
    step = "reading labels"
    progress(step, 0, len(files))
    annotated = []
    stems = Counter(image.stem for image in files)
    for done, image in enumerate(files, start=1):
        found = _annotated(image, described.names, problems)
        if found is not None:
            many = stems[image.stem] > 1
            annotated.append(replace(found, image_id=str(image)) if many else found)
        progress(step, done, len(files))
    samples = list(checked_samples(annotated, labels_by_name(names), problems, progress))
    return dataset_from_samples(f"yolo:{path}", names, samples, problems)


def _read_description(path: Path) -> _Description:
    try:
        content = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError("no such file", where=str(path)) from None
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no such day
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error)
        raise DatasetError(f"not valid YAML: {reason}", where=where) from None
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(
            "the file has no 'names'",
            where=str(path),
            hint="a data.yaml holds path, train, val and names",
        )
    root = path.parent / str(content.get("path") or ".")
    parts = {
        split: _places(content[split.value], root)
        for split in (Split.TRAIN, Split.VAL, Split.TEST)
        if content.get(split.value)
    }
    return _Description(path, _names(content["names"], path), parts)


def _names(names: Any, path: Path) -> dict[int, str]:  # noqa: ANN401 -- any YAML value
    """Return class name by number of a list or a mapping."""
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if (
        not isinstance(numbered, dict)
        or not numbered
        or not all(isinstance(number, int) for number in numbered)
    ):
        raise DatasetError("'names' is neither a list nor numbers with names", where=str(path))
    stripped = {number: str(name).strip() for number, name in numbered.items()}
    check_class_names(stripped.values(), where=str(path))
    return stripped


def _places(value: Any, root: Path) -> list[Path]:  # noqa: ANN401 -- any YAML value
    values = value if isinstance(value, list) else [value]
    return [_place(str(entry), root) for entry in values]


def _place(entry: str, root: Path) -> Path:
    inside = entry.removeprefix("../")
    # Roboflow writes ../train/images into a data.yaml beside train
    return root / (entry if (root / entry).exists() or not (root / inside).exists() else inside)


def _images_of_split(
    described: _Description, split: Split, problems: list[DatasetProblem]
) -> list[Path]:
    wanted = (Split.TRAIN, Split.VAL) if split is Split.TRAINVAL else (split,)
    places = [place for part in wanted for place in described.parts.get(part, ())]
    if not places:
        raise DatasetError(
            f"no split {str(split)!r}; the file names {', '.join(described.parts) or 'none'}",
            where=str(described.path),
            hint=f"add a line '{split}: FOLDER' to it",
        )
    images: dict[Path, None] = {}
    for place in places:
        there = _images_at(place, described.path)
        for image in there:
            if image in images:
                problems.append(DatasetProblem(str(image), "listed twice", "duplicate-image"))
            images[image] = None
        if place.is_dir():
            problems += _labels_without_image(place, there)
    if not images:
        raise DatasetError("the split is empty: it has no image", where=", ".join(map(str, places)))
    return list(images)


def _images_at(place: Path, description: Path) -> Sequence[Path]:
    """Return the images of a folder and its subfolders, or those that a text file lists."""
    if place.is_dir():
        return sorted(
            file
            for file in place.rglob("*")
            if file.suffix.lower() in IMAGE_EXTENSIONS and not file.name.startswith(".")
        )
    if place.is_file() and place.suffix == ".txt":
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"the list cannot be read: {error}", where=str(place)) from error
        return [place.parent / line.strip() for line in lines if line.strip()]
    raise DatasetError(
        f"no such folder or list, but {description.name} names it",
        where=str(place),
        hint="'path' counts from the folder of data.yaml, and train, val and test from 'path'",
    )


def _labels_without_image(place: Path, images: Sequence[Path]) -> Iterator[DatasetProblem]:
    """Yield a problem for each label file of a folder that belongs to none of its images."""
    known = {_label_file(image) for image in images}
    for file in sorted(_label_file(place / "any").parent.rglob("*.txt")):
        if file not in known and _holds_labels(file):
            yield DatasetProblem(str(file), f"the image {file.stem} is missing", "missing-image")


def _holds_labels(file: Path) -> bool:
    """Return whether a text holds labels (numbers, or nothing at all), not a list of classes."""
    try:
        line = file.read_text(encoding="utf-8-sig").strip().partition("\n")[0]
        numbers = [float(word) for word in line.split()]
    except (OSError, ValueError):
        return False
    return not numbers or len(numbers) >= 5


def _annotated(
    image: Path, names: dict[int, str], problems: list[DatasetProblem]
) -> AnnotatedImage | None:
    """Return an image with what its label file says; None where that cannot be read."""
    labels = _label_file(image)
    if not labels.is_file():
        problems.append(DatasetProblem(str(image), f"{labels} is missing", "no-label-file"))
        return AnnotatedImage(image.stem, image, str(labels), (), relative=True)
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(
            DatasetProblem(str(labels), f"cannot be read: {error}", "broken-annotation")
        )
        return None
    objects = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            obj = _object_from(line, f"{labels}:{number}", names, problems)
            if obj is not None:
                objects.append(obj)
    return AnnotatedImage(image.stem, image, str(labels), tuple(objects), relative=True)


def _label_file(image: Path) -> Path:
    """Return the label file of an image: its last folder `images` becomes `labels`."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _object_from(
    line: str, place: str, names: dict[int, str], problems: list[DatasetProblem]
) -> AnnotatedObject | None:
    try:
        number, *shares = map(float, line.split())
    except ValueError:
        problems.append(DatasetProblem(place, f"{line!r} is not numbers", "broken-object"))
        return None
    box = _box_from(shares)
    if box is None:
        reason = f"{len(shares)} numbers behind the class: neither a box (4) nor a polygon"
        problems.append(DatasetProblem(place, reason, "broken-object"))
        return None
    if number not in names:
        reason = f"class {number:g} has no name"
        problems.append(DatasetProblem(place, reason, "unknown-class"))
        return None
    return AnnotatedObject(names[int(number)], box, place)


def _box_from(shares: Sequence[float]) -> Box | None:
    """Return the corners, in shares, of a box or around a polygon; None for anything else."""
    if len(shares) == 4:
        x, y, width, height = shares
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(shares) >= 6 and len(shares) % 2 == 0:
        return (min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2]))
    return None
