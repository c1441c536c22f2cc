"""Add, Sub, Mul, Div, Max, Min between tensors and with constants, and the square.

ncnn's broadcasting is not numpy's. All its releases agree on equal shapes, on a single number, and
on a gate of one number a channel, (c, 1, 1) against (c, h, w). Constants are brought into one of
these forms; two tensors that are in none of them are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.codes import BinaryOpType
from mbv3ssd_deploy.ncnn_graph.graph import Weight
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope

BINARY_OPS: Final[Mapping[str, BinaryOpType]] = MappingProxyType(
    {
        "Add": BinaryOpType.ADD,
        "Sub": BinaryOpType.SUB,
        "Mul": BinaryOpType.MUL,
        "Div": BinaryOpType.DIV,
        "Max": BinaryOpType.MAX,
        "Min": BinaryOpType.MIN,
    }
)

Dims = tuple[int, ...]


def lower_binary(node: OnnxNode, scope: Scope) -> None:
    """An arithmetic node -> BinaryOp; constants become MemoryData, which a fusion folds in.

    Before: `Mul(x [1,72,40,40], gate [1,72,1,1])`
    After: `BinaryOp 2 1 x gate y 0=2`
    """
    if len(node.inputs) == 1:
        scope.alias(node)
        return
    if len(node.inputs) > 2:
        raise node.refusal(f"it has {len(node.inputs)} operands; two are lowered")
    out = scope.dims(node, node.outputs[0])
    _check_broadcast(node, scope, out)
    _check_divisor(node, scope)
    blobs = tuple(_operand(node, scope, tensor, out) for tensor in node.inputs)
    scope.emit("BinaryOp", node, blobs, {"op_type": int(BINARY_OPS[node.op_type])})


def lower_pow(node: OnnxNode, scope: Scope) -> None:
    """A square -> a product: ncnn's own power is wrong where the base is negative.

    Before: `Pow(x, 2)`
    After: `BinaryOp 2 1 x x y 0=2`
    """
    base, exponent = node.inputs
    power = scope.constant(exponent)
    is_square = power is not None and bool(np.all(power == 2))
    if not is_square or scope.dims(node, base) != scope.dims(node, node.outputs[0]):
        raise node.refusal("squares alone are lowered: ncnn's power fails on negative numbers")
    x = scope.blob(base)
    scope.emit("BinaryOp", node, (x, x), {"op_type": int(BinaryOpType.MUL)})


def _check_broadcast(node: OnnxNode, scope: Scope, out: Dims) -> None:
    for tensor in node.inputs:
        if scope.constant(tensor) is None:
            dims = scope.dims(node, tensor)
            same_rank = len(dims) == len(out)
            if not (dims == out or (same_rank and (math.prod(dims) == 1 or _is_gate(dims, out)))):
                raise node.refusal(
                    f"ncnn cannot stretch {tensor!r} from {list(dims)} to {list(out)}"
                    " the same way in all its releases"
                )


def _check_divisor(node: OnnxNode, scope: Scope) -> None:
    divisor = scope.constant(node.inputs[1]) if node.op_type == "Div" else None
    if divisor is not None and not divisor.all():
        raise node.refusal("it divides by 0")


def _is_gate(dims: Dims, out: Dims) -> bool:
    return len(out) == 3 and dims == (out[0], 1, 1)


def _operand(node: OnnxNode, scope: Scope, tensor: str, out: Dims) -> str:
    if scope.constant(tensor) is None:
        return scope.blob(tensor)
    value = _constant_in_safe_form(node, scope.weight(node, tensor, "operand"), out)
    sizes = dict(zip("whc", reversed(value.shape), strict=False))
    return scope.emit_between("MemoryData", node, (), sizes, (Weight("data", value),))


def _constant_in_safe_form(node: OnnxNode, value: F32, out: Dims) -> F32:
    """Return the constant as one number, as (c, 1, 1), or stretched to `out`."""
    if value.size == 1:
        return value.reshape(1)
    full = value.reshape((1,) * (len(out) + 1 - value.ndim) + value.shape)
    if full.shape[0] != 1:
        raise node.refusal("its constant operand differs along the batch axis")
    dims = full.shape[1:]
    if _is_gate(dims, out):
        return full.reshape(dims)
    return np.broadcast_to(full.reshape(dims), out)
