"""The layer table: what each ncnn layer's numbered parameters and weights mean.

The table is the only place where a parameter number appears. The writer, the reader, the checker,
the lowerings and the page docs/formats/ncnn-layers.md are all made from it. Names are those of the
members in ncnn's own layer headers (`variances_0` for `variances[0]`); numbers, defaults and the
order of the weights are those of `load_param` and `load_model` in ncnn's src/layer/*.cpp.

A parameter that a release of ncnn knows and this table does not (the string expressions of Crop,
Interp and Reshape, the batch axes of 2026) is refused by name when a file is read.

Above the table stand the values of enumerated parameters by name. Source: the enums in ncnn's
`layer/binaryop.h` and `layer/pooling.h`, the cases in `layer/fused_activation.h`,
`layer/normalize.cpp`, and the comment on `order_type` in `layer/permute.cpp`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnLayer, Param, Weight
from mbv3ssd_deploy.ncnn_graph.schema import (
    ONE,
    Arity,
    Kind,
    LayerSchema,
    ParamField,
    Same,
    WeightField,
    When,
)

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
# ncnn's mark for "derive it": SAME padding, an automatic step, the size of the data blob.
AUTO: Final = -233


LINEAR_TYPES: Final = frozenset({"Convolution", "ConvolutionDepthWise", "InnerProduct"})
"""The layers with a flagged weight and a bias, linear but for an activation fused into them."""


class BinaryOpType(enum.IntEnum):
    """`BinaryOp.op_type`. R-forms swap the operands: RSUB is b - a."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5
    POW = 6
    RSUB = 7
    RDIV = 8
    RPOW = 9


class ActivationType(enum.IntEnum):
    """`activation_type` of Convolution, ConvolutionDepthWise and InnerProduct."""

    NONE = 0
    RELU = 1
    LEAKY_RELU = 2
    CLIP = 3
    SIGMOID = 4
    MISH = 5
    HARD_SWISH = 6


class PoolingType(enum.IntEnum):
    """`Pooling.pooling_type`."""

    MAX = 0
    AVERAGE = 1


class PadMode(enum.IntEnum):
    """`Pooling.pad_mode`: how the output size is rounded."""

    FULL = 0
    """Up, as PyTorch's ceil_mode."""
    VALID = 1
    """Down."""


class EpsMode(enum.IntEnum):
    """`Normalize.eps_mode`: how `eps` keeps the divisor from being 0."""

    ADDED_TO_SQUARES = 0
    LEAST_LENGTH = 1
    LEAST_SQUARES = 2


PERMUTE_ORDERS = {"wh": 0, "hw": 1, "whc": 0, "hwc": 1, "wch": 2, "cwh": 3, "hcw": 4, "chw": 5}
"""`Permute.order_type` by the input axes that become the output's w, h(, c): innermost first."""


class FeatMask(enum.IntFlag):
    """`featmask` of any layer: what ncnn's options may not switch on for it."""

    NO_FP16_ARITHMETIC = 1
    NO_FP16_STORAGE = 2
    NO_BF16_STORAGE = 4


def _int(number: int, name: str, default: int | Same = 0) -> ParamField:
    return ParamField(number, name, default, Kind.INT)


def _zeros(**numbers: int) -> tuple[ParamField, ...]:
    """Return integer parameters, name=number, whose default is 0."""
    return tuple(_int(number, name) for name, number in numbers.items())


def _float(number: int, name: str, default: float = 0.0) -> ParamField:
    return ParamField(number, name, float(np.float32(default)), Kind.FLOAT)


def _ints(number: int, name: str) -> ParamField:
    return ParamField(number, name, (), Kind.INTS)


def _floats(number: int, name: str) -> ParamField:
    return ParamField(number, name, (), Kind.FLOATS)


NONE = Arity(0, 0)
ANY = Arity(0, None)
SOME = Arity(1, None)

# Every layer understands these two, and ncnn's own members for them have no default to misremember.
_COMMON = (_ints(30, "shape_hints"), _int(31, "featmask"))
COMMON_PARAMS: Final = frozenset(field.name for field in _COMMON)

_ACTIVATION = (_int(9, "activation_type"), _floats(10, "activation_params"))
_CONVOLUTION = (
    *_zeros(num_output=0, kernel_w=1),
    _int(11, "kernel_h", Same("kernel_w")),
    _int(2, "dilation_w", 1),
    _int(12, "dilation_h", Same("dilation_w")),
    _int(3, "stride_w", 1),
    _int(13, "stride_h", Same("stride_w")),
    _int(4, "pad_left"),
    _int(15, "pad_right", Same("pad_left")),
    _int(14, "pad_top", Same("pad_left")),
    _int(16, "pad_bottom", Same("pad_top")),
    _float(18, "pad_value"),
    *_zeros(bias_term=5, weight_data_size=6),
)
_CONVOLUTION_END = (_int(8, "int8_scale_term"), *_ACTIVATION, _int(19, "dynamic_weight"))

# A convolution with dynamic weights gets them as blobs and has none in the file.
_STATIC = When("dynamic_weight", (0,))
_BIASED = When("bias_term")
_INT8 = When("int8_scale_term")
_REQUANTISED = When("int8_scale_term", (101, 102))


def _raw(role: str, *factors: str, when: tuple[When, ...] = ()) -> WeightField:
    return WeightField(role, flagged=False, factors=factors, when=when)


def _flagged(role: str, *factors: str, when: tuple[When, ...] = ()) -> WeightField:
    return WeightField(role, flagged=True, factors=factors, when=when)


_SIZES = _zeros(w=0, h=1, d=11, c=2)


def _variances(first: int) -> tuple[ParamField, ...]:
    values = enumerate((0.1, 0.1, 0.2, 0.2))
    return tuple(_float(first + i, f"variances_{i}", value) for i, value in values)


def _schema(
    type_: str,
    *fields: ParamField,
    weights: tuple[WeightField, ...] = (),
    inputs: Arity = ONE,
    outputs: Arity = ONE,
    explicit: bool = False,
) -> LayerSchema:
    return LayerSchema(type_, (*fields, *_COMMON), weights, inputs, outputs, explicit)


_TABLE = (
    _schema("Input", *_SIZES, inputs=NONE),
    _schema(
        "MemoryData",
        *_SIZES,
        _int(21, "load_type", 1),
        weights=tuple(
            WeightField(
                "data", not kind, tuple("whdc"), (When("load_type", (kind,)),), zero_is_one=True
            )
            for kind in (1, 0)
        ),
        inputs=NONE,
    ),
    _schema(
        "Convolution",
        *_CONVOLUTION,
        *_CONVOLUTION_END,
        weights=(
            _flagged("weight", "weight_data_size", when=(_STATIC,)),
            _raw("bias", "num_output", when=(_STATIC, _BIASED)),
            _raw("weight_scales", "num_output", when=(_STATIC, _INT8)),
            _raw("bottom_scale", when=(_STATIC, _INT8)),
            _raw("top_scale", when=(_STATIC, _REQUANTISED)),
        ),
        inputs=SOME,
    ),
    _schema(
        "ConvolutionDepthWise",
        *_CONVOLUTION,
        _int(7, "group", 1),
        *_CONVOLUTION_END,
        weights=(
            _flagged("weight", "weight_data_size", when=(_STATIC,)),
            _raw("bias", "num_output", when=(_STATIC, _BIASED)),
            _raw("weight_scales", "group", when=(_STATIC, When("int8_scale_term", (1, 101)))),
            _raw("weight_scales", when=(_STATIC, When("int8_scale_term", (2, 102)))),
            _raw("bottom_scale", when=(_STATIC, _INT8)),
            _raw("top_scale", when=(_STATIC, _REQUANTISED)),
        ),
        inputs=SOME,
    ),
    _schema(
        "InnerProduct",
        *_zeros(num_output=0, bias_term=1, weight_data_size=2, int8_scale_term=8),
        *_ACTIVATION,
        weights=(
            _flagged("weight", "weight_data_size"),
            _raw("bias", "num_output", when=(_BIASED,)),
            _raw("weight_scales", "num_output", when=(_INT8,)),
            _raw("bottom_scale", when=(_INT8,)),
        ),
    ),
    _schema(
        "Pooling",
        *_zeros(pooling_type=0, kernel_w=1),
        _int(11, "kernel_h", Same("kernel_w")),
        _int(2, "stride_w", 1),
        _int(12, "stride_h", Same("stride_w")),
        _int(3, "pad_left"),
        _int(14, "pad_right", Same("pad_left")),
        _int(13, "pad_top", Same("pad_left")),
        _int(15, "pad_bottom", Same("pad_top")),
        *_zeros(global_pooling=4, pad_mode=5, avgpool_count_include_pad=6, adaptive_pooling=7),
        _int(8, "out_w"),
        _int(18, "out_h", Same("out_w")),
    ),
    _schema("BinaryOp", *_zeros(op_type=0, with_scalar=1), _float(2, "b"), inputs=Arity(1, 2)),
    _schema("Eltwise", _int(0, "op_type"), _floats(1, "coeffs"), inputs=Arity(2, None)),
    _schema("HardSwish", _float(0, "alpha", 0.2), _float(1, "beta", 0.5), explicit=True),
    _schema("HardSigmoid", _float(0, "alpha", 0.2), _float(1, "beta", 0.5), explicit=True),
    _schema("ReLU", _float(0, "slope")),
    _schema("Clip", _float(0, "min", -FLOAT32_MAX), _float(1, "max", FLOAT32_MAX), explicit=True),
    _schema("Sigmoid"),
    _schema("Swish"),
    _schema("Mish"),
    _schema("ELU", _float(0, "alpha", 0.1)),
    _schema("UnaryOp", _int(0, "op_type")),
    # ncnn refuses an axis other than 0 in a file where fixbug0 is not 1.
    _schema("Softmax", _int(0, "axis"), _int(1, "fixbug0"), explicit=True),
    _schema("Permute", _int(0, "order_type")),
    _schema("Flatten"),
    _schema("Reshape", *(_int(field.id, field.name, AUTO) for field in _SIZES)),
    _schema("Concat", _int(0, "axis"), inputs=SOME),
    _schema("Split", outputs=SOME),
    _schema("Slice", _ints(0, "slices"), _int(1, "axis"), outputs=SOME),
    _schema(
        "Normalize",
        _int(0, "across_spatial"),
        _int(4, "across_channel", 1),
        _int(1, "channel_shared"),
        _float(2, "eps", 1e-4),
        _int(9, "eps_mode"),
        _int(3, "scale_data_size"),
        weights=(_raw("scale", "scale_data_size"),),
        explicit=True,
    ),
    _schema(
        "PriorBox",
        _floats(0, "min_sizes"),
        _floats(1, "max_sizes"),
        _floats(2, "aspect_ratios"),
        *_variances(3),
        _int(7, "flip", 1),
        *_zeros(clip=8, image_width=9, image_height=10),
        _float(11, "step_width", AUTO),
        _float(12, "step_height", AUTO),
        _float(13, "offset"),
        *_zeros(step_mmdetection=14, center_mmdetection=15),
        inputs=Arity(1, 2),
        explicit=True,
    ),
    _schema(
        "DetectionOutput",
        _int(0, "num_class"),
        _float(1, "nms_threshold", 0.05),
        _int(2, "nms_top_k", 300),
        _int(3, "keep_top_k", 100),
        _float(4, "confidence_threshold", 0.5),
        *_variances(5),
        inputs=Arity(3, 3),
        explicit=True,
    ),
    _schema("Noop", inputs=ANY, outputs=ANY),
    _schema("Dropout", _float(0, "scale", 1.0)),
    _schema(
        "Crop",
        *_zeros(woffset=0, hoffset=1, doffset=13, coffset=2, outw=3, outh=4, outd=14, outc=5),
        *_zeros(woffset2=6, hoffset2=7, doffset2=15, coffset2=8),
        _ints(9, "starts"),
        _ints(10, "ends"),
        _ints(11, "axes"),
        inputs=Arity(1, 2),
    ),
    _schema(
        "Interp",
        _int(0, "resize_type"),
        _float(1, "height_scale", 1.0),
        _float(2, "width_scale", 1.0),
        *_zeros(output_height=3, output_width=4, dynamic_target_size=5, align_corner=6),
        inputs=Arity(1, 2),
    ),
    _schema(
        "Padding",
        *_zeros(top=0, bottom=1, left=2, right=3, type=4),
        _float(5, "value"),
        *_zeros(per_channel_pad_data_size=6, front=7),
        _int(8, "behind", Same("front")),
        weights=(
            _raw(
                "per_channel_pad",
                "per_channel_pad_data_size",
                when=(When("per_channel_pad_data_size"),),
            ),
        ),
    ),
    _schema(
        "Scale",
        *_zeros(scale_data_size=0, bias_term=1),
        weights=(
            _raw("scale", "scale_data_size"),
            _raw("bias", "scale_data_size", when=(_BIASED,)),
        ),
    ),
    _schema(
        "BatchNorm",
        _int(0, "channels"),
        _float(1, "eps"),
        weights=tuple(_raw(role, "channels") for role in ("slope", "mean", "var", "bias")),
    ),
    _schema(
        "Reduction",
        _int(0, "operation"),
        _int(1, "reduce_all", 1),
        _float(2, "coeff", 1.0),
        _ints(3, "axes"),
        _int(4, "keepdims"),
        # As with Softmax: ncnn refuses axes in a file where this is not 1.
        _int(5, "fixbug0"),
    ),
)

LAYERS: Final[Mapping[str, LayerSchema]] = MappingProxyType({s.type: s for s in _TABLE})


def build_layer(  # noqa: PLR0913 -- the columns of a .param line
    type_: str,
    name: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    params: Mapping[str, Param] | None = None,
    *,
    weights: tuple[Weight, ...] = (),
) -> NcnnLayer:
    """Return a layer in the form that equals its own re-reading.

    Floats are rounded to float32, an integer given for a float becomes one, and parameters that
    equal ncnn's default are dropped.

    Raises:
        ValueError: an unknown layer type or parameter, or a number ncnn cannot hold.
        TypeError: a value of the wrong kind for its parameter.
    """
    schema = LAYERS.get(type_)
    if schema is None:
        raise ValueError(f"the layer table has no {type_!r}")
    known = {field.name: field for field in schema.fields}
    given = params or {}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{type_} has no parameter {', '.join(unknown)}")
    stored = {key: known[key].stored(value) for key, value in given.items()}
    kept = MappingProxyType(schema.without_defaults(stored))
    return NcnnLayer(type_, name, inputs, outputs, kept, weights)


def param_of(layer: NcnnLayer, name: str) -> Param:
    """Return a parameter of `layer` as ncnn reads it, its default included.

    Raises:
        KeyError: the layer type, or the parameter, is not in the table.
    """
    return LAYERS[layer.type].value(layer.params, name)


def int_param(layer: NcnnLayer, name: str) -> int:
    """Return an integer parameter of `layer`, its default included.

    Raises:
        FormatError: the file that `layer` was read from has another kind of number there.
    """
    value = param_of(layer, name)
    if not isinstance(value, int):
        raise FormatError(f"{layer.title}: {name} = {value} is not an integer")
    return value


def float_param(layer: NcnnLayer, name: str) -> float:
    """Return a float parameter of `layer`, its default included.

    Raises:
        FormatError: the file that `layer` was read from has another kind of number there.
    """
    value = param_of(layer, name)
    if not isinstance(value, float):
        raise FormatError(f"{layer.title}: {name} = {value} is not a float")
    return value
