"""What the globals and objects of a pickle become when nothing of it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_KEY_PARTS = 16


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, "module.name"; it was never looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Inert:
    """An object of a class that is not there: what the file stored in it, and no behaviour.

    Attributes:
        class_name: "module.name" of its class.
        state: what its `__setstate__` would have been given.
        elements: what would have been appended or added to it.
        entries: what would have been set in it by key.
    """

    class_name: str
    state: object = None
    elements: list[object] = field(default_factory=list)
    entries: dict[object, object] = field(default_factory=dict)

    @property
    def attributes(self) -> Mapping[object, object]:
        """The attributes that a plain object would have; empty when the state is no dictionary."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # of the dictionary and the slots
            state = state[0]
        return state if isinstance(state, dict) else {}


def set_entries(target: object, flat: list[object]) -> None:
    """Set the alternating keys and values of `flat` in `target`, a dictionary or inert object.

    Raises:
        TypeError: it is neither, or a key is nested.
        ValueError: a key has no value.
    """
    entries = target.entries if isinstance(target, Inert) else target
    if not isinstance(entries, dict):
        raise TypeError("entries for what has none")
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        entries[key_of(key)] = value


def key_of(key: object) -> object:
    """Return `key` if hashing it is cheap: large tuples take time, nested ones even the C stack.

    Raises:
        TypeError: it is not.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > _KEY_PARTS or any(isinstance(part, tuple) for part in parts):
        raise TypeError("a key that is large")
    return key


def append_all(target: object, items: list[object]) -> None:
    """Append `items` to `target`, a list or an inert object.

    Raises:
        TypeError: it is neither.
    """
    elements = target.elements if isinstance(target, Inert) else target
    if not isinstance(elements, list):
        raise TypeError("elements for what has none")
    elements.extend(items)
