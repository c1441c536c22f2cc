"""Data sets in COCO's format: a JSON file of instances, and a folder of images.

Boxes are x, y, width, height in pixels with continuous edges (cocodataset.org, data format).
Category ids need not be consecutive; labels are numbered from 1 in the order of the ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from mbv3ssd_deploy.data.hash_split import SPLIT_SEED, belongs_to, made_half
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent

_SPLIT = "{split}"


def read_coco(
    place: str,
    split: Split,
    *,
    class_names: tuple[str, ...] | None = None,
    seed: int = SPLIT_SEED,
    progress: Progress = silent,
) -> Dataset:
    """Read a split of COCO instances.

    `{split}` in one of the two names is replaced by train, val or test, and trainval joins train
    and val. Without it, trainval and test are the whole file, and train and val are made by a hash
    of the image ids.

    Args:
        place: the JSON file, a comma, and the folder that `file_name` counts from.
        split: which part.
        class_names: by label, background first; by default the categories in the order of ids.
        seed: of the split that is made.
        progress: called after every image.

    Raises:
        DatasetError: a file is missing or not in COCO's format, categories are duplicates, or no
            image is usable.
    """
    name = f"coco:{place}"
    annotations, images = _file_and_folder(place)
    problems: list[DatasetProblem] = []
    annotated: list[AnnotatedImage] = []
    names = class_names
    parts = _parts(place, split)
    for part in parts:
        folder = Path(images.replace(_SPLIT, part))
        if not folder.is_dir():
            raise DatasetError("no such folder of images", where=str(folder))
        file = read_coco_file(Path(annotations.replace(_SPLIT, part)), problems)
        categories = _categories_by_id(file, problems)
        found = (BACKGROUND, *categories.values())
        if names is None:
            names = found
        elif class_names is None and names != found:
            raise DatasetError("train and val list different categories", where=str(file.path))
        kept = file.images
        if _SPLIT not in place:
            kept = _part_of_one_file(file, split, seed, problems)
        prefix = f"{part}/" if len(parts) > 1 else ""  # ids of two files may be the same
        annotated += [
            replace(image, image_id=prefix + image.image_id)
            for image in _annotated(file, kept, folder, categories, problems)
        ]
    names = names or (BACKGROUND,)
    samples = list(checked_samples(annotated, labels_by_name(names), problems, progress))
    return dataset_from_samples(name, names, samples, problems)


def _file_and_folder(place: str) -> tuple[str, str]:
    annotations, comma, images = place.partition(",")
    if not annotations or not comma or not images or "," in images:
        raise DatasetError(
            "a COCO data set needs a file and a folder",
            where=f"coco:{place}",
            hint="write coco:ANNOTATIONS.json,IMAGES with the folder of the images",
        )
    return annotations, images


def _parts(place: str, split: Split) -> tuple[Split, ...]:
    if split is Split.TRAINVAL and _SPLIT in place:
        return (Split.TRAIN, Split.VAL)
    return (split,)


def _part_of_one_file(
    file: CocoFile, split: Split, seed: int, problems: list[DatasetProblem]
) -> Mapping[int, Record]:
    """Return the images of a split; train and val are made here, the others are the whole file."""
    if split not in (Split.TRAIN, Split.VAL):
        return file.images
    reason = (
        "one file for all splits: the hash of each image id decides, "
        f"about 85 % train, 15 % val (seed {seed})"
    )
    problems.append(DatasetProblem(str(file.path), reason, "split-made"))
    return {
        number: record
        for number, record in file.images.items()
        if belongs_to(made_half(str(number), seed), split)
    }


def _categories_by_id(file: CocoFile, problems: list[DatasetProblem]) -> dict[int, str]:
    """Return name by id, in the order of the ids; note gaps.

    Raises:
        DatasetError: duplicate categories, or one that is the background.
    """
    names = dict(sorted(file.categories.items()))
    check_class_names(names.values(), where=str(file.path))
    if list(names) != list(range(1, len(names) + 1)):
        reason = (
            f"{len(names)} categories have ids from {min(names)} to {max(names)}: "
            f"their labels are 1 to {len(names)}, in the order of the ids"
        )
        problems.append(DatasetProblem(str(file.path), reason, "category-holes"))
    return names


def _annotated(
    file: CocoFile,
    images: Mapping[int, Record],
    folder: Path,
    categories: Mapping[int, str],
    problems: list[DatasetProblem],
) -> Sequence[AnnotatedImage]:
    objects = _objects_by_image(file, images.keys(), categories, problems)
    return [
        AnnotatedImage(
            image_id=str(number),
            image_path=folder / record["file_name"],
            place=f"{file.path}: image {number}",
            objects=tuple(objects.get(number, ())),
            declared_size=_declared_size(record),
        )
        for number, record in images.items()
    ]


def _objects_by_image(
    file: CocoFile,
    selected: Iterable[int],
    categories: Mapping[int, str],
    problems: list[DatasetProblem],
) -> dict[int, list[AnnotatedObject]]:
    """Return the objects of the selected images; note those of images that are not listed."""
    found: dict[int, list[AnnotatedObject]] = {number: [] for number in selected}
    for record in file.annotations:
        place = f"{file.path}: annotation {record.get('id', '?')}"
        number, category = record.get("image_id"), record.get("category_id")
        if not isinstance(number, int) or number not in file.images:
            reason = f"its image {number} is not listed"
            problems.append(DatasetProblem(place, reason, "missing-image"))
        elif number in found:
            class_name = categories.get(category) if isinstance(category, int) else None
            obj = _object_from(record, class_name, place, problems)
            if obj is not None:
                found[number].append(obj)
    return found


def _object_from(
    record: Record, class_name: str | None, place: str, problems: list[DatasetProblem]
) -> AnnotatedObject | None:
    if class_name is None:
        reason = f"no category {record.get('category_id')}"
        problems.append(DatasetProblem(place, reason, "unknown-class"))
        return None
    box = box_from(record.get("bbox"))
    if box is None:
        reason = f"{class_name}: bbox is not x, y, width, height"
        problems.append(DatasetProblem(place, reason, "broken-object"))
        return None
    area = number_from(record.get("area"))
    return AnnotatedObject(
        class_name,
        box,
        place,
        crowd=bool(record.get("iscrowd", 0)),
        area=area if area is not None and area > 0 else None,
    )


def _declared_size(record: Record) -> tuple[int, int] | None:
    width, height = record.get("width"), record.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    return None


Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A file of instances.

    Attributes:
        path: the file.
        categories: name by id.
        images: record by id, each with a `file_name`.
        annotations: records, not yet checked.
    """

    path: Path
    categories: Mapping[int, str]
    images: Mapping[int, Record]
    annotations: Sequence[Record]


def read_coco_file(path: Path, problems: list[DatasetProblem]) -> CocoFile:
    """Read a file of instances.

    Args:
        path: the JSON file.
        problems: receives each duplicate image, and each without a file name.

    Raises:
        DatasetError: the file is missing, not JSON, or not a file of instances.
    """
    content = _read_json(path)
    images, categories, annotations = (
        _records(content, part, path) for part in ("images", "categories", "annotations")
    )
    return CocoFile(
        path,
        _categories(categories, path),
        _images(images, path, problems),
        annotations,
    )


def box_from(bbox: object) -> Box | None:
    """Return the corners of [x, y, width, height], or None if these are not four numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, width, height = map(number_from, bbox)
    if x is None or y is None or width is None or height is None:
        return None
    return (x, y, x + width, y + height)


def number_from(value: object) -> float | None:
    """Return a JSON number as float, or None if it is not a number or too large."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError("no such file of annotations", where=str(path)) from None
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise DatasetError(f"not valid JSON: {error.msg}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"not valid JSON: {error}", where=str(path)) from None


def _records(content: object, part: str, path: Path) -> list[Record]:
    records = content.get(part) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(
            f"the file has no list of {part!r}",
            where=str(path),
            hint="a COCO file of instances holds images, annotations and categories; "
            "results of a detector and captions do not",
        )
    return records


def _categories(records: Sequence[Record], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for record in records:
        number, name = record.get("id"), record.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            raise DatasetError(f"a category without id or name: {dict(record)}", where=str(path))
        if number in names:
            raise DatasetError(
                f"category id {number} has the names {names[number]!r} and {name!r}",
                where=str(path),
            )
        names[number] = name.strip()
    if not names:
        raise DatasetError("the list of categories is empty", where=str(path))
    return names


def _images(
    records: Sequence[Record], path: Path, problems: list[DatasetProblem]
) -> dict[int, Record]:
    images: dict[int, Record] = {}
    for index, record in enumerate(records):
        number, file_name = record.get("id"), record.get("file_name")
        if not isinstance(number, int) or not isinstance(file_name, str):
            place, reason = f"{path}: images[{index}]", "an image without id or file_name"
            problems.append(DatasetProblem(place, reason, "missing-image"))
        elif number in images:
            reason = f"{file_name} has the id of {images[number]['file_name']}"
            problems.append(DatasetProblem(f"{path}: image {number}", reason, "duplicate-image"))
        else:
            images[number] = record
    return images
