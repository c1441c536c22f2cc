"""One annotation file of Pascal VOC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.data.dataset import DatasetProblem
from mbv3ssd_deploy.data.objects import AnnotatedObject, Box
from mbv3ssd_deploy.data.xml_tree import XmlElement, parse_xml
from mbv3ssd_deploy.errors import FormatError


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """What an annotation file says: the objects, and the image's size where it gives one."""

    objects: tuple[AnnotatedObject, ...]
    size: tuple[int, int] | None


def read_voc_annotation(path: Path, problems: list[DatasetProblem]) -> VocAnnotation:
    """Read one annotation file; parts of objects (a person's head) are not objects here.

    Args:
        path: the `.xml` file.
        problems: gets a line for each object that has no name or no complete box.

    Raises:
        FormatError: the file cannot be read, is no XML, or is no annotation.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        root = parse_xml(data)
    except FormatError as error:
        line = error.where.removeprefix("line ")
        raise FormatError(error.message, where=f"{path}:{line}") from None
    if root.tag != "annotation":
        raise FormatError(f"the root is <{root.tag}>, not <annotation>", where=f"{path}:1")
    objects = []
    for element in root.children:
        if element.tag == "object":
            thing = _object_from(element, path, problems)
            if thing is not None:
                objects.append(thing)
    return VocAnnotation(tuple(objects), _size_from(root))


def _size_from(root: XmlElement) -> tuple[int, int] | None:
    size = root.child("size")
    if size is None:
        return None
    try:
        return int(float(size.text_of("width"))), int(float(size.text_of("height")))
    except (ValueError, OverflowError):  # left empty by some tools: the image knows better
        return None


def _object_from(
    element: XmlElement, path: Path, problems: list[DatasetProblem]
) -> AnnotatedObject | None:
    place = f"{path}:{element.line}"
    name = element.text_of("name")
    if not name:
        problems.append(DatasetProblem(place, "an object without a name", "broken-object"))
        return None
    _check_blanks(element, name, place, problems)
    box_element = element.child("bndbox")
    if box_element is None:
        problems.append(DatasetProblem(place, f"{name} has no <bndbox>", "broken-object"))
        return None
    place = f"{path}:{box_element.line}"
    try:
        box = _box_from(box_element)
    except ValueError:
        reason = f"{name}: <bndbox> lacks xmin, ymin, xmax or ymax, or one is no number"
        problems.append(DatasetProblem(place, reason, "broken-object"))
        return None
    return AnnotatedObject(name, box, place, difficult=element.text_of("difficult") == "1")


def _check_blanks(
    element: XmlElement, name: str, place: str, problems: list[DatasetProblem]
) -> None:
    """Count a name with blanks around it; line breaks come from indentation and mean nothing."""
    written = element.child("name")
    if written is not None and written.text != name and "\n" not in written.text:
        reason = f"{written.text!r} is read as {name!r}"
        problems.append(DatasetProblem(place, reason, "blank-in-class"))


def _box_from(element: XmlElement) -> Box:
    """Return the continuous corners of inclusive ones; ValueError where a number is missing."""
    xmin, ymin, xmax, ymax = (
        float(element.text_of(name)) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    # one pixel is as thin as this convention can say; whoever wrote xmin = xmax meant nothing
    x1 = xmin if xmin == xmax else xmin - 1
    y1 = ymin if ymin == ymax else ymin - 1
    # an inverted box must stay one: 10..9 would otherwise become 9..9
    return (xmin if xmin > xmax else x1, ymin if ymin > ymax else y1, xmax, ymax)
