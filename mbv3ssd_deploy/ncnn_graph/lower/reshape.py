"""Everything that moves numbers without changing them: Reshape and its kin, Transpose, Identity."""

from __future__ import annotations

import onnx

from mbv3ssd_deploy.ncnn_graph.codes import PERMUTE_ORDERS
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope


def lower_reshape(node: OnnxNode, scope: Scope) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze -> Reshape to numbers, or nothing where none change.

    The shape is the one that ONNX's shape inference has found: 0, -1 and `allowzero` are settled.

    Before: `Reshape(x [1,20,20,24], [1,-1,4])`
    After: `Reshape 1 1 x y 0=4 1=2400`
    """
    if scope.dims(node, node.inputs[0]) == scope.dims(node, node.outputs[0]):
        scope.alias(node)
    else:
        emit_reshape(node, scope, scope.blob(node.inputs[0]))


def emit_reshape(node: OnnxNode, scope: Scope, blob: str) -> None:
    """Add the layer that gives `blob` the shape of the node's first output."""
    dims = scope.dims(node, node.outputs[0])
    scope.emit("Reshape", node, (blob,), dict(zip("whc", reversed(dims), strict=False)))


def lower_transpose(node: OnnxNode, scope: Scope) -> None:
    """Transpose -> Permute, or nothing where no axis moves.

    Where axes of size 1 alone change their places, numbers keep theirs, and a Reshape does.

    Before: `Transpose(x [1,24,20,20], perm=[0,2,3,1])`
    After: `Permute 1 1 x y 0=3`
    """
    dims = scope.dims(node, node.inputs[0])
    rank = len(dims) + 1
    perm = node.integers("perm", tuple(reversed(range(rank))))
    if perm[0] != 0:
        raise node.refusal("it moves the batch axis, which ncnn does not have")
    if perm == tuple(range(rank)):
        scope.alias(node)
        return
    long_axes = [axis for axis in perm[1:] if dims[axis - 1] != 1]
    if long_axes == sorted(long_axes):
        emit_reshape(node, scope, scope.blob(node.inputs[0]))
        return
    letters = "_chw" if rank == 4 else "_hw"
    order = "".join(letters[axis] for axis in reversed(perm[1:]))
    params = {"order_type": PERMUTE_ORDERS[order]}
    scope.emit("Permute", node, (scope.blob(node.inputs[0]),), params)


def lower_identity(node: OnnxNode, scope: Scope) -> None:
    """Identity -> nothing: the output is the input's blob."""
    scope.alias(node)


def lower_dropout(node: OnnxNode, scope: Scope) -> None:
    """Dropout in eval mode -> nothing; since opset 12 an input may say that it is not."""
    mode = node.optional_input(2)
    if mode and bool(scope.weight(node, mode, "training mode").any()):
        raise node.refusal("it is in training mode", hint="export the net in eval mode")
    scope.alias(node)


def lower_cast(node: OnnxNode, scope: Scope) -> None:
    """Cast from float32 to float32 -> nothing."""
    scope.dims(node, node.inputs[0])
    if node.integer("to", onnx.TensorProto.FLOAT) != onnx.TensorProto.FLOAT:
        raise node.refusal("it leaves float32")
    scope.alias(node)
