"""Activations: recognised in every spelling, then moved into the layer before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.ncnn_graph.edit import GraphView, everywhere
from mbv3ssd_deploy.ncnn_graph.fuse.linear import (
    affine_step,
    plain_linear_before,
    scaled_and_shifted,
)
from mbv3ssd_deploy.ncnn_graph.graph import NcnnLayer, Param
from mbv3ssd_deploy.ncnn_graph.layers import (
    FLOAT32_MAX,
    TURNED,
    ActivationType,
    BinaryOpType,
    build_layer,
    float_param,
    int_param,
)

_SAME: Final = 1e-5

_FUSED: Final[Mapping[str, tuple[ActivationType, tuple[str, ...]]]] = MappingProxyType(
    {
        "ReLU": (ActivationType.LEAKY_RELU, ("slope",)),
        "Clip": (ActivationType.CLIP, ("min", "max")),
        "Sigmoid": (ActivationType.SIGMOID, ()),
        "Mish": (ActivationType.MISH, ()),
        "HardSwish": (ActivationType.HARD_SWISH, ("alpha", "beta")),
    }
)
"""The fused form of a layer, and which of its parameters become activation_params."""


@everywhere
def fold_scalar_operands(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Move a constant of one number into the BinaryOp that reads it.

    Before: `MemoryData three 0 1 three 0=1`, `BinaryOp add 2 1 x three y 0=0`
    After:  `BinaryOp add 1 1 x y 0=0 1=1 2=3.00000000e+00`

    A constant on the left of - or / turns the operation round: 3 - x is RSUB with b = 3.

    Why: ncnn copies a MemoryData for each image; 56 of them were 3 % of the published hand-edited
    graph.
    """
    if layer.type != "BinaryOp" or len(layer.inputs) != 2:
        return None
    left, right = layer.inputs
    op: int | None = int_param(layer, "op_type")
    blob, number = left, _scalar(view, right)
    if number is None:
        blob, number, op = right, _scalar(view, left), TURNED.get(int_param(layer, "op_type"))
    if number is None or op is None:
        return None
    params = {"op_type": int(op), "with_scalar": 1, "b": number}
    return (build_layer("BinaryOp", layer.name, (blob,), layer.outputs, params),)


def _scalar(view: GraphView, blob: str) -> float | None:
    maker = view.producer(blob)
    if maker.type != "MemoryData" or maker.weights[0].data.size != 1:
        return None
    return float(maker.weights[0].data.item())


@everywhere
def merge_clips(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Spell all limits as one Clip, and a Clip without an upper limit as a ReLU.

    Before: `BinaryOp a 1 1 x m 0=4 1=1 2=0.0` (maximum), `BinaryOp b 1 1 m y 0=5 1=1 2=6.0`
            (minimum)
    After:  `Clip b 1 1 x y 0=0.0 1=6.0`

    Before: `ReLU r 1 1 x m`, `Clip c 1 1 m y 0=-1.0 1=6.0`
    After:  `Clip c 1 1 x y 0=0.0 1=6.0`

    clip(clip(x, a, b), c, d) = clip(x, clip(a, c, d), clip(b, c, d)) for a <= b.

    Why: what recognises HardSigmoid, and what fuses activations, has one spelling to look for.
    """
    limits = _limits(layer)
    if limits is None:
        return None
    source = layer.inputs[0]
    inner = _limits(view.producer(source))
    if inner is not None and view.is_private(source):
        low, high = limits
        limits = min(max(inner[0], low), high), min(max(inner[1], low), high)
        source = view.producer(source).inputs[0]
    is_relu = limits == (0.0, FLOAT32_MAX)
    params = {} if is_relu else {"min": limits[0], "max": limits[1]}
    new = build_layer("ReLU" if is_relu else "Clip", layer.name, (source,), layer.outputs, params)
    return None if new == layer else (new,)


def _limits(layer: NcnnLayer) -> tuple[float, float] | None:
    if layer.type == "Clip":
        return float_param(layer, "min"), float_param(layer, "max")
    if layer.type == "ReLU" and float_param(layer, "slope") == 0.0:
        return 0.0, FLOAT32_MAX
    if layer.type == "BinaryOp" and int_param(layer, "with_scalar"):
        b = float_param(layer, "b")
        by_op = {BinaryOpType.MAX: (b, FLOAT32_MAX), BinaryOpType.MIN: (-FLOAT32_MAX, b)}
        return by_op.get(BinaryOpType(int_param(layer, "op_type")))
    return None


@dataclass(frozen=True, slots=True)
class _Affine:
    """slope * source + shift."""

    slope: float
    shift: float
    source: str


@everywhere
def recognise_hard_sigmoids(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Make one layer of every spelling of HardSigmoid.

    Before: `BinaryOp x + 3`, `Clip 0..6`, `BinaryOp / 6`
    After:  `HardSigmoid 1 1 x y 0=1.66666672e-01 1=5.00000000e-01`

    Before: `BinaryOp x + 3` -> c, `Clip c 0..6` -> d, `BinaryOp w * d` -> p, `BinaryOp p * (1/6)`
    After:  `HardSigmoid 1 1 x gate`, `BinaryOp w * gate`

    The algebra: a chain of scalar +, -, *, / is a x + c. A product, taken apart, is a number s
    times blobs. If one of the blobs is clip(a x + c, 0, h) and s h = 1, then s clip(a x + c, 0, h)
    = clip(s a x + s c, 0, 1), which is ncnn's HardSigmoid with alpha = s a and beta = s c. The
    order of operands and of scalar factors then no longer matters. Source: ncnn,
    `layer/hardsigmoid.cpp`.

    Why: three passes over a map become one. With HardSwish, 8 % of the published hand-edited graph.
    """
    if layer.type == "Clip":
        gate = _gate(view, layer.outputs[0], 1.0)
        return None if gate is None else (_hard_sigmoid(layer.name, gate, layer.outputs[0]),)
    if not _is_product(layer):
        return None
    scale, factors = _product_of(view, layer)
    for index, factor in enumerate(factors):
        gate = _gate(view, factor, scale)
        others = factors[:index] + factors[index + 1 :]
        if gate is not None and not others:
            return (_hard_sigmoid(layer.name, gate, layer.outputs[0]),)
        if gate is not None and len(others) == 1:
            blob, name = view.new_names(f"{layer.outputs[0]}/gate", f"{layer.name}/gate")
            product = {"op_type": int(BinaryOpType.MUL)}
            inputs = (others[0], blob)
            multiply = build_layer("BinaryOp", layer.name, inputs, layer.outputs, product)
            return _hard_sigmoid(name, gate, blob), multiply
    return None


def _hard_sigmoid(name: str, gate: _Affine, blob: str) -> NcnnLayer:
    params = {"alpha": gate.slope, "beta": gate.shift}
    return build_layer("HardSigmoid", name, (gate.source,), (blob,), params)


def _gate(view: GraphView, blob: str, scale: float) -> _Affine | None:
    """Return what HardSigmoid must compute if scale * `blob` is one, else None."""
    clip = view.producer(blob)
    if clip.type != "Clip" or float_param(clip, "min") != 0.0:
        return None
    if abs(scale * float_param(clip, "max") - 1.0) > _SAME:
        return None
    inner = _affine_of(view, clip.inputs[0])
    gate = _Affine(scale * inner.slope, scale * inner.shift, inner.source)
    # Clip(x, 0, 1) itself: a HardSigmoid would be no gain.
    is_bare = gate == _Affine(1.0, 0.0, clip.inputs[0])
    # ncnn's HardSwish and HardSigmoid divide by alpha and require it positive.
    return None if is_bare or inner.slope <= 0 else gate


def _affine_of(view: GraphView, blob: str) -> _Affine:
    """Return the longest chain of scalar operations that ends in `blob` and serves it alone."""
    layer = view.producer(blob)
    step = None
    if layer.type == "BinaryOp" and int_param(layer, "with_scalar"):
        step = affine_step(int_param(layer, "op_type"), float_param(layer, "b"))
    if step is None or not view.is_private(blob):
        return _Affine(1.0, 0.0, blob)
    inner = _affine_of(view, layer.inputs[0])
    return _Affine(step[0] * inner.slope, step[0] * inner.shift + step[1], inner.source)


def _is_product(layer: NcnnLayer) -> bool:
    if layer.type != "BinaryOp":
        return False
    op = int_param(layer, "op_type")
    if int_param(layer, "with_scalar"):
        return op in {BinaryOpType.MUL, BinaryOpType.DIV} and float_param(layer, "b") != 0.0
    return op == BinaryOpType.MUL


def _product_of(view: GraphView, layer: NcnnLayer) -> tuple[float, list[str]]:
    """Return scale and factors of the product that `layer` ends, taken apart where private."""
    scale = 1.0
    if int_param(layer, "with_scalar"):
        b = float_param(layer, "b")
        scale = b if int_param(layer, "op_type") == BinaryOpType.MUL else 1.0 / b
    factors: list[str] = []
    for blob in layer.inputs:
        inner = view.producer(blob)
        if _is_product(inner) and view.is_private(blob):
            inner_scale, inner_factors = _product_of(view, inner)
            scale *= inner_scale
            factors += inner_factors
        else:
            factors.append(blob)
    return scale, factors


@everywhere
def recognise_hard_swishes(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Make HardSwish(x) of x times HardSigmoid(x).

    Before: `HardSigmoid 1 1 x gate 0=a 1=b`, `BinaryOp 2 1 x gate y 0=2`
    After:  `HardSwish 1 1 x y 0=a 1=b`

    Source: ncnn, `layer/hardswish.cpp`: x clip(alpha x + beta, 0, 1).

    Why: two passes over a map become one, which then moves into the convolution.
    """
    if layer.type != "BinaryOp" or len(layer.inputs) != 2:
        return None
    if int_param(layer, "op_type") != BinaryOpType.MUL:
        return None
    for x, gate in (layer.inputs, layer.inputs[::-1]):
        maker = view.producer(gate)
        if maker.type == "HardSigmoid" and maker.inputs == (x,):
            params = {name: float_param(maker, name) for name in ("alpha", "beta")}
            return (build_layer("HardSwish", layer.name, (x,), layer.outputs, params),)
    return None


@everywhere
def fuse_activations(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Move an activation into the convolution or inner product before it.

    Before: `Convolution 1 1 x m ...`, `HardSwish 1 1 m y 0=1.66666672e-01 1=5.00000000e-01`
    After:  `Convolution 1 1 x y ... 9=6 -23310=2,1.66666672e-01,5.00000000e-01`

    Only where the convolution's result is private. Swish has no fused form in ncnn
    (`layer/fused_activation.h`); for HardSigmoid see `fuse_gates`.

    Why: a layer less, and on ARM one pass over the map less; on x86 the convolution makes that pass
    itself at its end, and a whole net gains 0.5 %.
    """
    before = plain_linear_before(view, layer) if layer.type in _FUSED else None
    if before is None:
        return None
    params = {**before.params, **_activation(layer)}
    fused = build_layer(before.type, before.name, before.inputs, layer.outputs, params)
    return (replace(fused, weights=before.weights),)


def _activation(layer: NcnnLayer) -> dict[str, Param]:
    kind, names = _FUSED[layer.type]
    numbers = tuple(float_param(layer, name) for name in names)
    if kind is ActivationType.LEAKY_RELU and numbers == (0.0,):
        return {"activation_type": int(ActivationType.RELU)}
    return {"activation_type": int(kind), "activation_params": numbers}


@everywhere
def fuse_gates(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Move a HardSigmoid into the convolution or inner product before it, as a fused Clip.

    Before: `InnerProduct 1 1 x m ...`, `HardSigmoid 1 1 m gate 0=1.66666672e-01 1=5.00000000e-01`
    After:  `InnerProduct 1 1 x gate ... 9=3 -23310=2,0.00000000e+00,1.00000000e+00`

    HardSigmoid has no fused form in ncnn, but clip(alpha (W x + b) + beta, 0, 1) is a Clip behind
    the weights alpha W and the bias alpha b + beta. It runs after HardSwish has been recognised,
    which needs the gate of a product with its own input.
    """
    before = plain_linear_before(view, layer) if layer.type == "HardSigmoid" else None
    if before is None:
        return None
    alpha, beta = float_param(layer, "alpha"), float_param(layer, "beta")
    gate = scaled_and_shifted(before, alpha, beta, layer.outputs[0])
    clip = int(ActivationType.CLIP)
    params = {**gate.params, "activation_type": clip, "activation_params": (0.0, 1.0)}
    fused = build_layer(gate.type, gate.name, gate.inputs, gate.outputs, params)
    return (replace(fused, weights=gate.weights),)
