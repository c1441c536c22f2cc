"""COCO's JSON file of instances: read, and checked for the parts that everything hangs on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbv3ssd_deploy.data.dataset import DatasetProblem
from mbv3ssd_deploy.data.objects import Box
from mbv3ssd_deploy.errors import DatasetError

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A file of instances.

    Attributes:
        path: where it lies.
        categories: name by id.
        images: record by id, each with a `file_name`.
        annotations: records as they stand, not yet checked.
    """

    path: Path
    categories: Mapping[int, str]
    images: Mapping[int, Record]
    annotations: Sequence[Record]


def read_coco_file(path: Path, problems: list[DatasetProblem]) -> CocoFile:
    """Read a file of instances.

    Args:
        path: the JSON file.
        problems: gets a line for each image that is listed twice or has no file name.

    Raises:
        DatasetError: it is missing, no JSON, or no file of instances.
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
    """Return the corners of [x, y, width, height], or None where it is not four numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, width, height = map(number_from, bbox)
    if x is None or y is None or width is None or height is None:
        return None
    return (x, y, x + width, y + height)


def number_from(value: object) -> float | None:
    """Return a JSON number as float, or None where it is none or too large for one."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError("there is no such file of annotations", where=str(path)) from None
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise DatasetError(f"the file is no JSON: {error.msg}", where=where) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"the file is no JSON: {error}", where=str(path)) from None


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
                f"category id {number} stands for {names[number]!r} and {name!r}", where=str(path)
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
