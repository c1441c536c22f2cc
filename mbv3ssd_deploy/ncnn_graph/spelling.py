"""What keeps a layer from being written as a line of a .param file."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mbv3ssd_deploy.ncnn_graph.graph import NcnnLayer, Param
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.schema import LayerSchema, ParamField

NAME_BYTES = 255


def spelling_problems(layer: NcnnLayer) -> tuple[str, ...]:
    """Return what is wrong with the type, the names and the kinds of the parameters of `layer`."""
    schema = LAYERS.get(layer.type)
    if schema is None:
        return (f"unknown layer type {layer.type!r}", *_name_problems(layer))
    return (*_name_problems(layer), *_kind_problems(layer, schema))


def _name_problems(layer: NcnnLayer) -> Iterator[str]:
    for name in dict.fromkeys((layer.name, *layer.inputs, *layer.outputs)):
        if not name or " " in name or not name.isprintable():
            yield f"the name {name!r} is empty, or holds white space or unprintable characters"
        elif len(name.encode()) > NAME_BYTES:
            yield f"the name {name[:20]!r}... is longer than {NAME_BYTES} bytes"


def _kind_problems(layer: NcnnLayer, schema: LayerSchema) -> Iterator[str]:
    fields = {field.name: field for field in schema.fields}
    for name, value in layer.params.items():
        if name not in fields:
            yield f"there is no parameter {name!r}"
        elif not fields[name].fits(value):
            yield _kind_slip(fields[name], value)
        elif not _is_finite(value):
            yield f"{name} = {value} is not finite"


def _kind_slip(field: ParamField, value: Param) -> str:
    subject = f"{field.name} (parameter {field.id}) is {_spelt(value)}"
    if field.kind.is_array != isinstance(value, tuple):
        return f"{subject}, but ncnn reads {field.kind.value}"
    if field.kind.is_float:
        return (
            f"{subject} in a float slot: ncnn tells the two apart by the '.' or 'e' alone, and "
            "releases before 2026-10 take the integer's bits for a float"
        )
    return (
        f"{subject} in an int slot: ncnn tells the two apart by the '.' or 'e' alone, and takes "
        "the float's bits for an integer, or the default"
    )


def _spelt(value: Param) -> str:
    if isinstance(value, tuple):
        return f"the list {', '.join(map(str, value))}"
    return f"the {'float' if isinstance(value, float) else 'integer'} {value}"


def _is_finite(value: Param) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(math.isfinite(number) for number in numbers)
