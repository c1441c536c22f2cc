"""Activations: one ONNX node, one ncnn layer."""

from __future__ import annotations

from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import FLOAT32_MAX
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope, checked_axis


def lower_relu(node: OnnxNode, scope: Scope) -> None:
    """`Relu(x)` -> `ReLU 1 1 x y`."""
    _emit(node, scope, "ReLU")


def lower_leaky_relu(node: OnnxNode, scope: Scope) -> None:
    """`LeakyRelu(x, alpha=0.1)` -> `ReLU 1 1 x y 0=1.00000000e-01`."""
    _emit(node, scope, "ReLU", slope=node.number("alpha", 0.01))


def lower_sigmoid(node: OnnxNode, scope: Scope) -> None:
    """`Sigmoid(x)` -> `Sigmoid 1 1 x y`."""
    _emit(node, scope, "Sigmoid")


def lower_hard_sigmoid(node: OnnxNode, scope: Scope) -> None:
    """`HardSigmoid(x, alpha=1/6)` -> `HardSigmoid 1 1 x y 0=1.66666672e-01 1=5.00000000e-01`.

    The defaults are ONNX's, 0.2 and 0.5 (operator HardSigmoid).
    """
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if alpha <= 0:
        raise node.refusal(f"alpha is {alpha:g}, and ncnn divides by it, taking it for positive")
    _emit(node, scope, "HardSigmoid", alpha=alpha, beta=beta)


def lower_hard_swish(node: OnnxNode, scope: Scope) -> None:
    """`HardSwish(x)` -> `HardSwish 1 1 x y 0=1.66666672e-01 1=5.00000000e-01`.

    ONNX's operator has no parameters: x * max(0, min(1, x / 6 + 0.5)).
    """
    _emit(node, scope, "HardSwish", alpha=1 / 6, beta=0.5)


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
    old = scope.facts.opset < 13
    axis = node.integer("axis", 1 if old else -1) % rank
    if old and axis != rank - 1:
        raise node.refusal("before opset 13 it flattens all axes behind `axis` into one")
    _emit(node, scope, "Softmax", axis=checked_axis(node, axis, rank), fixbug0=1)


def _limit(node: OnnxNode, scope: Scope, index: int, name: str, default: float) -> float:
    """Return a limit of Clip; one beyond float32 is no limit, and ncnn cannot read `inf`."""
    tensor = node.optional_input(index)
    value = node.number(name, default)
    if tensor:
        value = float(scope.weight(node, tensor, f"{name} limit").reshape(()))
    return max(-FLOAT32_MAX, min(FLOAT32_MAX, value))


def _emit(node: OnnxNode, scope: Scope, type_: str, **params: Param) -> None:
    scope.dims(node, node.inputs[0])
    scope.emit(type_, node, (scope.blob(node.inputs[0]),), params)
