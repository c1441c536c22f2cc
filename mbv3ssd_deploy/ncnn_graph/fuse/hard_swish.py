"""x times HardSigmoid(x) becomes HardSwish(x).

Before: `HardSigmoid 1 1 x gate 0=a 1=b`, `BinaryOp 2 1 x gate y 0=2`
After:  `HardSwish 1 1 x y 0=a 1=b`

Source: ncnn, `layer/hardswish.cpp`: x clip(alpha x + beta, 0, 1).

Why: two passes over a map become one, which `activation.py` then moves into the convolution.
"""

from __future__ import annotations

from mbv3ssd_deploy.ncnn_graph.codes import BinaryOpType
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, float_param, int_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import build_layer


def recognise_hard_swishes(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with every such pair made one layer; the same object when there is none."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    if layer.type != "BinaryOp" or len(layer.inputs) != 2:
        return None
    if int_param(layer, "op_type") != BinaryOpType.MUL:
        return None
    left, right = layer.inputs
    for x, gate in ((left, right), (right, left)):
        maker = view.producer(gate)
        if maker.type == "HardSigmoid" and maker.inputs == (x,):
            params = {
                "alpha": float_param(maker, "alpha"),
                "beta": float_param(maker, "beta"),
            }
            return (build_layer("HardSwish", layer.name, (x,), layer.outputs, params),)
    return None
