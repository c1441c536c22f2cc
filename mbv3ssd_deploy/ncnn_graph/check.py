"""What makes ncnn crash, or compute something else, although it loads the files.

ncnn checks next to nothing of this itself (docs/formats/ncnn-param.md, "What ncnn does not check"):
a blob with two consumers is silently zero in one of them, a wrong weight count is read as numbers
of the next layer, a blob used before it is made takes the process down.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.problems import Problem, one_message, title
from mbv3ssd_deploy.ncnn_graph.rules import RULES
from mbv3ssd_deploy.ncnn_graph.schema import WeightField
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes
from mbv3ssd_deploy.ncnn_graph.spelling import spelling_problems

FLOAT16_MAX = 65504.0


def check_graph(graph: NcnnGraph) -> None:
    """Raise if ncnn would refuse, misread or miscompute `graph` with its weights.

    Raises:
        FormatError: with all that `find_problems` finds.
    """
    problems = find_problems(graph)
    if problems:
        raise FormatError(one_message(problems))


def find_problems(graph: NcnnGraph) -> tuple[str, ...]:
    """Return all that is wrong with `graph` and its weights, each with the layer it stands in.

    Shapes are looked at once everything else about the layers is right.
    """
    problems = structure_problems(graph) or infer_shapes(graph).problems
    problems = (*problems, *weight_problems(graph))
    return tuple(f"{title(graph.layers[p.layer])}: {p.message}" for p in problems)


def structure_problems(graph: NcnnGraph) -> tuple[Problem, ...]:
    """Return what is wrong with layers, blobs and parameters; weights are not looked at."""
    found = [
        Problem(index, message)
        for index, layer in enumerate(graph.layers)
        for message in spelling_problems(layer) or _parameter_problems(layer)
    ]
    found += _name_problems(graph)
    found += _blob_problems(graph)
    return tuple(sorted(found, key=lambda problem: problem.layer))


def weight_problems(graph: NcnnGraph) -> tuple[Problem, ...]:
    """Return what is wrong with the weights that the layers carry."""
    return tuple(
        Problem(index, message)
        for index, layer in enumerate(graph.layers)
        if layer.type in LAYERS
        for message in _layer_weight_problems(layer)
    )


def _parameter_problems(layer: NcnnLayer) -> Iterator[str]:
    schema = LAYERS[layer.type]
    if not schema.inputs.allows(len(layer.inputs)):
        yield f"takes {schema.inputs} blobs, got {len(layer.inputs)}"
    if not schema.outputs.allows(len(layer.outputs)):
        yield f"gives {schema.outputs} blobs, got {len(layer.outputs)}"
    for field, length in schema.weights_of(layer.params):
        if length < 1:
            yield f"{field.role} of {' * '.join(field.factors)} = {length} numbers"
    if layer.type in RULES:
        yield from RULES[layer.type](schema.resolved(layer.params), len(layer.inputs))


def _name_problems(graph: NcnnGraph) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        if first.setdefault(layer.name, index) != index:
            yield Problem(
                index, f"the name stands twice, as layers {first[layer.name]} and {index}"
            )


def _blob_problems(graph: NcnnGraph) -> Iterator[Problem]:
    producers: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        for blob in layer.outputs:
            producers.setdefault(blob, index)
    made: set[str] = set()
    user: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        for blob in dict.fromkeys(layer.inputs):
            if blob not in made:
                yield Problem(index, _why_missing(blob, producers, graph))
            elif user.setdefault(blob, index) != index:
                other = title(graph.layers[user[blob]])
                yield Problem(
                    index, f"blob {blob!r} is already used by {other}; a Split is missing"
                )
        for blob in layer.outputs:
            if blob in made:
                yield Problem(index, f"blob {blob!r} is made twice")
            made.add(blob)


def _why_missing(blob: str, producers: dict[str, int], graph: NcnnGraph) -> str:
    if blob not in producers:
        return f"no layer makes blob {blob!r}"
    return f"blob {blob!r} is used before {title(graph.layers[producers[blob]])} makes it"


def _layer_weight_problems(layer: NcnnLayer) -> Iterator[str]:
    schema = LAYERS[layer.type]
    expected = schema.weights_of(layer.params)
    roles = [field.role for field, _ in expected]
    if roles != [weight.role for weight in layer.weights]:
        got = ", ".join(weight.role for weight in layer.weights) or "none"
        yield f"needs the weights {', '.join(roles) or 'none'}, in this order, and has {got}"
        return
    is_int8 = schema.resolved(layer.params).get("int8_scale_term", 0) != 0
    for (field, length), weight in zip(expected, layer.weights, strict=True):
        if weight.data.size != length:
            yield f"{field.role} needs {length} numbers and has {weight.data.size}"
        yield from _storage_problems(field, weight, is_int8=is_int8)


def _storage_problems(field: WeightField, weight: Weight, *, is_int8: bool) -> Iterator[str]:
    wanted = np.int8 if weight.storage is Storage.INT8 else np.float32
    if weight.data.dtype != wanted:
        yield f"{field.role} is stored as {weight.storage} but holds {weight.data.dtype}"
    if not field.flagged and weight.storage is not Storage.FLOAT32:
        yield f"{field.role} has no storage word in the file and cannot be {weight.storage}"
    if weight.storage is Storage.INT8 and not is_int8:
        yield f"{field.role} is int8 without int8_scale_term, which crashes ncnn"
    strange = int(np.count_nonzero(~np.isfinite(weight.data)))
    if strange:
        yield f"{field.role} has {strange} numbers that are NaN or infinite"
    elif (
        weight.storage is Storage.FLOAT16
        and float(np.abs(weight.data).max(initial=0)) > FLOAT16_MAX
    ):
        yield f"{field.role} has numbers beyond float16's {FLOAT16_MAX:.0f}"
