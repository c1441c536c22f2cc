"""What mmdetection wrote beside the weights, under `meta`.

1.x and 2.x store `CLASSES`, 3.x `dataset_meta` with `classes`; mmengine, below 3.x, its version.
"""

from __future__ import annotations

from collections.abc import Mapping


def class_names_in(saved: object) -> tuple[str, ...]:
    """Return the class names of the data set that a file was trained on; empty if it says none."""
    meta = _entry(saved, "meta")
    data = _entry(meta, "dataset_meta")
    named = _entry(data, "classes") or _entry(data, "CLASSES") or _entry(meta, "CLASSES")
    if isinstance(named, str):  # ('person') is no tuple
        return (named,)
    if not isinstance(named, (list, tuple)):
        return ()
    return tuple(named) if all(isinstance(name, str) for name in named) else ()


def is_of_mmengine(saved: object) -> bool:
    """Whether mmengine saved the file, whose EMA hook exchanges the two sets of weights."""
    return _entry(_entry(saved, "meta"), "mmengine_version") is not None


def _entry(entries: object, name: str) -> object:
    return entries.get(name) if isinstance(entries, Mapping) else None
