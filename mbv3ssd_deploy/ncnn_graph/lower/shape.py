"""What moves numbers without changing them: Reshape and its kin, Transpose, Concat, Slice, Split.

Identity, Dropout and a Cast to float32 are here too: they become nothing.
"""

from __future__ import annotations

import onnx

from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import PERMUTE_ORDERS
from mbv3ssd_deploy.ncnn_graph.lower.scope import OnnxNode, Scope, checked_axis, sizes_of


def lower_reshape(node: OnnxNode, scope: Scope) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze -> Reshape to numbers, or nothing where none change.

    The shape is the one that ONNX's shape inference found, which resolves 0, -1 and `allowzero`.

    Before: `Reshape(x [1,20,20,24], [1,-1,4])`
    After: `Reshape 1 1 x y 0=4 1=2400`
    """
    dims = scope.dims(node, node.outputs[0])
    if scope.dims(node, node.inputs[0]) == dims:
        scope.alias(node)
    else:
        scope.emit(node, "Reshape", sizes_of(dims))


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
        scope.emit(node, "Reshape", sizes_of(scope.dims(node, node.outputs[0])))
        return
    letters = "_chw" if rank == 4 else "_hw"
    order = "".join(letters[axis] for axis in reversed(perm[1:]))
    scope.emit(node, "Permute", {"order_type": PERMUTE_ORDERS[order]})


def lower_identity(node: OnnxNode, scope: Scope) -> None:
    """Identity -> nothing: the output is the input's blob."""
    scope.alias(node)


def lower_dropout(node: OnnxNode, scope: Scope) -> None:
    """Dropout in eval mode -> nothing; since opset 12 an input may turn training mode on."""
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


def lower_concat(node: OnnxNode, scope: Scope) -> None:
    """`Concat(a [1,100,4], b [1,25,4], axis=1)` -> `Concat 2 1 a b y`."""
    constants = [tensor for tensor in node.inputs if tensor in scope.constants]
    if constants:
        raise node.refusal(f"it joins the constant {constants[0]!r}")
    ranks = [len(scope.dims(node, tensor)) + 1 for tensor in node.inputs]
    axis = checked_axis(node, node.integer("axis", 0), ranks[0])
    if len(node.inputs) == 1:
        scope.alias(node)
        return
    blobs = tuple(scope.blob_of[tensor] for tensor in node.inputs)
    scope.emit(node, "Concat", {"axis": axis}, blobs=blobs)


def lower_slice(node: OnnxNode, scope: Scope) -> None:
    """Slice with steps of 1 -> Crop.

    Before: `Slice(x [1,72,20,20], starts=[0], ends=[36], axes=[1])`
    After: `Crop 1 1 x y -23309=1,0 -23310=1,36 -23311=1,0`
    """
    dims = scope.dims(node, node.inputs[0])
    rank = len(dims) + 1
    starts, ends = scope.integers(node, 1, "starts"), scope.integers(node, 2, "ends")
    axes = scope.integers(node, 3, "axes") or tuple(range(len(starts)))
    steps = scope.integers(node, 4, "steps") or (1,) * len(starts)
    if set(steps) != {1}:
        raise node.refusal(f"its steps are {list(steps)}; only steps of 1 are lowered")
    own_axes = tuple(checked_axis(node, axis, rank) for axis in axes)
    scope.dims(node, node.outputs[0])  # refuses an empty one, which ncnn would read as a whole axis
    sizes = [dims[axis] for axis in own_axes]
    params: dict[str, Param] = {
        "starts": tuple(_within(s, n) for s, n in zip(starts, sizes, strict=True)),
        "ends": tuple(_within(e, n) for e, n in zip(ends, sizes, strict=True)),
        "axes": own_axes,
    }
    scope.emit(node, "Crop", params)


def lower_split(node: OnnxNode, scope: Scope) -> None:
    """`Split(x [1,72,20,20], axis=1) -> a, b` -> `Slice 1 2 x a b -23300=2,36,36`."""
    rank = len(scope.dims(node, node.inputs[0])) + 1
    axis = checked_axis(node, node.integer("axis", 0), rank)
    sizes = tuple(scope.dims(node, tensor)[axis] for tensor in node.outputs)
    scope.emit(node, "Slice", {"slices": sizes, "axis": axis}, tensors=node.outputs)


def _within(position: int, size: int) -> int:
    """Return a slice limit as an index into an axis of `size`, as Python's slices read it."""
    return max(0, min(size, position + size if position < 0 else position))
