"""Limits in every spelling become one Clip, and a Clip without an upper limit becomes a ReLU.

Before: `BinaryOp a 1 1 x m 0=4 1=1 2=0.0` (maximum), `BinaryOp b 1 1 m y 0=5 1=1 2=6.0` (minimum)
After:  `Clip b 1 1 x y 0=0.0 1=6.0`

Before: `ReLU r 1 1 x m`, `Clip c 1 1 m y 0=-1.0 1=6.0`
After:  `Clip c 1 1 x y 0=0.0 1=6.0`

clip(clip(x, a, b), c, d) = clip(x, clip(a, c, d), clip(b, c, d)) for a <= b.

Why: what recognises HardSigmoid, and what fuses activations, has one spelling to look for.
"""

from __future__ import annotations

from mbv3ssd_deploy.ncnn_graph.codes import BinaryOpType
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, float_param, int_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import FLOAT32_MAX, build_layer


def merge_clips(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with limits merged and spelt alike; the same object when they are already."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    limits = _limits(layer)
    if limits is None:
        return None
    source = layer.inputs[0]
    inner = _limits(view.producer(source))
    if inner is not None and view.is_private(source):
        low, high = limits
        limits = min(max(inner[0], low), high), min(max(inner[1], low), high)
        source = view.producer(source).inputs[0]
    new = _clip(layer, source, limits)
    return None if new == layer else (new,)


def _limits(layer: NcnnLayer) -> tuple[float, float] | None:
    if layer.type == "Clip":
        return float_param(layer, "min"), float_param(layer, "max")
    if layer.type == "ReLU" and float_param(layer, "slope") == 0.0:
        return 0.0, FLOAT32_MAX
    if layer.type == "BinaryOp" and int_param(layer, "with_scalar"):
        b = float_param(layer, "b")
        op = int_param(layer, "op_type")
        if op == BinaryOpType.MAX:
            return b, FLOAT32_MAX
        if op == BinaryOpType.MIN:
            return -FLOAT32_MAX, b
    return None


def _clip(layer: NcnnLayer, source: str, limits: tuple[float, float]) -> NcnnLayer:
    if limits == (0.0, FLOAT32_MAX):
        return build_layer("ReLU", layer.name, (source,), layer.outputs)
    params = {"min": limits[0], "max": limits[1]}
    return build_layer("Clip", layer.name, (source,), layer.outputs, params)
