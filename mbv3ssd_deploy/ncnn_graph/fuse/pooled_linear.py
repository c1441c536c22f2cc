"""What follows a global pooling works on one number a channel: squeeze-and-excitation.

Before: `Pooling 1 1 x p 0=1 7=1 8=1` (c, 1, 1), `Convolution 1x1`, `ReLU`, `Convolution 1x1`,
        `HardSigmoid`, `BinaryOp x * gate`
After:  `Pooling 1 1 x p 0=1 4=1` (c), `InnerProduct`, `ReLU`, `InnerProduct`, `HardSigmoid`,
        `BinaryOp x * gate`

ncnn broadcasts a gate of (c) over (c, h, w) in all its releases. Reshapes between (c) and
(c, 1, 1), as `nn.Linear` gates have them, fall away. The rewrite is made for a pooling as a whole
or not at all: one reader that needs the (c, 1, 1) shape keeps everything as it was.

Why: a 1x1 convolution of one pixel is the slower kernel, by 1 to 2 % of a net, and Reshapes go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mbv3ssd_deploy.ncnn_graph.edit import (
    GraphView,
    int_param,
    with_inputs_rerouted,
    with_layers_replaced,
)
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import AUTO, build_layer
from mbv3ssd_deploy.ncnn_graph.shapes import Shape, infer_shapes

# They compute number by number, or take any shape as (c).
_SHAPE_BLIND: Final = frozenset(
    {"InnerProduct", "ReLU", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "BatchNorm"}
)


@dataclass(slots=True)
class _Region:
    """All that depends on one pooling up to where its gate meets a map again."""

    blobs: list[str]
    shapes: Mapping[str, Shape]
    changes: dict[str, tuple[NcnnLayer, ...]] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)


def flatten_pooled_branches(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with such branches on (c) blobs; the same object when there is none."""
    for layer in graph.layers:
        if _is_pooling_to_one(layer):
            region = _region_of(GraphView(graph, outputs), layer)
            if region is not None:
                graph = with_layers_replaced(graph, region.changes)
                graph = with_inputs_rerouted(graph, region.routes)
    return graph


def _is_pooling_to_one(layer: NcnnLayer) -> bool:
    if layer.type != "Pooling" or not int_param(layer, "adaptive_pooling"):
        return False
    return (int_param(layer, "out_w"), int_param(layer, "out_h")) == (1, 1)


def _region_of(view: GraphView, pooling: NcnnLayer) -> _Region | None:
    """Return the region of `pooling`, None when a reader in it needs the (c, 1, 1) shape."""
    kind = {"pooling_type": int_param(pooling, "pooling_type"), "global_pooling": 1}
    flat = build_layer("Pooling", pooling.name, pooling.inputs, pooling.outputs, kind)
    shapes = infer_shapes(view.graph).blobs
    region = _Region([*pooling.outputs], shapes, {pooling.name: (flat,)})
    # The list grows while it is walked.
    for blob in region.blobs:
        readers = view.readers(blob)
        if blob in view.outputs or not all(_admit(region, reader, blob) for reader in readers):
            return None
    return region


def _admit(region: _Region, layer: NcnnLayer, blob: str) -> bool:
    """Take `layer` into the region if it can read `blob` as (c); return whether it could."""
    if layer.type in _SHAPE_BLIND:
        region.blobs += layer.outputs
        return True
    rule = _RULES.get(layer.type)
    return rule is not None and rule(region, layer, blob)


def _admit_binary_op(region: _Region, layer: NcnnLayer, _blob: str) -> bool:
    """A vector with vectors and single numbers gives a vector; with a map, the map ends it."""
    others = [blob for blob in layer.inputs if blob not in region.blobs]
    shapes = [region.shapes[blob] for blob in others if blob in region.shapes]
    if len(shapes) < len(others):
        return False
    if all(len(shape) == 1 or math.prod(shape) == 1 for shape in shapes):
        region.blobs += [out for out in layer.outputs if out not in region.blobs]
    return True


def _admit_convolution(region: _Region, layer: NcnnLayer, _blob: str) -> bool:
    sizes = [int_param(layer, name) for name in ("kernel_w", "kernel_h", "stride_w", "stride_h")]
    pads = [int_param(layer, f"pad_{side}") for side in ("left", "right", "top", "bottom")]
    if set(sizes) != {1} or set(pads) != {0} or int_param(layer, "int8_scale_term"):
        return False
    shared = ("num_output", "bias_term", "weight_data_size", "activation_type", "activation_params")
    params = {name: layer.params[name] for name in shared if name in layer.params}
    linear = build_layer(
        "InnerProduct", layer.name, layer.inputs, layer.outputs, params, weights=layer.weights
    )
    region.changes[layer.name] = (linear,)
    region.blobs += layer.outputs
    return True


def _admit_reshape(region: _Region, layer: NcnnLayer, blob: str) -> bool:
    w, h, c = (int_param(layer, name) for name in "whc")
    to_vector = (h, c) == (AUTO, AUTO)
    to_pixel = (w, h) == (1, 1) and c != AUTO
    if not (to_vector or to_pixel) or int_param(layer, "d") != AUTO:
        return False
    return _admit_flatten(region, layer, blob)


def _admit_flatten(region: _Region, layer: NcnnLayer, blob: str) -> bool:
    region.changes[layer.name] = ()
    region.routes[layer.outputs[0]] = blob
    region.blobs += layer.outputs
    return True


_RULES: Final[Mapping[str, Callable[[_Region, NcnnLayer, str], bool]]] = {
    "BinaryOp": _admit_binary_op,
    "Convolution": _admit_convolution,
    "Reshape": _admit_reshape,
    "Flatten": _admit_flatten,
}
