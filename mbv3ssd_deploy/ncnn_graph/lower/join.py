"""Concat, Slice and Split: blobs put together and cut apart along an axis."""

from __future__ import annotations

from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope, checked_axis


def lower_concat(node: OnnxNode, scope: Scope) -> None:
    """`Concat(a [1,100,4], b [1,25,4], axis=1)` -> `Concat 2 1 a b y`."""
    constants = [tensor for tensor in node.inputs if scope.constant(tensor) is not None]
    if constants:
        raise node.refusal(f"it joins the constant {constants[0]!r}")
    ranks = [len(scope.dims(node, tensor)) + 1 for tensor in node.inputs]
    axis = checked_axis(node, node.integer("axis", 0), ranks[0])
    if len(node.inputs) == 1:
        scope.alias(node)
        return
    scope.emit("Concat", node, tuple(map(scope.blob, node.inputs)), {"axis": axis})


def lower_slice(node: OnnxNode, scope: Scope) -> None:
    """Slice with steps of 1 -> Crop.

    Before: `Slice(x [1,72,20,20], starts=[0], ends=[36], axes=[1])`
    After: `Crop 1 1 x y -23309=1,0 -23310=1,36 -23311=1,0`
    """
    dims = scope.dims(node, node.inputs[0])
    rank = len(dims) + 1
    starts, ends = _numbers(node, scope, 1, "starts"), _numbers(node, scope, 2, "ends")
    axes = _numbers(node, scope, 3, "axes") or tuple(range(len(starts)))
    steps = _numbers(node, scope, 4, "steps") or (1,) * len(starts)
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
    scope.emit("Crop", node, (scope.blob(node.inputs[0]),), params)


def lower_split(node: OnnxNode, scope: Scope) -> None:
    """`Split(x [1,72,20,20], axis=1) -> a, b` -> `Slice 1 2 x a b -23300=2,36,36`."""
    rank = len(scope.dims(node, node.inputs[0])) + 1
    axis = checked_axis(node, node.integer("axis", 0), rank)
    sizes = tuple(scope.dims(node, tensor)[axis] for tensor in node.outputs)
    params: dict[str, Param] = {"slices": sizes, "axis": axis}
    source = (scope.blob(node.inputs[0]),)
    scope.emit_all("Slice", node, source, params, (), tensors=node.outputs)


def _numbers(node: OnnxNode, scope: Scope, index: int, name: str) -> tuple[int, ...]:
    """Return an attribute (before opset 10) or a constant input as integers; () when absent."""
    tensor = node.optional_input(index)
    if not tensor:
        return node.integers(name, ())
    value = scope.constant(tensor)
    if value is None:
        raise node.refusal(f"its {name} are computed from the input")
    return tuple(int(number) for number in value.ravel())


def _within(position: int, size: int) -> int:
    """Return a slice limit as an index into an axis of `size`, as Python's slices read it."""
    return max(0, min(size, position + size if position < 0 else position))
