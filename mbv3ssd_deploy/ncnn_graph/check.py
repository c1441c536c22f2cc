"""What makes ncnn crash, or compute something else, although it loads the files.

ncnn checks next to nothing of this itself (docs/formats/ncnn-param.md, "What ncnn does not check"):
a blob with two consumers is silently zero in one of them, a wrong weight count is read as numbers
of the next layer, a blob used before it is made takes the process down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.ncnn_graph.graph import (
    NcnnGraph,
    NcnnLayer,
    Param,
    Problem,
    Storage,
    Weight,
    raise_problems,
)
from mbv3ssd_deploy.ncnn_graph.layers import AUTO, LAYERS
from mbv3ssd_deploy.ncnn_graph.schema import LayerSchema, ParamField, WeightField
from mbv3ssd_deploy.ncnn_graph.shapes import Params, infer_shapes

FLOAT16_MAX = 65504.0
NAME_BYTES: Final = 255

ACTIVATIONS: Final = MappingProxyType({0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2})
"""How many activation_params each activation_type needs."""

_INT8_TERMS: Final = frozenset({0, 1, 2, 101, 102})


def check_graph(graph: NcnnGraph) -> None:
    """Raise if ncnn would refuse, misread or miscompute `graph` with its weights.

    Raises:
        FormatError: `find_problems` finds something; the message holds all of it.
    """
    raise_problems(find_problems(graph))


def find_problems(graph: NcnnGraph) -> tuple[str, ...]:
    """Return every fault of `graph` and its weights, each with the title of its layer.

    Shapes are compared once everything else about the layers is right.
    """
    problems = structure_problems(graph) or infer_shapes(graph).problems
    found = [f"{graph.layers[p.layer].title}: {p.message}" for p in problems]
    return (*found, *find_weight_problems(graph))


def find_weight_problems(graph: NcnnGraph) -> tuple[str, ...]:
    """Return every fault of the weights that the layers carry, with the title of the layer."""
    return tuple(f"{x.title}: {problem}" for x in graph.layers for problem in weight_problems(x))


def structure_problems(graph: NcnnGraph) -> tuple[Problem, ...]:
    """Return the faults of layers, blobs and parameters; weights are left out."""
    found = [
        Problem(index, message)
        for index, layer in enumerate(graph.layers)
        for message in layer_problems(layer)
    ]
    found += _name_problems(graph)
    found += _blob_problems(graph)
    return tuple(sorted(found, key=lambda problem: problem.layer))


def layer_problems(layer: NcnnLayer) -> tuple[str, ...]:
    """Return the faults of one layer, without its weights and the layers around it."""
    return spelling_problems(layer) or tuple(_parameter_problems(layer))


def spelling_problems(layer: NcnnLayer) -> tuple[str, ...]:
    """Return the faults in the type, the names and the kinds of the parameters of `layer`."""
    schema = LAYERS.get(layer.type)
    if schema is None:
        return (f"unknown layer type {layer.type!r}", *_unreadable_names(layer))
    return (*_unreadable_names(layer), *_kind_problems(layer, schema))


# Names and kinds: what keeps a layer from being written as a line of a .param file.


def _unreadable_names(layer: NcnnLayer) -> Iterator[str]:
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
            yield _wrong_kind(fields[name], value)
        elif not all(map(math.isfinite, value if isinstance(value, tuple) else (value,))):
            yield f"{name} = {value} is not finite"


def _wrong_kind(field: ParamField, value: Param) -> str:
    shown = f"float {value}" if isinstance(value, float) else f"integer {value}"
    if isinstance(value, tuple):
        shown = f"list {', '.join(map(str, value[:8]))}{'...' if len(value) > 8 else ''}"
    subject = f"{field.name} (parameter {field.id}) is the {shown}"
    if field.is_array != isinstance(value, tuple):
        return f"{subject}, but ncnn reads {field.kind}"
    slot, effect = "an int", "takes the float's bits for an integer, or the default"
    if field.is_float:
        slot, effect = "a float", "releases before 2026-10 take the integer's bits for a float"
    return f"{subject} in {slot} slot: ncnn distinguishes them by '.' or 'e' alone, and {effect}"


# Parameters among themselves. Each rule is a way in which ncnn loads a layer and then crashes or
# computes something else; the evidence is in docs/formats/ncnn-param.md.


def _parameter_problems(layer: NcnnLayer) -> Iterator[str]:
    schema = LAYERS[layer.type]
    if not schema.inputs.allows(len(layer.inputs)):
        yield f"takes {schema.inputs} blobs, got {len(layer.inputs)}"
    if not schema.outputs.allows(len(layer.outputs)):
        yield f"gives {schema.outputs} blobs, got {len(layer.outputs)}"
    for field, length in schema.weights_of(layer.params):
        if length < 1:
            yield f"{field.role} of {' * '.join(field.factors)} = {length} numbers"
    if layer.type in _RULES:
        yield from _RULES[layer.type](schema.resolved(layer.params), len(layer.inputs))


def _activation(params: Params) -> Iterator[str]:
    kind, given = params["activation_type"], len(params["activation_params"])
    if kind not in ACTIVATIONS:
        yield f"activation_type {kind} is not one of 0..6"
    elif given < ACTIVATIONS[kind]:
        yield f"activation_type {kind} needs {ACTIVATIONS[kind]} activation_params, got {given}"


def _weight_count(params: Params, *factors: str) -> Iterator[str]:
    size = params["weight_data_size"]
    unit = math.prod(params[name] for name in factors)
    if unit < 1 or size < 1 or size % unit:
        yield f"weight_data_size {size} is not a multiple of {' * '.join(factors)} = {unit}"


def _at_least_one(params: Params, *names: str) -> Iterator[str]:
    small = [f"{name} {params[name]}" for name in names if params[name] < 1]
    if small:
        yield f"{' and '.join(small)} must be at least 1"


def _convolution(params: Params, inputs: int) -> Iterator[str]:
    if (params["dynamic_weight"] == 0) != (inputs == 1):
        yield f"takes {inputs} blobs with dynamic_weight {params['dynamic_weight']}"
    if params["dynamic_weight"] == 0:
        yield from _weight_count(params, "num_output", "kernel_w", "kernel_h")
    yield from _at_least_one(params, "stride_h", "stride_w", "dilation_h", "dilation_w")
    if params["int8_scale_term"] not in _INT8_TERMS:
        yield f"int8_scale_term {params['int8_scale_term']} is not one of 0, 1, 2, 101, 102"
    yield from _activation(params)


def _depthwise(params: Params, inputs: int) -> Iterator[str]:
    yield from _convolution(params, inputs)
    outputs, group = params["num_output"], params["group"]
    if group < 1 or outputs % group:
        yield f"num_output {outputs} is not a multiple of group {group}"


def _inner_product(params: Params, _: int) -> Iterator[str]:
    yield from _weight_count(params, "num_output")
    yield from _activation(params)


def _pooling(params: Params, _: int) -> Iterator[str]:
    if not params["global_pooling"] and not params["adaptive_pooling"]:
        yield from _at_least_one(params, "kernel_h", "kernel_w", "stride_h", "stride_w")


def _binary_op(params: Params, inputs: int) -> Iterator[str]:
    if (params["with_scalar"] != 0) != (inputs == 1):
        yield f"takes {inputs} blobs with with_scalar {params['with_scalar']}"


def _softmax(params: Params, _: int) -> Iterator[str]:
    if params["axis"] != 0 and params["fixbug0"] != 1:
        yield f"axis {params['axis']} needs fixbug0 = 1"


def _reduction(params: Params, _: int) -> Iterator[str]:
    if params["axes"] and params["fixbug0"] != 1:
        yield "axes need fixbug0 = 1"


def _memory_data(params: Params, _: int) -> Iterator[str]:
    w, h, d, c = (params[name] for name in ("w", "h", "d", "c"))
    # without a w ncnn reads nothing and gives whatever the memory holds
    needs = {"w": True, "h": c or d, "c": d}
    missing = [name for name, needed in needs.items() if needed and params[name] < 1]
    if missing or min(h, d, c) < 0:
        yield f"a blob of w={w} h={h} d={d} c={c} has no {' and no '.join(missing) or 'size'}"


def _clip(params: Params, _: int) -> Iterator[str]:
    if params["min"] > params["max"]:
        yield f"min {params['min']} is above max {params['max']}"


def _prior_box(params: Params, inputs: int) -> Iterator[str]:
    smallest, largest = len(params["min_sizes"]), len(params["max_sizes"])
    if smallest == 0:
        yield "min_sizes is empty"
    if 0 < largest < smallest:
        yield f"{smallest} min_sizes have only {largest} max_sizes; ncnn reads past their end"
    sizes = (params["image_width"], params["image_height"])
    if inputs == 1 and AUTO in sizes and (largest or sizes != (AUTO, AUTO)):
        yield f"image size {sizes[0]} x {sizes[1]} is taken from a second blob, which is not there"
    elif any(size < 1 and size != AUTO for size in sizes):
        yield f"image size {sizes[0]} x {sizes[1]} has no pixels"


def _detection_output(params: Params, _: int) -> Iterator[str]:
    for name in ("nms_top_k", "keep_top_k"):
        if params[name] < 1:
            yield f"{name} {params[name]} throws in ncnn; 'no limit' is the number of priors"
    if params["num_class"] < 2 and params["num_class"] != AUTO:
        yield f"num_class {params['num_class']} leaves no class besides the background"


_RULES: Final[Mapping[str, Callable[[Params, int], Iterator[str]]]] = MappingProxyType(
    {
        "Convolution": _convolution,
        "ConvolutionDepthWise": _depthwise,
        "InnerProduct": _inner_product,
        "Pooling": _pooling,
        "BinaryOp": _binary_op,
        "Softmax": _softmax,
        "Reduction": _reduction,
        "MemoryData": _memory_data,
        "Clip": _clip,
        "PriorBox": _prior_box,
        "DetectionOutput": _detection_output,
    }
)
"""Each maps every parameter of a layer and its number of inputs to the faults found."""


# Layers among each other.


def _name_problems(graph: NcnnGraph) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        if first.setdefault(layer.name, index) != index:
            yield Problem(index, f"duplicate name, of layers {first[layer.name]} and {index}")


def _blob_problems(graph: NcnnGraph) -> Iterator[Problem]:
    producers: dict[str, NcnnLayer] = {}
    for layer in graph.layers:
        for blob in layer.outputs:
            producers.setdefault(blob, layer)
    made: set[str] = set()
    user: dict[str, NcnnLayer] = {}
    for index, layer in enumerate(graph.layers):
        for blob in dict.fromkeys(layer.inputs):
            if blob not in producers:
                yield Problem(index, f"no layer makes blob {blob!r}")
            elif blob not in made:
                maker = producers[blob].title
                yield Problem(index, f"blob {blob!r} is used before {maker} makes it")
            elif user.setdefault(blob, layer) is not layer:
                other = user[blob].title
                yield Problem(
                    index, f"blob {blob!r} is already used by {other}; a Split is missing"
                )
        for blob in layer.outputs:
            if blob in made:
                yield Problem(index, f"blob {blob!r} is made twice")
            made.add(blob)


# Weights.


def weight_problems(layer: NcnnLayer) -> tuple[str, ...]:
    """Return the faults of the weights of one layer."""
    return tuple(_weight_problems(layer, LAYERS[layer.type])) if layer.type in LAYERS else ()


def _weight_problems(layer: NcnnLayer, schema: LayerSchema) -> Iterator[str]:
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
    role, storage = field.role, weight.storage
    if weight.data.dtype != (np.int8 if storage is Storage.INT8 else np.float32):
        yield f"{role} is stored as {storage} but holds {weight.data.dtype}"
    if not field.flagged and storage is not Storage.FLOAT32:
        yield f"{role} has no storage word in the file and cannot be {storage}"
    if storage is Storage.INT8 and not is_int8:
        yield f"{role} is int8 without int8_scale_term, which crashes ncnn"
    infinite = int(np.count_nonzero(~np.isfinite(weight.data)))
    if infinite:
        yield f"{role} has {infinite} numbers that are NaN or infinite"
    elif storage is Storage.FLOAT16 and np.abs(weight.data).max(initial=0) > FLOAT16_MAX:
        yield f"{role} has numbers beyond float16's {FLOAT16_MAX:.0f}"
