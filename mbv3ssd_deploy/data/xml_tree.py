"""XML as a plain tree that knows its line numbers; documents that define entities are refused.

`xml.etree` forgets where an element stood, and an annotation that is wrong has to be named with
its line. Without a DOCTYPE there are no entities to expand, so no small file can grow large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from mbv3ssd_deploy.errors import FormatError


@dataclass(slots=True)
class XmlElement:
    """One element: its tag, the line it starts in, its own text, and the elements inside it."""

    tag: str
    line: int
    text: str = ""
    children: list[XmlElement] = field(default_factory=list)

    def child(self, tag: str) -> XmlElement | None:
        """Return the first element inside this one that has the tag, or None."""
        return next((child for child in self.children if child.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """Return the text of the first element inside that has the tag, stripped; "" if none."""
        child = self.child(tag)
        return child.text.strip() if child else ""


def parse_xml(data: bytes) -> XmlElement:
    """Return the root element of the document.

    Raises:
        FormatError: it is no XML, or it has a DOCTYPE; `where` is "line N".
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
            "the file has a DOCTYPE, which no annotation needs",
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
            f"the file is no XML: {expat.ErrorString(error.code)}", where=f"line {error.lineno}"
        ) from None
    return top.children[0]
