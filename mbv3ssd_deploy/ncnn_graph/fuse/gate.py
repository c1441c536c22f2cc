"""A HardSigmoid moves into the convolution or inner product before it, as a fused Clip.

Before: `InnerProduct 1 1 x m ...`, `HardSigmoid 1 1 m gate 0=1.66666672e-01 1=5.00000000e-01`
After:  `InnerProduct 1 1 x gate ... 9=3 -23310=2,0.00000000e+00,1.00000000e+00`

HardSigmoid has no fused form in ncnn, but clip(alpha (W x + b) + beta, 0, 1) is a Clip behind the
weights alpha W and the bias alpha b + beta. It runs after HardSwish has been recognised, which
needs the gate of a product with its own input.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mbv3ssd_deploy.ncnn_graph.codes import ActivationType
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, float_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.fuse.linear_layer import is_plain_linear, scaled_and_shifted
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Param
from mbv3ssd_deploy.ncnn_graph.layers import build_layer

_CLIP_TO_ONE: Final[dict[str, Param]] = {
    "activation_type": int(ActivationType.CLIP),
    "activation_params": (0.0, 1.0),
}


def fuse_gates(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with them fused; the same object when there is none to fuse."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    if layer.type != "HardSigmoid":
        return None
    before = view.producer(layer.inputs[0])
    if not is_plain_linear(before) or not view.is_private(layer.inputs[0]):
        return None
    alpha, beta = np.array(float_param(layer, "alpha")), np.array(float_param(layer, "beta"))
    gate = scaled_and_shifted(before, alpha, beta, layer.outputs[0])
    params = {**gate.params, **_CLIP_TO_ONE}
    return (
        build_layer(gate.type, gate.name, gate.inputs, gate.outputs, params, weights=gate.weights),
    )
