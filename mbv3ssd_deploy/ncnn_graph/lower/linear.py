"""Gemm, MatMul, BatchNormalization, and the division of each pixel by its length."""

from __future__ import annotations

from typing import Final

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.graph import Param, Weight
from mbv3ssd_deploy.ncnn_graph.layers import EpsMode
from mbv3ssd_deploy.ncnn_graph.lower.scope import OnnxNode, Scope, checked_axis

TINY: Final = 1e-6
"""Up to this a number added to a length only keeps an all-zero pixel from being divided by 0."""


def lower_gemm(node: OnnxNode, scope: Scope) -> None:
    """Gemm -> InnerProduct, with alpha and beta multiplied into weight and bias.

    Before: `Gemm(x [1,72], weight [18,72], bias [18], transB=1)`
    After: `InnerProduct 1 1 x y 0=18 1=1 2=1296`
    """
    if node.integer("transA", 0):
        raise node.refusal("transA mixes the batch axis with the features")
    matrix = scope.weight(node, node.inputs[1], "weight")
    transposed = matrix if node.integer("transB", 0) else matrix.T
    weight = np.float32(node.number("alpha", 1.0)) * transposed
    bias: F32 | None = None
    if node.optional_input(2):
        given = np.float32(node.number("beta", 1.0)) * scope.weight(node, node.inputs[2], "bias")
        bias = np.broadcast_to(given.reshape(-1), weight.shape[:1])
    _emit_inner_product(node, scope, weight, bias)


def lower_matmul(node: OnnxNode, scope: Scope) -> None:
    """MatMul with a constant right matrix -> InnerProduct (row by row on a 2-D blob).

    Before: `MatMul(x [1,72], matrix [72,18])`
    After: `InnerProduct 1 1 x y 0=18 2=1296`
    """
    matrix = scope.weight(node, node.inputs[1], "right matrix")
    if matrix.ndim != 2:
        raise node.refusal(f"its right matrix has {matrix.ndim} axes")
    _emit_inner_product(node, scope, matrix.T, None)


def _emit_inner_product(node: OnnxNode, scope: Scope, weight: F32, bias: F32 | None) -> None:
    dims = scope.dims(node, node.inputs[0])
    if len(dims) > 2:
        raise node.refusal(f"its input has {len(dims)} axes besides the batch")
    params: dict[str, Param] = {
        "num_output": weight.shape[0],
        "bias_term": int(bias is not None),
        "weight_data_size": weight.size,
    }
    weights = [Weight("weight", weight)]
    if bias is not None:
        weights.append(Weight("bias", bias))
    scope.emit(node, "InnerProduct", params, tuple(weights))


def lower_batch_normalization(node: OnnxNode, scope: Scope) -> None:
    """BatchNormalization -> BatchNorm; a fusion folds it into the convolution before it.

    Before: `BatchNormalization(x, scale, shift, mean, var, epsilon=1e-3)`
    After: `BatchNorm 1 1 x y 0=16 1=1.00000000e-03`
    """
    if node.integer("training_mode", 0):
        raise node.refusal("it is in training mode", hint="export the net in eval mode")
    scope.dims(node, node.inputs[0])
    names = ("scale", "shift", "mean", "variance")
    slope, bias, mean, var = (
        scope.weight(node, tensor, what)
        for tensor, what in zip(node.inputs[1:5], names, strict=True)
    )
    params: dict[str, Param] = {"channels": slope.size, "eps": node.number("epsilon", 1e-5)}
    roles = {"slope": slope, "mean": mean, "var": var, "bias": bias}
    weights = tuple(Weight(role, np.ravel(data)) for role, data in roles.items())
    scope.emit(node, "BatchNorm", params, weights)


def lower_reduce_l2(node: OnnxNode, scope: Scope) -> None:
    """The lengths by which a tensor is divided -> Normalize, for the division too.

    Three ONNX nodes are one ncnn layer. The nodes in between get no blob, so the walk passes them
    over. Normalize divides by the larger of length and epsilon, where ONNX adds the two: the same
    number but for lengths near epsilon.

    Before: `ReduceL2(x [1,8,4,5], axes=[1], keepdims=1)`, `Add(length, 1e-10)`, `Div(x, sum)`
    After: `Normalize 1 1 x y 0=0 4=1 1=1 2=1e-10 9=1 3=1`
    """
    axes = scope.integers(node, 1, "axes")
    dims = scope.dims(node, node.inputs[0])
    is_channels = [checked_axis(node, axis, len(dims) + 1) for axis in axes] == [0]
    if len(dims) != 3 or not is_channels or not node.integer("keepdims", 1):
        raise node.refusal(f"it measures along axes {list(axes)}; a map's channels are lowered")
    add = _only_reader(node, scope, "Add")
    epsilon = _epsilon(add, scope)
    div = _only_reader(add, scope, "Div")
    if div.inputs != (node.inputs[0], add.outputs[0]):
        raise node.refusal("it divides another tensor than it measures")
    params: dict[str, Param] = {
        "across_spatial": 0,
        "across_channel": 1,
        "channel_shared": 1,
        "eps": epsilon,
        "eps_mode": int(EpsMode.LEAST_LENGTH),
        "scale_data_size": 1,
    }
    one = Weight("scale", np.ones(1, np.float32))
    scope.emit(div, "Normalize", params, (one,), tensors=div.outputs)


def _only_reader(node: OnnxNode, scope: Scope, op_type: str) -> OnnxNode:
    made = node.outputs[0]
    readers = [other for other in scope.nodes if made in other.inputs]
    if len(readers) != 1 or readers[0].op_type != op_type or made in scope.output_names:
        raise node.refusal("a length is lowered where a tensor is divided by it, epsilon added")
    return readers[0]


def _epsilon(add: OnnxNode, scope: Scope) -> float:
    constants = [v for v in map(scope.constants.get, add.inputs) if v is not None and v.size == 1]
    if len(constants) != 1 or not 0 < float(constants[0].item()) <= TINY:
        raise add.refusal(f"what it adds to a length is not an epsilon of at most {TINY:g}")
    return float(constants[0].item())
