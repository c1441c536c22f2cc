"""What is linear moves into the weights of convolutions and inner products; see each rewrite.

All of it is computed in float64 and rounded to float32 once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.ncnn_graph.edit import (
    GraphView,
    everywhere,
    with_inputs_rerouted,
    with_layers_replaced,
)
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Weight
from mbv3ssd_deploy.ncnn_graph.layers import (
    AUTO,
    LINEAR_TYPES,
    TURNED,
    BinaryOpType,
    build_layer,
    float_param,
    int_param,
)
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes

Numbers = float | F64
"""One number for all channels, or one a channel."""

_T = TypeVar("_T", float, F64)


def plain_linear_before(view: GraphView, layer: NcnnLayer) -> NcnnLayer | None:
    """Return the layer before `layer` if it is linear and nothing else, and read by it alone.

    Nothing else means: no activation, no int8 terms.
    """
    before = view.producer(layer.inputs[0])
    return before if _is_plain_linear(before) and view.is_private(layer.inputs[0]) else None


def _is_plain_linear(layer: NcnnLayer) -> bool:
    if layer.type not in LINEAR_TYPES:
        return False
    return not int_param(layer, "activation_type") and not int_param(layer, "int8_scale_term")


def affine_step(op: int, b: _T) -> tuple[float | _T, float | _T] | None:
    """Return (scale, shift) of the BinaryOp `op` with the constant `b`; None if it has none."""
    if op == BinaryOpType.DIV:
        return (1.0 / b, 0.0) if np.all(b) else None
    steps: dict[int, tuple[float | _T, float | _T]] = {
        BinaryOpType.ADD: (1.0, b),
        BinaryOpType.SUB: (1.0, -b),
        BinaryOpType.RSUB: (-1.0, b),
        BinaryOpType.MUL: (b, 0.0),
    }
    return steps.get(op)


def scaled_and_shifted(layer: NcnnLayer, scale: Numbers, shift: Numbers, output: str) -> NcnnLayer:
    """Return a layer that makes blob `output` = scale * (what `layer` makes) + shift.

    For y = W x + b, s y + t = (s W) x + (s b + t). `scale` and `shift` have one number an output
    channel, or one for all.
    """
    weight, bias = _weight_and_bias(layer)
    scales = np.broadcast_to(scale, (int_param(layer, "num_output"),))
    scaled = weight.reshape(len(scales), -1) * scales[:, None]
    return _with_weights(
        layer, layer.inputs[0], output, scaled.reshape(weight.shape), bias * scales + shift
    )


def _weight_and_bias(layer: NcnnLayer) -> tuple[F64, F64]:
    roles = {weight.role: weight.data.astype(np.float64) for weight in layer.weights}
    bias = roles.get("bias", np.zeros(int_param(layer, "num_output")))
    return roles["weight"], bias.reshape(-1)


def _with_weights(layer: NcnnLayer, source: str, output: str, weight: F64, bias: F64) -> NcnnLayer:
    weights = (Weight("weight", weight.astype(np.float32)), Weight("bias", bias.astype(np.float32)))
    params = {**layer.params, "bias_term": 1}
    return build_layer(layer.type, layer.name, (source,), (output,), params, weights=weights)


@everywhere
def fold_batch_norms(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Fold BatchNorm into the convolution or inner product before it.

    Before: `Convolution conv 1 1 x m ...`, `BatchNorm norm 1 1 m y 0=16 1=1.00000000e-03`
    After:  `Convolution conv 1 1 x y ... 5=1`

    slope (m - mean) / sqrt(var + eps) + bias, by channel (arXiv 1502.03167, algorithm 2).

    Why: the layer and its pass over the map cost nothing any more.
    """
    before = plain_linear_before(view, layer) if layer.type == "BatchNorm" else None
    if before is None:
        return None
    if before.type == "InnerProduct" and not _is_vector(view.graph, layer.inputs[0]):
        return None
    scale, shift = _scale_and_shift_of_norm(layer)
    return (scaled_and_shifted(before, scale, shift, layer.outputs[0]),)


def _scale_and_shift_of_norm(layer: NcnnLayer) -> tuple[F64, F64]:
    numbers = {weight.role: weight.data.astype(np.float64) for weight in layer.weights}
    scale = numbers["slope"] / np.sqrt(numbers["var"] + float_param(layer, "eps"))
    return scale, numbers["bias"] - scale * numbers["mean"]


def _is_vector(graph: NcnnGraph, blob: str) -> bool:
    """Return whether `blob` is known to be (w); BatchNorm scales the rows of an (h, w)."""
    return len(infer_shapes(graph).blobs.get(blob, ())) == 1


@everywhere
def fold_channel_affines(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Fold constants added to or multiplied with a convolution's result into its weights.

    Before: `Convolution conv 1 1 x m ...`, `BinaryOp 2 1 m scale y 0=2` (scale: MemoryData,
            (c, 1, 1))
    After:  `Convolution conv 1 1 x y ... 5=1`

    It runs after HardSigmoid and HardSwish have been recognised, which look for such constants.

    Why: the pass over the map costs nothing any more, nor does the constant, which ncnn copies for
    each image.
    """
    if layer.type != "BinaryOp":
        return None
    for blob in layer.inputs:
        before = view.producer(blob)
        if _is_plain_linear(before) and view.is_private(blob):
            operand = _channel_operand(view, layer, blob, int_param(before, "num_output"))
            op = int_param(layer, "op_type")
            op = op if layer.inputs[0] == blob else TURNED.get(op, op)
            step = None if operand is None else affine_step(op, operand)
            if step is not None:
                return (scaled_and_shifted(before, *step, layer.outputs[0]),)
    return None


def _channel_operand(view: GraphView, layer: NcnnLayer, blob: str, channels: int) -> F64 | None:
    """Return the other operand as one number a channel, or one for all, if it is constant."""
    if int_param(layer, "with_scalar"):
        return np.array(float_param(layer, "b"))
    other = layer.inputs[1] if layer.inputs[0] == blob else layer.inputs[0]
    maker = view.producer(other)
    is_channel_wise = (
        maker.type == "MemoryData"
        and int_param(maker, "c") == channels
        and maker.weights[0].data.size == channels
    )
    return maker.weights[0].data.ravel().astype(np.float64) if is_channel_wise else None


def fold_leading_norms(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Fold BatchNorm into the convolutions and inner products behind it.

    Before: `BatchNorm norm 1 1 x m 0=16 1=1.00000000e-05`, `Convolution conv 1 1 m y ...`
    After:  `Convolution conv 1 1 x y ... 5=1`

    W (s x + t) + b = (W s) x + (W t + b), s and t by input channel. A convolution that pads its
    input with zeros computes with 0 at the border, not t, so there t must be 0. It is made for all
    readers of the BatchNorm or for none: one that keeps it would save nothing.

    Why: the layer and its pass over the map cost nothing any more.
    """
    for norm in graph.layers:
        if norm.type != "BatchNorm":
            continue
        view = GraphView(graph, outputs)
        readers = view.readers(norm.outputs[0])
        scale, shift = _scale_and_shift_of_norm(norm)
        takes_all = all(_can_take(view, reader, shift) for reader in readers)
        if readers and takes_all and norm.outputs[0] not in outputs:
            changes = {r.name: (_with_norm(r, scale, shift, norm.inputs[0]),) for r in readers}
            graph = with_layers_replaced(graph, {norm.name: (), **changes})
    return graph


def _can_take(view: GraphView, layer: NcnnLayer, shift: F64) -> bool:
    if layer.type not in LINEAR_TYPES or len(layer.inputs) != 1:
        return False
    if int_param(layer, "int8_scale_term"):
        return False
    if layer.type == "InnerProduct":
        return _is_vector(view.graph, layer.inputs[0])
    return not _is_padded(layer) or not shift.any()


def _is_padded(layer: NcnnLayer) -> bool:
    return any(int_param(layer, f"pad_{side}") for side in ("left", "right", "top", "bottom"))


def _with_norm(layer: NcnnLayer, scale: F64, shift: F64, source: str) -> NcnnLayer:
    weight, bias = _weight_and_bias(layer)
    count = int_param(layer, "num_output")
    group = int_param(layer, "group") if layer.type == "ConvolutionDepthWise" else 1
    channels = scale.size // group
    old = weight.reshape(group, count // group, channels, -1)
    by_group = (group, 1, channels, 1)
    scaled = (old * scale.reshape(by_group)).reshape(weight.shape)
    added = (old * shift.reshape(by_group)).sum(axis=(2, 3)).reshape(-1)
    return _with_weights(layer, source, layer.outputs[0], scaled, bias + added)


# They compute number by number, or take any shape as (c).
_SHAPE_BLIND: Final = frozenset(
    {"InnerProduct", "ReLU", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "BatchNorm"}
)


def flatten_pooled_branches(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Let what follows a global pooling work on one number a channel: squeeze-and-excitation.

    Before: `Pooling 1 1 x p 0=1 7=1 8=1` (c, 1, 1), `Convolution 1x1`, `ReLU`, `Convolution 1x1`,
            `HardSigmoid`, `BinaryOp x * gate`
    After:  `Pooling 1 1 x p 0=1 4=1` (c), `InnerProduct`, `ReLU`, `InnerProduct`, `HardSigmoid`,
            `BinaryOp x * gate`

    ncnn broadcasts a gate of (c) over (c, h, w) in all its releases. Reshapes between (c) and
    (c, 1, 1), as `nn.Linear` gates have them, fall away. The rewrite is made for a pooling as a
    whole or not at all: one reader that needs the (c, 1, 1) shape keeps everything as it was.

    Why: a 1x1 convolution of one pixel is the slower kernel, by 1 to 2 % of a net, and Reshapes go.
    """
    for layer in graph.layers:
        sizes = [int_param(layer, n) for n in ("out_w", "out_h")] if layer.type == "Pooling" else []
        if sizes == [1, 1] and int_param(layer, "adaptive_pooling"):
            region = _region_of(GraphView(graph, outputs), layer)
            if region is not None:
                graph = with_inputs_rerouted(with_layers_replaced(graph, region[0]), region[1])
    return graph


def _region_of(
    view: GraphView, pooling: NcnnLayer
) -> tuple[dict[str, tuple[NcnnLayer, ...]], dict[str, str]] | None:
    """Return layers to replace and blobs to reroute, from `pooling` to where its gate meets a map.

    None when a reader in between needs the (c, 1, 1) shape.
    """
    kind = {"pooling_type": int_param(pooling, "pooling_type"), "global_pooling": 1}
    flat = build_layer("Pooling", pooling.name, pooling.inputs, pooling.outputs, kind)
    changes: dict[str, tuple[NcnnLayer, ...]] = {pooling.name: (flat,)}
    routes: dict[str, str] = {}
    shapes = infer_shapes(view.graph).blobs
    blobs = [*pooling.outputs]
    for blob in blobs:  # the list grows while it is walked
        if blob in view.outputs:
            return None
        for layer in view.readers(blob):
            if layer.type == "BinaryOp":
                others = [shapes.get(other, ()) for other in layer.inputs if other not in blobs]
                if () in others:
                    return None
                if any(len(shape) > 1 and math.prod(shape) > 1 for shape in others):
                    continue
            else:
                new = _on_vector(layer)
                if new is None:
                    return None
                changes[layer.name] = new
                routes |= {} if new else {layer.outputs[0]: blob}
            blobs += [out for out in layer.outputs if out not in blobs]
    return changes, routes


def _on_vector(layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Return what `layer` becomes where it reads (c) instead of (c, 1, 1); None if it cannot."""
    if layer.type in _SHAPE_BLIND:
        return (layer,)
    if layer.type == "Flatten":
        return ()
    if layer.type == "Reshape":
        w, h, d, c = (int_param(layer, name) for name in "whdc")
        is_vector_or_pixel = (h, c) == (AUTO, AUTO) or ((w, h) == (1, 1) and c != AUTO)
        return () if is_vector_or_pixel and d == AUTO else None
    sides = ("kernel_w", "kernel_h", "stride_w", "stride_h")
    is_pointwise = layer.type == "Convolution" and all(int_param(layer, n) == 1 for n in sides)
    if not is_pointwise or _is_padded(layer) or int_param(layer, "int8_scale_term"):
        return None
    shared = ("num_output", "bias_term", "weight_data_size", "activation_type", "activation_params")
    params = {name: layer.params[name] for name in shared if name in layer.params}
    inner = build_layer("InnerProduct", layer.name, layer.inputs, layer.outputs, params)
    return (replace(inner, weights=layer.weights),)
