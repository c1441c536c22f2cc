"""Gemm and MatMul with constant weights."""

from __future__ import annotations

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.graph import Param, Weight
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope


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
    scope.emit("InnerProduct", node, (scope.blob(node.inputs[0]),), params, tuple(weights))
