"""BatchNorm is folded into the convolution or inner product before it.

Before: `Convolution conv 1 1 x m ...`, `BatchNorm norm 1 1 m y 0=16 1=1.00000000e-03`
After:  `Convolution conv 1 1 x y ... 5=1`

slope (m - mean) / sqrt(var + eps) + bias, by channel (arXiv 1502.03167, algorithm 2).

Why: the layer and its pass over the map cost nothing any more.
"""

from __future__ import annotations

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, float_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.fuse.linear_layer import is_plain_linear, scaled_and_shifted
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes


def fold_batch_norms(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with them folded; the same object when there is none to fold."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    if layer.type != "BatchNorm":
        return None
    before = view.producer(layer.inputs[0])
    if not is_plain_linear(before) or not view.is_private(layer.inputs[0]):
        return None
    if before.type == "InnerProduct" and not is_vector(view.graph, layer.inputs[0]):
        return None
    scale, shift = scale_and_shift_of_norm(layer)
    return (scaled_and_shifted(before, scale, shift, layer.outputs[0]),)


def scale_and_shift_of_norm(layer: NcnnLayer) -> tuple[F64, F64]:
    """Return what a BatchNorm multiplies each channel with, and then adds to it."""
    numbers = {weight.role: weight.data.astype(np.float64) for weight in layer.weights}
    scale = numbers["slope"] / np.sqrt(numbers["var"] + float_param(layer, "eps"))
    return scale, numbers["bias"] - scale * numbers["mean"]


def is_vector(graph: NcnnGraph, blob: str) -> bool:
    """Return whether `blob` is known to be (w); BatchNorm scales the rows of an (h, w)."""
    return len(infer_shapes(graph).blobs.get(blob, ())) == 1
