"""Poolings: windowed, global, and the mean over a whole map."""

from __future__ import annotations

from mbv3ssd_deploy.ncnn_graph.codes import PadMode, PoolingType
from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.reshape import emit_reshape
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope
from mbv3ssd_deploy.ncnn_graph.lower.window import Window, window_of


def lower_max_pool(node: OnnxNode, scope: Scope) -> None:
    """`MaxPool(x, kernel_shape=[3,3], strides=[2,2])` -> `Pooling 1 1 x y 1=3 2=2 5=1`."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refusal("its second output, the indices, has no ncnn form")
    _emit_window_pooling(node, scope, PoolingType.MAX)


def lower_average_pool(node: OnnxNode, scope: Scope) -> None:
    """`AveragePool(x, kernel_shape=[2,2], strides=[2,2])` -> `Pooling 1 1 x y 0=1 1=2 2=2 5=1`."""
    _emit_window_pooling(node, scope, PoolingType.AVERAGE)


def lower_global_average_pool(node: OnnxNode, scope: Scope) -> None:
    """`GlobalAveragePool(x)` -> `Pooling 1 1 x y 0=1 7=1 8=1`: keeps (c, 1, 1).

    ncnn's `global_pooling` would give (c); a fusion goes there where everything after it allows.
    """
    _emit_global(node, scope, PoolingType.AVERAGE)


def lower_global_max_pool(node: OnnxNode, scope: Scope) -> None:
    """`GlobalMaxPool(x)` -> `Pooling 1 1 x y 7=1 8=1`."""
    _emit_global(node, scope, PoolingType.MAX)


def lower_reduce_mean(node: OnnxNode, scope: Scope) -> None:
    """ReduceMean over rows and columns -> the Pooling of GlobalAveragePool.

    Axes are an attribute before opset 18 and an input since. With `keepdims=0` a Reshape follows.

    Before: `ReduceMean(x [1,72,40,40], axes=[2,3], keepdims=1)`
    After: `Pooling 1 1 x y 0=1 7=1 8=1`
    """
    dims = scope.dims(node, node.inputs[0])
    axes = node.integers("axes", ())
    if node.optional_input(1):
        axes = tuple(int(axis) for axis in scope.weight(node, node.inputs[1], "axes").ravel())
    rank = len(dims) + 1
    if rank != 4 or {axis % rank for axis in axes} != {2, 3}:
        raise node.refusal(f"it averages over axes {list(axes)}; rows and columns are lowered")
    if node.integer("keepdims", 1):
        _emit_global(node, scope, PoolingType.AVERAGE)
    else:
        source = (scope.blob(node.inputs[0]),)
        pooled = scope.emit_between("Pooling", node, source, _global_params(PoolingType.AVERAGE))
        emit_reshape(node, scope, pooled)


def _emit_global(node: OnnxNode, scope: Scope, kind: PoolingType) -> None:
    if len(scope.dims(node, node.inputs[0])) != 3:
        raise node.refusal("only 2-D maps are pooled")
    scope.emit("Pooling", node, (scope.blob(node.inputs[0]),), _global_params(kind))


def _global_params(kind: PoolingType) -> dict[str, Param]:
    return {"pooling_type": int(kind), "adaptive_pooling": 1, "out_w": 1, "out_h": 1}


def _emit_window_pooling(node: OnnxNode, scope: Scope, kind: PoolingType) -> None:
    dims = scope.dims(node, node.inputs[0])
    window = window_of(node, node.integers("kernel_shape", ()), dims)
    if window.dilation != (1, 1):
        raise node.refusal("it is dilated, and ncnn's Pooling is not")
    if window.kernel == dims[1:] and not any((*window.pads_before, *window.pads_after)):
        _emit_global(node, scope, kind)
        return
    counts_padding = node.integer("count_include_pad", 0)
    rounds_up = bool(node.integer("ceil_mode", 0)) and not _is_even(window, dims)
    if rounds_up and kind is PoolingType.AVERAGE:
        raise node.refusal("its last windows hang over the edge (ceil_mode), which ncnn counts")
    if rounds_up and _ends_in_padding(window, dims):
        raise node.refusal("its last windows lie in the padding (ceil_mode): ONNX drops them")
    params: dict[str, Param] = {
        "pooling_type": int(kind),
        "pad_mode": int(PadMode.FULL if rounds_up else PadMode.VALID),
        "avgpool_count_include_pad": counts_padding if kind is PoolingType.AVERAGE else 0,
        **window.params(),
    }
    scope.emit("Pooling", node, (scope.blob(node.inputs[0]),), params)


def _is_even(window: Window, dims: tuple[int, ...]) -> bool:
    """Return whether the windows fill the padded map exactly, so that ceil and floor agree."""
    padded = [
        size + window.pads_before[axis] + window.pads_after[axis]
        for axis, size in enumerate(dims[1:])
    ]
    return all(
        (size - window.kernel[axis]) % window.stride[axis] == 0 for axis, size in enumerate(padded)
    )


def _ends_in_padding(window: Window, dims: tuple[int, ...]) -> bool:
    """Return whether, rounded up, a last window starts behind the map (ONNX, operator MaxPool)."""
    for axis, size in enumerate(dims[1:]):
        end = window.pads_before[axis] + size
        room = end + window.pads_after[axis] - window.kernel[axis]
        last = -(-room // window.stride[axis]) * window.stride[axis]
        if last >= end:
            return True
    return False
