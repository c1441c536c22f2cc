"""BatchNorm is folded into the convolutions and inner products behind it.

Before: `BatchNorm norm 1 1 x m 0=16 1=1.00000000e-05`, `Convolution conv 1 1 m y ...`
After:  `Convolution conv 1 1 x y ... 5=1`

W (s x + t) + b = (W s) x + (W t + b), s and t by input channel. A convolution that pads its input
with zeros sees 0 at the border, not t, so there t must be 0. It is made for all readers of the
BatchNorm or for none: one that keeps it would save nothing.

Why: the layer and its pass over the map cost nothing any more.
"""

from __future__ import annotations

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, int_param, with_layers_replaced
from mbv3ssd_deploy.ncnn_graph.fuse.batch_norm import is_vector, scale_and_shift_of_norm
from mbv3ssd_deploy.ncnn_graph.fuse.linear_layer import LINEAR_TYPES
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer


def fold_leading_norms(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with them folded; the same object when there is none to fold."""
    for norm in graph.layers:
        if norm.type != "BatchNorm":
            continue
        view = GraphView(graph, outputs)
        readers = view.readers(norm.outputs[0])
        scale, shift = scale_and_shift_of_norm(norm)
        takes_all = all(_can_take(view, reader, shift) for reader in readers)
        if readers and takes_all and norm.outputs[0] not in outputs:
            changes = {r.name: (_folded(r, scale, shift, norm.inputs[0]),) for r in readers}
            graph = with_layers_replaced(graph, {norm.name: (), **changes})
    return graph


def _can_take(view: GraphView, layer: NcnnLayer, shift: F64) -> bool:
    if layer.type not in LINEAR_TYPES or len(layer.inputs) != 1:
        return False
    if int_param(layer, "int8_scale_term"):
        return False
    if layer.type == "InnerProduct":
        return is_vector(view.graph, layer.inputs[0])
    sides = ("left", "right", "top", "bottom")
    is_padded = any(int_param(layer, f"pad_{side}") for side in sides)
    return not is_padded or not shift.any()


def _folded(layer: NcnnLayer, scale: F64, shift: F64, source: str) -> NcnnLayer:
    roles = {weight.role: weight.data.astype(np.float64) for weight in layer.weights}
    count = int_param(layer, "num_output")
    group = int_param(layer, "group") if layer.type == "ConvolutionDepthWise" else 1
    channels = scale.size // group
    old = roles["weight"].reshape(group, count // group, channels, -1)
    by_group = (group, 1, channels, 1)
    weight = old * scale.reshape(by_group)
    added = (old * shift.reshape(by_group)).sum(axis=(2, 3)).reshape(-1)
    bias = roles.get("bias", np.zeros(count)).reshape(-1) + added
    weights = (
        Weight("weight", weight.reshape(roles["weight"].shape).astype(np.float32)),
        Weight("bias", bias.astype(np.float32)),
    )
    params = {**layer.params, "bias_term": 1}
    return build_layer(layer.type, layer.name, (source,), layer.outputs, params, weights=weights)
