"""Which classes a data set has, and in what order: given, listed in a file, or found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mbv3ssd_deploy.data.objects import class_key
from mbv3ssd_deploy.errors import DatasetError

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
