"""Conv and the poolings: sliding windows, global poolings, and the mean over a whole map."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mbv3ssd_deploy.ncnn_graph.graph import Param, Weight
from mbv3ssd_deploy.ncnn_graph.layers import PadMode, PoolingType
from mbv3ssd_deploy.ncnn_graph.lower.scope import OnnxNode, Scope, sizes_of

Pair = tuple[int, int]
"""Of an axis each: vertical, horizontal."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A 2-D window on a map of `size` rows and columns."""

    size: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    pads_before: Pair = (0, 0)
    pads_after: Pair = (0, 0)

    def params(self) -> dict[str, Param]:
        """Return the parameters that Convolution and Pooling share."""
        return {
            "kernel_w": self.kernel[1],
            "kernel_h": self.kernel[0],
            "stride_w": self.stride[1],
            "stride_h": self.stride[0],
            "pad_left": self.pads_before[1],
            "pad_right": self.pads_after[1],
            "pad_top": self.pads_before[0],
            "pad_bottom": self.pads_after[0],
        }

    def room(self, axis: int) -> int:
        """Return how far the window can move on `axis` within the padded map."""
        padded = self.pads_before[axis] + self.size[axis] + self.pads_after[axis]
        return padded - (self.kernel[axis] - 1) * self.dilation[axis] - 1

    def same_pads(self) -> tuple[Pair, Pair]:
        """Return the smaller and the larger half of the SAME padding on each axis."""
        steps = [(-(-self.size[a] // self.stride[a]) - 1) * self.stride[a] for a in (0, 1)]
        high, wide = (max(steps[a] - self.room(a), 0) for a in (0, 1))
        return (high // 2, wide // 2), (-(-high // 2), -(-wide // 2))


def _window_of(node: OnnxNode, kernel: tuple[int, ...], dims: tuple[int, ...]) -> _Window:
    """Return the window of `node` with `kernel` on a map of `dims` (channels, rows, columns).

    `auto_pad` is turned into numbers: output = ceil(input / stride) (ONNX, operator Conv).
    """
    if len(kernel) != 2 or len(dims) != 3:
        raise node.refusal(f"its window has {len(kernel)} axes; only 2-D maps are lowered")
    strides, dilations = node.integers("strides", (1, 1)), node.integers("dilations", (1, 1))
    pads = node.integers("pads", (0, 0, 0, 0))
    if not len(strides) == len(dilations) == len(pads) // 2 == 2:
        raise node.refusal("its strides, dilations or pads are not those of two axes")
    if min(*kernel, *strides, *dilations) < 1:
        raise node.refusal("its kernel, strides or dilations are below 1")
    window = _Window(_pair(dims[1:]), _pair(kernel), _pair(strides), _pair(dilations))
    before, after = _pair(pads[:2]), _pair(pads[2:])
    auto_pad = node.attributes.get("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        before = after = (0, 0)
    elif auto_pad == "SAME_UPPER":
        before, after = window.same_pads()
    elif auto_pad == "SAME_LOWER":
        after, before = window.same_pads()
    elif auto_pad not in {"NOTSET", ""}:
        raise node.refusal(f"auto_pad {auto_pad!r} is unknown")
    if min(*before, *after) < 0:
        raise node.refusal("its padding is negative")
    return replace(window, pads_before=before, pads_after=after)


def _pair(values: tuple[int, ...]) -> Pair:
    return values[0], values[1]


def lower_conv(node: OnnxNode, scope: Scope) -> None:
    """Conv -> Convolution, or ConvolutionDepthWise when it has groups.

    The weights lie alike in both: [out, in / group, rows, columns].

    Before: `Conv(x, weight [16,3,3,3], bias [16], strides=[2,2], pads=[1,1,1,1])`
    After: `Convolution 1 1 x y 0=16 1=3 3=2 4=1 5=1 6=432`
    """
    weight = scope.weight(node, node.inputs[1], "weight")
    window = _window_of(node, weight.shape[2:], scope.dims(node, node.inputs[0]))
    group = node.integer("group", 1)
    bias = node.optional_input(2)
    params: dict[str, Param] = {
        "num_output": weight.shape[0],
        "dilation_w": window.dilation[1],
        "dilation_h": window.dilation[0],
        "bias_term": int(bool(bias)),
        "weight_data_size": weight.size,
        **window.params(),
    }
    weights = [Weight("weight", weight)]
    if bias:
        weights.append(Weight("bias", scope.weight(node, bias, "bias")))
    type_ = "Convolution" if group == 1 else "ConvolutionDepthWise"
    if group != 1:
        params["group"] = group
    scope.emit(node, type_, params, tuple(weights))


def lower_pool(node: OnnxNode, scope: Scope) -> None:
    """A pooling with a window -> Pooling.

    `MaxPool(x, kernel_shape=[3,3], strides=[2,2])` -> `Pooling 1 1 x y 1=3 2=2 5=1`
    `AveragePool(x, kernel_shape=[2,2], strides=[2,2])` -> `Pooling 1 1 x y 0=1 1=2 2=2 5=1`
    """
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refusal("its second output, the indices, has no ncnn form")
    dims = scope.dims(node, node.inputs[0])
    window = _window_of(node, node.integers("kernel_shape", ()), dims)
    if window.dilation != (1, 1):
        raise node.refusal("it is dilated, and ncnn's Pooling is not")
    if window.kernel == dims[1:] and not any((*window.pads_before, *window.pads_after)):
        lower_global_pool(node, scope)
        return
    is_max = node.op_type == "MaxPool"
    # where the windows fill the padded map exactly, ceil and floor agree
    is_even = all(window.room(axis) % window.stride[axis] == 0 for axis in (0, 1))
    rounds_up = bool(node.integer("ceil_mode", 0)) and not is_even
    if rounds_up and not is_max:
        raise node.refusal("its last windows hang over the edge (ceil_mode), which ncnn counts")
    if rounds_up and _ends_in_padding(window):
        raise node.refusal("its last windows lie in the padding (ceil_mode): ONNX drops them")
    params: dict[str, Param] = {
        "pooling_type": int(PoolingType.MAX if is_max else PoolingType.AVERAGE),
        "pad_mode": int(PadMode.FULL if rounds_up else PadMode.VALID),
        "avgpool_count_include_pad": 0 if is_max else node.integer("count_include_pad", 0),
        **window.params(),
    }
    scope.emit(node, "Pooling", params)


def _ends_in_padding(window: _Window) -> bool:
    """Return whether, rounded up, a last window starts behind the map (ONNX, operator MaxPool)."""
    return any(
        -(-window.room(axis) // window.stride[axis]) * window.stride[axis]
        >= window.pads_before[axis] + window.size[axis]
        for axis in (0, 1)
    )


def lower_global_pool(node: OnnxNode, scope: Scope) -> None:
    """A pooling over the whole map -> Pooling that keeps (c, 1, 1).

    `GlobalAveragePool(x)` -> `Pooling 1 1 x y 0=1 7=1 8=1`
    `GlobalMaxPool(x)` -> `Pooling 1 1 x y 7=1 8=1`

    ncnn's `global_pooling` would give (c); a fusion goes there where everything after it allows.
    """
    if len(scope.dims(node, node.inputs[0])) != 3:
        raise node.refusal("only 2-D maps are pooled")
    scope.emit(node, "Pooling", _global_params(node))


def _global_params(node: OnnxNode) -> dict[str, Param]:
    kind = PoolingType.MAX if "MaxPool" in node.op_type else PoolingType.AVERAGE
    return {"pooling_type": int(kind), "adaptive_pooling": 1, "out_w": 1, "out_h": 1}


def lower_reduce_mean(node: OnnxNode, scope: Scope) -> None:
    """ReduceMean over rows and columns -> the Pooling of GlobalAveragePool.

    Axes are an attribute before opset 18 and an input since. With `keepdims=0` a Reshape follows.

    Before: `ReduceMean(x [1,72,40,40], axes=[2,3], keepdims=1)`
    After: `Pooling 1 1 x y 0=1 7=1 8=1`
    """
    rank = len(scope.dims(node, node.inputs[0])) + 1
    axes = scope.integers(node, 1, "axes")
    if rank != 4 or {axis % rank for axis in axes} != {2, 3}:
        raise node.refusal(f"it averages over axes {list(axes)}; rows and columns are lowered")
    if node.integer("keepdims", 1):
        lower_global_pool(node, scope)
        return
    source = (scope.blob_of[node.inputs[0]],)
    pooled = scope.emit_between(node, "Pooling", _global_params(node), blobs=source)
    sizes = sizes_of(scope.dims(node, node.outputs[0]))
    scope.emit(node, "Reshape", sizes, blobs=(pooled,))
