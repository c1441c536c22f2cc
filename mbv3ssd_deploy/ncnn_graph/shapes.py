"""The shape of every blob, and the layers whose weights or inputs do not fit it.

ncnn never compares the number of a convolution's weights with the channels of the blob it is fed,
and runs on with whatever lies in memory. Shapes are written outermost first, as numpy shows a blob:
(w,), (h, w), (c, h, w) or (c, d, h, w).

What starts from an Input without sizes, or passes a layer type that has no rule here, is unknown,
and no problem is reported for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Problem
from mbv3ssd_deploy.ncnn_graph.layers import AUTO, LAYERS, PERMUTE_ORDERS

Shape = tuple[int, ...]
Params = Mapping[str, Any]
"""Every parameter of a layer by name: int, float, or a tuple of them, as the table says."""
Rule = Callable[[Params, tuple[Shape, ...]], Shape | None]
"""Maps every parameter and the input shapes to the output shape, None where it is unknown.

Raises ValueError with the reason when the inputs do not fit the layer."""

SAME_LOWER: Final = -234
_MAP_ORDERS: Final = {order: axes for axes, order in PERMUTE_ORDERS.items() if len(axes) == 3}


@dataclass(frozen=True, slots=True)
class Shapes:
    """The known shapes by blob name, and the layers that do not fit theirs."""

    blobs: Mapping[str, Shape]
    problems: tuple[Problem, ...]


def infer_shapes(graph: NcnnGraph, unsound: Collection[int] = ()) -> Shapes:
    """Return the shapes of all blobs of `graph` that follow from its Inputs and constants.

    Layers whose index is in `unsound` are passed over: their own parameters contradict each other.
    """
    blobs: dict[str, Shape] = {}
    problems: list[Problem] = []
    for index, layer in enumerate(graph.layers):
        inputs = tuple(blobs[blob] for blob in layer.inputs if blob in blobs)
        is_known = layer.type in RULES or layer.type == "Slice"
        if is_known and index not in unsound and len(inputs) == len(layer.inputs):
            try:
                blobs |= dict(zip(layer.outputs, _outputs(layer, inputs), strict=False))
            except ValueError as reason:
                problems.append(Problem(index, str(reason)))
    return Shapes(MappingProxyType(blobs), tuple(problems))


def _outputs(layer: NcnnLayer, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
    params = LAYERS[layer.type].resolved(layer.params)
    if layer.type == "Slice":
        return _slices(params, inputs[0], len(layer.outputs))
    shape = RULES[layer.type](params, inputs)
    return () if shape is None else (shape,) * len(layer.outputs)


def _axis(params: Params, shape: Shape) -> int:
    axis: int = params["axis"]
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} does not exist in {shape}")
    return axis % len(shape)


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _source(params: Params, _: tuple[Shape, ...]) -> Shape | None:
    w, h, d, c = (params[name] for name in "whdc")
    if d:
        return (c, d, h, w)
    if c:
        return (c, h, w)
    return ((h, w) if h else (w,)) if w else None


def _softmax(params: Params, inputs: tuple[Shape, ...]) -> Shape:
    _axis(params, inputs[0])
    return inputs[0]


def _window(params: Params, shape: Shape, *, up: bool) -> Shape:
    """Return rows and columns after a sliding window; `up` rounds as ceil_mode does."""
    sides = (("h", "top", "bottom", shape[1]), ("w", "left", "right", shape[2]))
    sizes: list[int] = []
    for side, before, after, size in sides:
        pads = params[f"pad_{before}"], params[f"pad_{after}"]
        stride = params[f"stride_{side}"]
        if set(pads) <= {AUTO, SAME_LOWER}:
            sizes.append(_ceil(size, stride))
            continue
        dilation = params.get(f"dilation_{side}", 1)
        reach = dilation * (params[f"kernel_{side}"] - 1) + 1
        room = size + sum(pads) - reach
        if room < 0:
            raise ValueError(f"a window of {reach} is larger than its padded input {shape}")
        sizes.append((_ceil(room, stride) if up else room // stride) + 1)
    return tuple(sizes)


def _image(inputs: tuple[Shape, ...]) -> Shape:
    if len(inputs[0]) != 3:
        raise ValueError(f"takes an image (c, h, w), got {inputs[0]}")
    return inputs[0]


def _convolution(params: Params, inputs: tuple[Shape, ...]) -> Shape | None:
    if len(inputs) > 1:
        return None
    shape = _image(inputs)
    outputs, group = params["num_output"], params.get("group", 1)
    if shape[0] % group:
        raise ValueError(f"{shape[0]} channels cannot be cut into {group} groups")
    kernel = (params["kernel_h"], params["kernel_w"])
    needed = outputs * (shape[0] // group) * math.prod(kernel)
    if needed != params["weight_data_size"]:
        raise ValueError(
            f"weight_data_size {params['weight_data_size']} does not fit an input of {shape[0]} "
            f"channels, which takes {needed} numbers"
        )
    return (outputs, *_window(params, shape, up=False))


def _inner_product(params: Params, inputs: tuple[Shape, ...]) -> Shape:
    outputs, shape = params["num_output"], inputs[0]
    features = params["weight_data_size"] // outputs
    if len(shape) == 2 and shape[1] == features:
        return (shape[0], outputs)
    if math.prod(shape) != features:
        raise ValueError(f"weights for {features} numbers do not fit an input {shape}")
    return (outputs,)


def _pooling(params: Params, inputs: tuple[Shape, ...]) -> Shape:
    channels, rows, cols = _image(inputs)
    if params["global_pooling"]:
        return (channels,)
    if params["adaptive_pooling"]:
        height, width = params["out_h"], params["out_w"]
        return (channels, rows if height == AUTO else height, cols if width == AUTO else width)
    if params["pad_mode"] in {2, 3}:
        strides = params["stride_h"], params["stride_w"]
        return (channels, _ceil(rows, strides[0]), _ceil(cols, strides[1]))
    return (channels, *_window(params, inputs[0], up=params["pad_mode"] == 0))


def _binary_op(_: Params, inputs: tuple[Shape, ...]) -> Shape:
    low, high = sorted((inputs[0], inputs[-1]), key=len)
    if math.prod(low) == 1 or low == high:
        return high
    if math.prod(high) == 1:
        return low
    if len(low) == len(high) and all(
        1 in pair or len(set(pair)) == 1 for pair in zip(low, high, strict=True)
    ):
        return tuple(map(max, low, high))
    # one number a channel; or, where the channels do not match, one a column
    if len(low) == 1 and low[0] in {high[0], high[-1]}:
        return high
    raise ValueError(f"blobs {inputs[0]} and {inputs[-1]} cannot be combined")


def _eltwise(_: Params, inputs: tuple[Shape, ...]) -> Shape:
    if len(set(inputs)) > 1:
        raise ValueError(f"takes equal shapes, got {', '.join(map(str, inputs))}")
    return inputs[0]


def _by_channel(name: str) -> Rule:
    def rule(params: Params, inputs: tuple[Shape, ...]) -> Shape:
        if params[name] != inputs[0][0]:
            raise ValueError(f"{name} {params[name]} does not fit an input {inputs[0]}")
        return inputs[0]

    return rule


def _normalize(params: Params, inputs: tuple[Shape, ...]) -> Shape:
    channels = 1 if params["channel_shared"] else _image(inputs)[0]
    if params["scale_data_size"] != channels:
        raise ValueError(f"scale_data_size {params['scale_data_size']} is not {channels}")
    return inputs[0]


def _permute(params: Params, inputs: tuple[Shape, ...]) -> Shape | None:
    shape, order = inputs[0], params["order_type"]
    if len(shape) == 2 and order in {0, 1}:
        return shape[::-1] if order else shape
    if len(shape) != 3 or order not in _MAP_ORDERS:
        return None
    sizes = dict(zip("chw", shape, strict=True))
    return tuple(sizes[axis] for axis in reversed(_MAP_ORDERS[order]))


def _reshape(params: Params, inputs: tuple[Shape, ...]) -> Shape | None:
    had = dict(zip({1: "w", 2: "hw", 3: "chw", 4: "cdhw"}[len(inputs[0])], inputs[0], strict=True))
    wanted = [(axis, params[axis]) for axis in "cdhw" if params[axis] != AUTO]
    sizes = [had.get(axis, 1) if size == 0 else size for axis, size in wanted]
    total, known = math.prod(inputs[0]), math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or known < 1 or total % known or (-1 not in sizes and total != known):
        shape = tuple(size for _, size in wanted)
        raise ValueError(f"{total} numbers of {inputs[0]} cannot take the shape {shape}")
    return tuple(total // known if size == -1 else size for size in sizes)


def _concat(params: Params, inputs: tuple[Shape, ...]) -> Shape:
    axis = _axis(params, inputs[0])
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
    if len(others) > 1 or len({len(shape) for shape in inputs}) > 1:
        raise ValueError(f"blobs {', '.join(map(str, inputs))} cannot be joined along axis {axis}")
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _slices(params: Params, shape: Shape, count: int) -> tuple[Shape, ...]:
    axis, sizes = _axis(params, shape), params["slices"]
    if len(sizes) != count:
        raise ValueError(f"{len(sizes)} slices for {count} blobs")
    left, parts = shape[axis], []
    for index, size in enumerate(sizes):
        parts.append(left // (count - index) if size == AUTO else size)
        left -= parts[-1]
    if left or min(parts) < 1:
        raise ValueError(f"slices {sizes} do not fit {shape[axis]}")
    return tuple((*shape[:axis], part, *shape[axis + 1 :]) for part in parts)


def _crop(params: Params, inputs: tuple[Shape, ...]) -> Shape | None:
    """Return the shape of the form that our lowering writes: starts, ends and axes, all counted."""
    starts, ends, axes = (params[n] for n in ("starts", "ends", "axes"))
    if not len(starts) == len(ends) == len(axes) > 0:
        return None
    sizes = list(inputs[0])
    for start, end, axis in zip(starts, ends, axes, strict=True):
        if not (0 <= axis < len(sizes) and 0 <= start < end <= inputs[0][axis]):
            return None
        sizes[axis] = end - start
    return tuple(sizes)


def _interp(params: Params, inputs: tuple[Shape, ...]) -> Shape | None:
    size = (params["output_height"], params["output_width"])
    return (inputs[0][0], *size) if len(inputs) == 1 and len(inputs[0]) == 3 and all(size) else None


def _prior_box(params: Params, inputs: tuple[Shape, ...]) -> Shape | None:
    if len(inputs) == 1 and AUTO in {params["image_width"], params["image_height"]}:
        return None
    smallest, largest, ratios = (
        len(params[name]) for name in ("min_sizes", "max_sizes", "aspect_ratios")
    )
    in_cell = smallest * (1 + ratios * (2 if params["flip"] else 1)) + largest
    return (2, 4 * math.prod(inputs[0][-2:]) * in_cell)


def _detection_output(params: Params, inputs: tuple[Shape, ...]) -> None:
    loc, conf, priors = inputs
    classes, count = params["num_class"], priors[-1] // 4
    if classes == AUTO:
        return
    if len(priors) != 2 or priors[0] != 2:
        raise ValueError(f"priors {priors} are not (2, 4P): corners above variances")
    if math.prod(loc) != 4 * count or len(loc) > 2:
        raise ValueError(f"{loc} offsets do not fit {count} priors")
    if math.prod(conf) != classes * count or len(conf) > 2:
        raise ValueError(f"{conf} scores do not fit {count} priors of {classes} classes")


_ELEMENTWISE = (
    *("HardSwish", "HardSigmoid", "ReLU", "Clip", "Sigmoid", "Swish", "Mish", "ELU", "UnaryOp"),
    *("Dropout", "Split", "Noop"),
)
RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    dict.fromkeys(("Input", "MemoryData"), _source)
    | dict.fromkeys(_ELEMENTWISE, lambda _, inputs: inputs[0] if inputs else None)
    | {
        "Convolution": _convolution,
        "ConvolutionDepthWise": _convolution,
        "InnerProduct": _inner_product,
        "Pooling": _pooling,
        "BinaryOp": _binary_op,
        "Eltwise": _eltwise,
        "Softmax": _softmax,
        "Scale": _by_channel("scale_data_size"),
        "BatchNorm": _by_channel("channels"),
        "Normalize": _normalize,
        "Permute": _permute,
        "Flatten": lambda _, inputs: (math.prod(inputs[0]),),
        "Reshape": _reshape,
        "Concat": _concat,
        "Crop": _crop,
        "Interp": _interp,
        "PriorBox": _prior_box,
        "DetectionOutput": _detection_output,
    }
)
