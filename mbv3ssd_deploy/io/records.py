"""Frozen dataclasses as plain JSON, both ways.

The JSON mirrors the dataclasses: one key per field, enums by value, tuples as lists. Reading is
strict: a missing, unknown or ill-typed key is an error, and all of them are reported at once. Only
a field with a default may be missing: what an older version wrote did not know it yet.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mbv3ssd_deploy.errors import DeployError, SpecError

Json = dict[str, Any]
_BITS_SHOWN = 256
_CHARACTERS_SHOWN = 80
Record = TypeVar("Record")


def json_from_record(record: object) -> Json:
    """Return a dataclass as a dict of plain JSON values, in the order of its fields."""
    plain: Json = _plain(record)
    return plain


def record_from_json(
    kind: type[Record], data: object, *, where: str, error: type[DeployError] = SpecError
) -> Record:
    """Return the `kind` that `json_from_record` wrote.

    Raises:
        DeployError: of class `error`, with every key that is missing, unknown or of a wrong type.
    """
    problems: list[str] = []
    record = _build(kind, data, "", problems)
    if problems:
        raise error("; ".join(problems), where=where)
    return typing.cast("Record", record)


def parse_json(text: str | bytes, *, where: str, error: type[DeployError], hint: str = "") -> Any:  # noqa: ANN401 -- any JSON value
    """Return the value of a JSON text.

    Raises:
        DeployError: of class `error`, not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except ValueError as problem:  # UnicodeDecodeError is one
        raise error(f"is not JSON: {problem}", where=where, hint=hint) from problem
    except RecursionError as problem:
        raise error("is nested too deeply to be read", where=where, hint=hint) from problem


def merged_json(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """Return `base` with `changes` laid over it; objects merge key by key, all else is replaced."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = merged_json(old, value)
        else:
            out[key] = value
    return out


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _build(kind: Any, data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401, PLR0911
    """Return `data` as a `kind`; what does not fit goes to `problems`."""
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    if isinstance(kind, types.UnionType):  # the only unions are "X | None"
        inner = next(k for k in typing.get_args(kind) if k is not types.NoneType)
        return None if data is None else _build(inner, data, path, problems)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), data, path, problems)
    if origin is Mapping:
        return _build_mapping(typing.get_args(kind)[1], data, path, problems)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast("type", kind), data, path, problems)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _build_enum(kind, data, path, problems)
    return _build_scalar(kind, data, path, problems)


def _build_scalar(kind: type, data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return _build_float(data, path, problems)
    if isinstance(data, kind) and not (isinstance(data, bool) and kind is not bool):
        return data
    problems.append(f"{path} is {_shown(data)}, not a {kind.__name__}")
    return None


def _shown(data: object) -> str:
    """Return a short text for a value of a file; containers could be endless."""
    if isinstance(data, Mapping):
        return "an object"
    if isinstance(data, list | tuple):
        return "a list"
    if isinstance(data, int) and data.bit_length() > _BITS_SHOWN:
        return "a huge number"
    text = ascii(data)
    return text if len(text) <= _CHARACTERS_SHOWN else f"{text[:_CHARACTERS_SHOWN]}..."


def _build_float(data: int, path: str, problems: list[str]) -> float | None:
    try:
        return float(data)
    except OverflowError:
        problems.append(f"{path} is too large a number")
        return None


def _build_enum(kind: type[enum.Enum], data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    try:
        return kind(data)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        problems.append(f"{path} is {_shown(data)}, not one of {known}")
        return None


def _build_tuple(kinds: tuple[Any, ...], data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    if not isinstance(data, list | tuple):
        problems.append(f"{path} is not a list")
        return None
    if kinds[-1] is not Ellipsis and len(data) != len(kinds):
        problems.append(f"{path} has {len(data)} values, not {len(kinds)}")
        return None
    return tuple(_build(kinds[0], item, f"{path}[{i}]", problems) for i, item in enumerate(data))


def _build_mapping(kind: Any, data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    if not isinstance(data, Mapping):
        problems.append(f"{path} is not an object")
        return None
    return types.MappingProxyType(
        {str(key): _build(kind, item, f"{path}.{key}", problems) for key, item in data.items()}
    )


def _build_dataclass(kind: type, data: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    name = path or f"the {kind.__name__}"
    if not isinstance(data, Mapping):
        problems.append(f"{name} is not an object")
        return None
    hints = typing.get_type_hints(kind)
    dot = f"{path}." if path else ""
    fields = [f.name for f in dataclasses.fields(kind)]
    needed = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    before = len(problems)
    problems += [f"{dot}{field} is missing" for field in needed if field not in data]
    known = ", ".join(fields)
    problems += [f"{dot}{key} is unknown (there are {known})" for key in data if key not in fields]
    values = {f: _build(hints[f], data[f], dot + f, problems) for f in fields if f in data}
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except SpecError as error:
        problems.append(f"{name}: {error.message}")
        return None
