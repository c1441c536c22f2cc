"""DetectorSpec as JSON, both ways.

The JSON mirrors the dataclasses: one key a field, enums by value, tuples as lists. Reading is
strict: a missing, unknown or ill-typed key is an error, and all of them are reported at once.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import SpecError

Json = dict[str, Any]


def json_from_spec(spec: DetectorSpec) -> Json:
    """Return `spec` as a dict of plain JSON values, in the order of its fields."""
    plain: Json = _plain(spec)
    return plain


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def spec_from_json(data: object, *, where: str = "spec") -> DetectorSpec:
    """Return the spec that `json_from_spec` wrote.

    Raises:
        SpecError: with every key that is missing, unknown or of the wrong type.
    """
    problems: list[str] = []
    spec = _build(DetectorSpec, data, "", problems)
    if problems:
        raise SpecError("; ".join(problems), where=where)
    return typing.cast("DetectorSpec", spec)


def merged_json(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """Return `base` with `changes` laid over it; objects merge key by key, all else is replaced."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merged_json(old, value) if both else value  # type: ignore[arg-type]
    return out


def _build(kind: Any, data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401, PLR0911
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, data, path, problems)
    if isinstance(kind, types.UnionType):  # the only unions of the spec are "X | None"
        inner = next(k for k in typing.get_args(kind) if k is not type(None))
        return None if data is None else _build(inner, data, path, problems)
    if typing.get_origin(kind) is tuple:
        return _build_tuple(typing.get_args(kind), data, path, problems)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            known = ", ".join(repr(member.value) for member in kind)
            problems.append(f"{path} is {data!r}, not one of {known}")
            return None
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, kind) and not (isinstance(data, bool) and kind is not bool):
        return data
    problems.append(f"{path} is {data!r}, not a {kind.__name__}")
    return None


def _build_tuple(kinds: tuple[Any, ...], data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    if not isinstance(data, list | tuple):
        problems.append(f"{path} is not a list")
        return None
    if kinds[-1] is not Ellipsis and len(data) != len(kinds):
        problems.append(f"{path} has {len(data)} values, not {len(kinds)}")
        return None
    return tuple(_build(kinds[0], item, f"{path}[{i}]", problems) for i, item in enumerate(data))


def _build_dataclass(kind: type, data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    if not isinstance(data, Mapping):
        problems.append(f"{path or 'the spec'} is not an object")
        return None
    hints = typing.get_type_hints(kind)
    dot = f"{path}." if path else ""
    names = [f.name for f in dataclasses.fields(kind)]
    before = len(problems)
    problems += [f"{dot}{name} is missing" for name in names if name not in data]
    problems += [f"{dot}{key} is unknown" for key in data if key not in names]
    values = {n: _build(hints[n], data[n], dot + n, problems) for n in names if n in data}
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except SpecError as error:
        problems.append(f"{path or 'the spec'}: {error.message}")
        return None
