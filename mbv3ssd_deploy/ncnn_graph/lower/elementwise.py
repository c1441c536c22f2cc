"""Activations, arithmetic between two tensors or a tensor and a constant, and the square.

ncnn's broadcasting is not numpy's. All its releases agree on equal shapes, on a single number, and
on a gate of one number a channel, (c, 1, 1) against (c, h, w). Constants are brought into one of
these forms; two tensors that are in none of them are refused.
"""

from __future__ import annotations

import math

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.graph import Param, Weight
from mbv3ssd_deploy.ncnn_graph.layers import FLOAT32_MAX, BinaryOpType
from mbv3ssd_deploy.ncnn_graph.lower.scope import OnnxNode, Scope, checked_axis, sizes_of

Dims = tuple[int, ...]


def lower_activation(node: OnnxNode, scope: Scope) -> None:
    """Activations without parameters, and LeakyRelu.

    `Relu(x)` -> `ReLU 1 1 x y`, `Sigmoid(x)` -> `Sigmoid 1 1 x y`
    `LeakyRelu(x, alpha=0.1)` -> `ReLU 1 1 x y 0=1.00000000e-01`
    `HardSwish(x)` -> `HardSwish 1 1 x y 0=1.66666672e-01 1=5.00000000e-01`: ONNX's operator is
    x * max(0, min(1, x / 6 + 0.5)).
    """
    params: dict[str, Param] = {}
    if node.op_type == "LeakyRelu":
        params = {"slope": node.number("alpha", 0.01)}
    elif node.op_type == "HardSwish":
        params = {"alpha": 1 / 6, "beta": 0.5}
    type_ = "ReLU" if node.op_type in {"Relu", "LeakyRelu"} else node.op_type
    _emit(node, scope, type_, **params)


def lower_hard_sigmoid(node: OnnxNode, scope: Scope) -> None:
    """`HardSigmoid(x, alpha=1/6)` -> `HardSigmoid 1 1 x y 0=1.66666672e-01 1=5.00000000e-01`.

    The defaults are ONNX's, 0.2 and 0.5 (operator HardSigmoid).
    """
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if alpha <= 0:
        raise node.refusal(f"alpha is {alpha:g}, and ncnn divides by it and requires it positive")
    _emit(node, scope, "HardSigmoid", alpha=alpha, beta=beta)


def lower_clip(node: OnnxNode, scope: Scope) -> None:
    """Clip -> Clip, its limits taken from attributes (before opset 11) or inputs.

    Before: `Clip(x, 0, 6)`
    After: `Clip 1 1 x y 0=0.00000000e+00 1=6.00000000e+00`
    """
    low = _limit(node, scope, 1, "min", -FLOAT32_MAX)
    high = _limit(node, scope, 2, "max", FLOAT32_MAX)
    if low > high:
        raise node.refusal(f"its lower limit {low:g} is above the upper one, {high:g}")
    _emit(node, scope, "Clip", min=low, max=high)


def lower_softmax(node: OnnxNode, scope: Scope) -> None:
    """`Softmax(x [1,P,C], axis=2)` -> `Softmax 1 1 x y 0=1 1=1`."""
    rank = len(scope.dims(node, node.inputs[0])) + 1
    old = scope.opset < 13
    axis = node.integer("axis", 1 if old else -1) % rank
    if old and axis != rank - 1:
        raise node.refusal("before opset 13 it flattens all axes behind `axis` into one")
    _emit(node, scope, "Softmax", axis=checked_axis(node, axis, rank), fixbug0=1)


def _limit(node: OnnxNode, scope: Scope, index: int, name: str, default: float) -> float:
    """Return a limit of Clip; one beyond float32 is no limit, and ncnn cannot read `inf`."""
    tensor = node.optional_input(index)
    value = node.number(name, default)
    if tensor:
        value = scope.weight(node, tensor, f"{name} limit").item()
    return max(-FLOAT32_MAX, min(FLOAT32_MAX, value))


def _emit(node: OnnxNode, scope: Scope, type_: str, **params: Param) -> None:
    scope.dims(node, node.inputs[0])
    scope.emit(node, type_, params)


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
    for tensor in node.inputs:
        _check_broadcast(node, scope, tensor, out)
    divisor = scope.constants.get(node.inputs[1]) if node.op_type == "Div" else None
    if divisor is not None and not divisor.all():
        raise node.refusal("it divides by 0")
    blobs = tuple(_operand(node, scope, tensor, out) for tensor in node.inputs)
    scope.emit(node, "BinaryOp", {"op_type": int(BinaryOpType[node.op_type.upper()])}, blobs=blobs)


def lower_pow(node: OnnxNode, scope: Scope) -> None:
    """A square -> a product: ncnn's own power is wrong where the base is negative.

    Before: `Pow(x, 2)`
    After: `BinaryOp 2 1 x x y 0=2`
    """
    base, exponent = node.inputs
    power = scope.constants.get(exponent)
    is_square = power is not None and bool(np.all(power == 2))
    if not is_square or scope.dims(node, base) != scope.dims(node, node.outputs[0]):
        raise node.refusal("squares alone are lowered: ncnn's power fails on negative numbers")
    x = scope.blob_of[base]
    scope.emit(node, "BinaryOp", {"op_type": int(BinaryOpType.MUL)}, blobs=(x, x))


def _check_broadcast(node: OnnxNode, scope: Scope, tensor: str, out: Dims) -> None:
    if tensor in scope.constants:
        return
    dims = scope.dims(node, tensor)
    is_stretchable = math.prod(dims) == 1 or _is_gate(dims, out)
    if dims != out and not (len(dims) == len(out) and is_stretchable):
        raise node.refusal(
            f"ncnn cannot stretch {tensor!r} from {list(dims)} to {list(out)}"
            " the same way in all its releases"
        )


def _is_gate(dims: Dims, out: Dims) -> bool:
    return len(out) == 3 and dims == (out[0], 1, 1)


def _operand(node: OnnxNode, scope: Scope, tensor: str, out: Dims) -> str:
    if tensor not in scope.constants:
        return scope.blob_of[tensor]
    value = _constant_in_safe_form(node, scope.weight(node, tensor, "operand"), out)
    weights = (Weight("data", value),)
    return scope.emit_between(node, "MemoryData", sizes_of(value.shape), weights, blobs=())


def _constant_in_safe_form(node: OnnxNode, value: F32, out: Dims) -> F32:
    """Return the constant as one number, as (c, 1, 1), or stretched to `out`."""
    if value.size == 1:
        return value.reshape(1)
    full = value.reshape((1,) * (len(out) + 1 - value.ndim) + value.shape)
    if full.shape[0] != 1:
        raise node.refusal("its constant operand differs along the batch axis")
    dims = full.shape[1:]
    return full.reshape(dims) if _is_gate(dims, out) else np.broadcast_to(full.reshape(dims), out)
