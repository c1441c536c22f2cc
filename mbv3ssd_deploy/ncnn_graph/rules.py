"""What the parameters of one layer must be among themselves, layer type by layer type.

Each rule is a way in which ncnn loads a layer and then crashes or computes something else; the
evidence stands in docs/formats/ncnn-param.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, cast

from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import AUTO

Params = Mapping[str, Param]
Rule = Callable[[Params, int], Iterator[str]]
"""Takes every parameter of a layer and its number of inputs; yields what is wrong."""

# How many activation_params each activation_type needs.
ACTIVATIONS: Final = MappingProxyType({0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2})

INT8_TERMS: Final = frozenset({0, 1, 2, 101, 102})


def _int(params: Params, name: str) -> int:
    return cast(int, params[name])


def _list(params: Params, name: str) -> tuple[float, ...]:
    return cast(tuple[float, ...], params[name])


def _activation(params: Params) -> Iterator[str]:
    kind, given = _int(params, "activation_type"), len(_list(params, "activation_params"))
    if kind not in ACTIVATIONS:
        yield f"activation_type {kind} is none of 0..6"
    elif given < ACTIVATIONS[kind]:
        yield f"activation_type {kind} needs {ACTIVATIONS[kind]} activation_params, got {given}"


def _weight_count(params: Params, *factors: str) -> Iterator[str]:
    size = _int(params, "weight_data_size")
    unit = math.prod(_int(params, name) for name in factors)
    if unit < 1 or size < 1 or size % unit:
        yield f"weight_data_size {size} is not a multiple of {' * '.join(factors)} = {unit}"


def _convolution(params: Params, inputs: int) -> Iterator[str]:
    if (_int(params, "dynamic_weight") == 0) != (inputs == 1):
        yield f"takes {inputs} blobs with dynamic_weight {params['dynamic_weight']}"
    if _int(params, "dynamic_weight") == 0:
        yield from _weight_count(params, "num_output", "kernel_w", "kernel_h")
    yield from _at_least_one(params, "stride_h", "stride_w", "dilation_h", "dilation_w")
    if _int(params, "int8_scale_term") not in INT8_TERMS:
        yield f"int8_scale_term {params['int8_scale_term']} is none of 0, 1, 2, 101, 102"
    yield from _activation(params)


def _at_least_one(params: Params, *names: str) -> Iterator[str]:
    small = [f"{name} {params[name]}" for name in names if _int(params, name) < 1]
    if small:
        yield f"{' and '.join(small)} must be at least 1"


def _pooling(params: Params, _: int) -> Iterator[str]:
    if not params["global_pooling"] and not params["adaptive_pooling"]:
        yield from _at_least_one(params, "kernel_h", "kernel_w", "stride_h", "stride_w")


def _depthwise(params: Params, inputs: int) -> Iterator[str]:
    yield from _convolution(params, inputs)
    outputs, group = _int(params, "num_output"), _int(params, "group")
    if group < 1 or outputs % group:
        yield f"num_output {outputs} is not a multiple of group {group}"


def _inner_product(params: Params, _: int) -> Iterator[str]:
    yield from _weight_count(params, "num_output")
    yield from _activation(params)


def _binary_op(params: Params, inputs: int) -> Iterator[str]:
    if (_int(params, "with_scalar") != 0) != (inputs == 1):
        yield f"takes {inputs} blobs with with_scalar {params['with_scalar']}"


def _softmax(params: Params, _: int) -> Iterator[str]:
    if _int(params, "axis") != 0 and _int(params, "fixbug0") != 1:
        yield f"axis {params['axis']} needs fixbug0 = 1"


def _reduction(params: Params, _: int) -> Iterator[str]:
    if _list(params, "axes") and _int(params, "fixbug0") != 1:
        yield "axes need fixbug0 = 1"


def _memory_data(params: Params, _: int) -> Iterator[str]:
    w, h, d, c = (_int(params, name) for name in ("w", "h", "d", "c"))
    # without a w ncnn reads nothing and gives whatever the memory holds
    needs = {"w": True, "h": c or d, "c": d}
    missing = [name for name, needed in needs.items() if needed and _int(params, name) < 1]
    if missing or min(h, d, c) < 0:
        yield f"a blob of w={w} h={h} d={d} c={c} has no {' and no '.join(missing) or 'size'}"


def _clip(params: Params, _: int) -> Iterator[str]:
    if cast(float, params["min"]) > cast(float, params["max"]):
        yield f"min {params['min']} is above max {params['max']}"


def _prior_box(params: Params, inputs: int) -> Iterator[str]:
    smallest, largest = len(_list(params, "min_sizes")), len(_list(params, "max_sizes"))
    if smallest == 0:
        yield "min_sizes is empty"
    if 0 < largest < smallest:
        yield f"{smallest} min_sizes have only {largest} max_sizes; ncnn reads past their end"
    sizes = (_int(params, "image_width"), _int(params, "image_height"))
    if inputs == 1 and AUTO in sizes and (largest or sizes != (AUTO, AUTO)):
        yield f"image size {sizes[0]} x {sizes[1]} is taken from a second blob, which is not there"
    elif any(size < 1 and size != AUTO for size in sizes):
        yield f"image size {sizes[0]} x {sizes[1]} has no pixels"


def _detection_output(params: Params, _: int) -> Iterator[str]:
    for name in ("nms_top_k", "keep_top_k"):
        if _int(params, name) < 1:
            yield f"{name} {params[name]} throws in ncnn; 'no limit' is the number of priors"
    if _int(params, "num_class") < 2 and _int(params, "num_class") != AUTO:
        yield f"num_class {params['num_class']} leaves no class besides the background"


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
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
