"""Names that ncnn and every tool around it can read: no blanks, not too long, none twice."""

from __future__ import annotations

import re
from collections.abc import Iterable

# ncnn takes 255 bytes; the rest is left for what `insert_split` appends.
_LONGEST = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9_./:\-]+")


class UniqueNames:
    """Gives every asker a name that nobody had before; the same asking gives the same names."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)

    def take(self, wish: str) -> str:
        """Return `wish` made safe, with a number behind it where it was given before."""
        base = _UNSAFE.sub("_", wish.strip("/"))[:_LONGEST] or "unnamed"
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name
