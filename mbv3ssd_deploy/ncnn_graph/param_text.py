"""The .param text format, both ways. docs/formats/ncnn-param.md describes it in prose.

    7767517
    layer_count blob_count
    Type name n_in n_out in... out... id=value ...

Written so that every release of ncnn reads it: a parameter that equals its default is left out,
except in the layer types whose defaults surprise (`LayerSchema.explicit`); floats are `%.8e`, at
most 15 characters and bit exact; arrays are `-23300-id=length,...`. Both spellings of an array and
any spelling of a float are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.check import spelling_problems, structure_problems
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Param, raise_problems
from mbv3ssd_deploy.ncnn_graph.layers import COMMON_PARAMS, LAYERS
from mbv3ssd_deploy.ncnn_graph.schema import LayerSchema

MAGIC: Final = "7767517"
# ncnn marks "this key is an array" by counting down from here instead of up from 0.
ARRAY_KEY: Final = -23300
PARAM_COUNT: Final = 32
# Releases before 2026-10 read a number into 16 bytes, and the digits behind its point into 32 bits.
NUMBER_LENGTH: Final = 15
FRACTION_DIGITS: Final = 9
# Python parses no integer of more than 4300 digits.
LONGEST_INTEGER: Final = 40

# Nine digits fit in 32 bits; ncnn reads no larger count or key.
_COUNT = re.compile(r"[0-9]{1,9}")
_PAIR = re.compile(r"(-?[0-9]{1,9})=(\S*)")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?([0-9]*)|\.([0-9]+))(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a .param file; lines count from 1."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class ParsedParam:
    """The part of a .param file that can be understood, and all its faults."""

    graph: NcnnGraph
    findings: tuple[Finding, ...]


def render_param(graph: NcnnGraph) -> str:
    """Return the .param text of `graph`.

    Raises:
        FormatError: a name, a type or a parameter cannot be spelt; all of them are named.
    """
    raise_problems([f"{x.title}: {text}" for x in graph.layers for text in spelling_problems(x)])
    lines = [MAGIC, f"{len(graph.layers)} {graph.blob_count}"]
    for layer in graph.layers:
        head = f"{layer.type:<24} {layer.name:<24} {len(layer.inputs)} {len(layer.outputs)}"
        lines.append(" ".join((head, *layer.inputs, *layer.outputs, *_render_params(layer))))
    return "\n".join(lines) + "\n"


def _render_params(layer: NcnnLayer) -> Iterator[str]:
    schema = LAYERS[layer.type]
    for field in schema.fields:
        value = schema.value(layer.params, field.name)
        # older releases of ncnn were never given an empty list to read
        is_wanted = schema.explicit and field.name not in COMMON_PARAMS and value != ()
        if is_wanted or field.name in layer.params:
            yield _render_value(field.id, value)


def _render_value(key: int, value: Param) -> str:
    if isinstance(value, tuple):
        return ",".join((f"{ARRAY_KEY - key}={len(value)}", *map(_render_number, value)))
    return f"{key}={_render_number(value)}"


def _render_number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.8e}"


def read_param(path: Path) -> ParsedParam:
    """Read any .param file for display, as far as it can be understood, with all its faults.

    Raises:
        FormatError: the file is missing, is not text, or does not begin as a .param does.
    """
    return inspect_param(text_of_param(path), source=str(path))


def text_of_param(path: Path) -> str:
    """Return the text of a .param file.

    Raises:
        FormatError: the file cannot be read, or is not text.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        hint = "a .param.bin and a .bin are binary; give the text .param"
        raise FormatError(f"byte {error.start} is not text", where=str(path), hint=hint) from error


def parse_param(text: str, *, source: str = "<text>") -> NcnnGraph:
    """Parse .param text into a graph without weights; any fault is an error.

    Raises:
        FormatError: with `source:line` of the first fault, and all of them.
    """
    parsed = inspect_param(text, source=source)
    if parsed.findings:
        first, *others = parsed.findings
        texts = [*map(str, parsed.findings)] if others else [first.message]
        raise_problems(texts, f"{source}:{first.line}")
    return parsed.graph


def inspect_param(text: str, *, source: str = "<text>") -> ParsedParam:
    """Parse any .param text as far as it can be understood.

    Lines that cannot be split into their parts, and parameters that cannot be named, are missing
    from the graph and among the findings; a number of the wrong kind stays as it was written.

    Raises:
        FormatError: the text does not begin as a .param file does.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    layer_count, blob_count = _parse_head(lines, source)
    findings: list[Finding] = []
    layers: list[NcnnLayer] = []
    numbers: list[int] = []
    for number, line in lines[2:]:
        faults: list[str] = []
        layer = _parse_layer(line, faults)
        findings += [Finding(number, fault) for fault in faults]
        if layer is not None:
            layers.append(layer)
            numbers.append(number)
    graph = NcnnGraph(tuple(layers))
    findings += [Finding(numbers[p.layer], p.message) for p in structure_problems(graph)]
    follow, made, where = len(lines) - 2, graph.blob_count, lines[1][0]
    if layer_count != follow:
        findings += [Finding(where, f"{layer_count} layers are promised, {follow} follow")]
    if blob_count != made:
        findings += [Finding(where, f"{blob_count} blobs are promised, the layers make {made}")]
    return ParsedParam(graph, tuple(sorted(findings, key=lambda finding: finding.line)))


def _parse_head(lines: list[tuple[int, str]], source: str) -> tuple[int, int]:
    first = lines[0][1].strip() if lines else ""
    if first != MAGIC:
        hint = "a .param.bin is binary; this reads the text form" if "\0" in first else ""
        shown = f"begins with {first[:20]!r}" if first else "is empty"
        raise FormatError(
            f"the file {shown}; an ncnn .param begins with {MAGIC}", where=f"{source}:1", hint=hint
        )
    words = lines[1][1].split() if len(lines) > 1 else []
    if len(words) != 2 or not all(map(_COUNT.fullmatch, words)):
        where = f"{source}:{lines[1][0] if len(lines) > 1 else 2}"
        raise FormatError("the second line must hold the layer and the blob count", where=where)
    return int(words[0]), int(words[1])


def _parse_layer(line: str, faults: list[str]) -> NcnnLayer | None:
    words = line.split()
    if words[0].startswith("#"):
        faults.append("a comment; ncnn does not know comments and fails here")
        return None
    if len(words) < 4 or not all(map(_COUNT.fullmatch, words[2:4])):
        faults.append("a layer line begins with type, name, input count and output count")
        return None
    type_, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    blobs, pairs = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
    swallowed = next((blob for blob in blobs if _PAIR.fullmatch(blob)), "")
    if len(blobs) < inputs + outputs or swallowed:
        more = f"; {swallowed!r} would be one" if swallowed else ""
        faults.append(f"{type_} {name!r} promises {inputs} + {outputs} blobs and names fewer{more}")
        return None
    params: dict[str, Param] = {}
    if type_ in LAYERS:
        params = LAYERS[type_].without_defaults(_parse_pairs(pairs, LAYERS[type_], faults))
    return NcnnLayer(
        type_, name, tuple(blobs[:inputs]), tuple(blobs[inputs:]), MappingProxyType(params)
    )


def _parse_pairs(pairs: list[str], schema: LayerSchema, faults: list[str]) -> dict[str, Param]:
    params: dict[str, Param] = {}
    fields = {field.id: field for field in schema.fields}
    for pair in pairs:
        match = _PAIR.fullmatch(pair)
        if match is None:
            faults.append(f"{_shown(pair)!r} is not a parameter")
            continue
        key = int(match[1])
        number = ARRAY_KEY - key if key <= ARRAY_KEY else key
        field = fields.get(number)
        if not 0 <= number < PARAM_COUNT:
            faults.append(f"parameter {number} is not within 0..{PARAM_COUNT - 1}")
        elif field is None:
            faults.append(f"{schema.type} has no parameter {number}")
        elif field.name in params:
            faults.append(f"{field.name} (parameter {number}) is given twice")
        else:
            value = _parse_value(match[2], faults, has_length=key <= ARRAY_KEY)
            if value is not None:
                params[field.name] = value
    return params


def _parse_value(text: str, faults: list[str], *, has_length: bool) -> Param | None:
    words = text.split(",")
    if not has_length and len(words) == 1:
        return _parse_number(text, faults)
    if has_length:
        length, *words = words
        if length != str(len(words)):
            faults.append(f"a list promises {_shown(length)} numbers and has {len(words)}")
            return None
    elif words[-1] == "":
        words.pop()
    numbers = [_parse_number(word, faults) for word in words]
    return tuple(number for number in numbers if number is not None)


def _parse_number(text: str, faults: list[str]) -> int | float | None:
    if _INTEGER.fullmatch(text):
        value = int(text) if len(text) <= LONGEST_INTEGER else 2**31
        if -(2**31) <= value < 2**31:
            return value
        faults.append(f"{_shown(text)} does not fit in 32 bits")
        return None
    match = _FLOAT.fullmatch(text)
    if match is None:
        faults.append(f"{_shown(text)!r} is not a number that ncnn reads")
        return None
    if len(text) > NUMBER_LENGTH or len(match[1] or match[2] or "") > FRACTION_DIGITS:
        faults.append(
            f"{_shown(text)} is longer than {NUMBER_LENGTH} characters or {FRACTION_DIGITS} digits "
            "behind the point, and misread by releases of ncnn before 2026-10"
        )
    with np.errstate(over="ignore"):
        return float(np.float32(text))


def _shown(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
