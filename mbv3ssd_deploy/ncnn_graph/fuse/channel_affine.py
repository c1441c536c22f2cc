"""Constants added to or multiplied with a convolution's result are folded into its weights.

Before: `Convolution conv 1 1 x m ...`, `BinaryOp 2 1 m scale y 0=2` (scale: MemoryData, (c, 1, 1))
After:  `Convolution conv 1 1 x y ... 5=1`

It runs after HardSigmoid and HardSwish have been recognised, which look for such constants.

Why: the pass over the map costs nothing any more, nor does the constant, which ncnn copies for each
image.
"""

from __future__ import annotations

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.ncnn_graph.codes import BinaryOpType
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, float_param, int_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.fuse.linear_layer import is_plain_linear, scaled_and_shifted
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer


def fold_channel_affines(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with them folded; the same object when there is none to fold."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    if layer.type != "BinaryOp":
        return None
    for blob in layer.inputs:
        before = view.producer(blob)
        if is_plain_linear(before) and view.is_private(blob):
            operand = _operand(view, layer, blob, int_param(before, "num_output"))
            step = None if operand is None else _scale_and_shift(layer, operand, blob)
            if step is not None:
                return (scaled_and_shifted(before, *step, layer.outputs[0]),)
    return None


def _operand(view: GraphView, layer: NcnnLayer, blob: str, channels: int) -> F64 | None:
    """Return the other operand as one number a channel, or one for all, if it is constant."""
    if int_param(layer, "with_scalar"):
        return np.array(float_param(layer, "b"))
    other = layer.inputs[1] if layer.inputs[0] == blob else layer.inputs[0]
    maker = view.producer(other)
    is_channel_wise = (
        maker.type == "MemoryData"
        and int_param(maker, "c") == channels
        and maker.weights[0].data.size == channels
    )
    return maker.weights[0].data.ravel().astype(np.float64) if is_channel_wise else None


def _scale_and_shift(layer: NcnnLayer, operand: F64, blob: str) -> tuple[F64, F64] | None:
    op = BinaryOpType(int_param(layer, "op_type"))
    if layer.inputs[0] != blob and op is BinaryOpType.SUB:
        op = BinaryOpType.RSUB
    one, zero = np.array(1.0), np.array(0.0)
    if op is BinaryOpType.ADD:
        return one, operand
    if op is BinaryOpType.SUB:
        return one, -operand
    if op is BinaryOpType.RSUB:
        return -one, operand
    if op is BinaryOpType.MUL:
        return operand, zero
    is_divisor = op is BinaryOpType.DIV and layer.inputs[0] == blob and bool(np.all(operand))
    return (1.0 / operand, zero) if is_divisor else None
