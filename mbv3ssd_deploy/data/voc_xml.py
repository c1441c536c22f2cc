"""One annotation file of Pascal VOC.

Expat is used directly, because a wrong annotation is reported with its line. Without a DOCTYPE
there are no entities to expand, so no small file can grow large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from mbv3ssd_deploy.data.dataset import AnnotatedObject, Box, DatasetProblem
from mbv3ssd_deploy.errors import FormatError


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """The content of an annotation file: objects, and the image's size if it is given."""

    objects: tuple[AnnotatedObject, ...]
    size: tuple[int, int] | None


def read_voc_annotation(path: Path, problems: list[DatasetProblem]) -> VocAnnotation:
    """Read one annotation file; the parts of an object (a person's head) are ignored.

    Args:
        path: the `.xml` file.
        problems: receives each object without a name or a complete box.

    Raises:
        FormatError: the file cannot be read, or is not an annotation in XML.
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
            obj = _object_from(element, path, problems)
            if obj is not None:
                objects.append(obj)
    return VocAnnotation(tuple(objects), _size_from(root))


def _size_from(root: XmlElement) -> tuple[int, int] | None:
    size = root.child("size")
    if size is None:
        return None
    try:
        return int(float(size.text_of("width"))), int(float(size.text_of("height")))
    except (ValueError, OverflowError):  # some tools leave it empty
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
        reason = f"{name}: xmin, ymin, xmax or ymax of <bndbox> is missing or not a number"
        problems.append(DatasetProblem(place, reason, "broken-object"))
        return None
    return AnnotatedObject(name, box, place, difficult=element.text_of("difficult") == "1")


def _check_blanks(
    element: XmlElement, name: str, place: str, problems: list[DatasetProblem]
) -> None:
    """Note a name with blanks around it; line breaks come from indentation."""
    written = element.child("name")
    if written is not None and written.text != name and "\n" not in written.text:
        reason = f"{written.text!r} is read as {name!r}"
        problems.append(DatasetProblem(place, reason, "blank-in-class"))


def _box_from(element: XmlElement) -> Box:
    """Return continuous corners from inclusive ones; ValueError if a number is missing."""
    xmin, ymin, xmax, ymax = (
        float(element.text_of(name)) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    # xmin = xmax would be one pixel wide; tools write it for an empty box
    x1 = xmin if xmin == xmax else xmin - 1
    y1 = ymin if ymin == ymax else ymin - 1
    # an inverted box must stay one: 10..9 would otherwise become 9..9
    return (xmin if xmin > xmax else x1, ymin if ymin > ymax else y1, xmax, ymax)


@dataclass(slots=True)
class XmlElement:
    """An XML element with the number of its line."""

    tag: str
    line: int
    text: str = ""
    children: list[XmlElement] = field(default_factory=list)

    def child(self, tag: str) -> XmlElement | None:
        """Return the first child with the tag, or None."""
        return next((child for child in self.children if child.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """Return the stripped text of the first child with the tag; "" if there is none."""
        child = self.child(tag)
        return child.text.strip() if child else ""


def parse_xml(data: bytes) -> XmlElement:
    """Return the root element of the document.

    Raises:
        FormatError: not XML, or with a DOCTYPE; `where` is "line N".
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = XmlElement("", 0)
    stack = [top]

    def start(tag: str, _attributes: dict[str, str]) -> None:
        element = XmlElement(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def text(characters: str) -> None:
        stack[-1].text += characters

    def doctype(*_facts: object) -> None:
        raise FormatError(
            "the file has a DOCTYPE, which annotations do not need",
            where=f"line {parser.CurrentLineNumber}",
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)  # noqa: FBT003 -- expat's own signature
    except expat.ExpatError as error:
        raise FormatError(
            f"not valid XML: {expat.ErrorString(error.code)}", where=f"line {error.lineno}"
        ) from None
    except (ValueError, LookupError) as error:
        raise FormatError(
            f"the encoding that the XML declares cannot be read: {error}", where="line 1"
        ) from None
    return top.children[0]
