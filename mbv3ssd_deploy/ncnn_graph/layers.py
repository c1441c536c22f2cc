"""The layer table: what each ncnn layer's numbered parameters and weights mean.

The table is the only place where a parameter number appears. The writer, the reader, the checker,
the lowerings and the page docs/formats/ncnn-layers.md are all made from it. Names are those of the
members in ncnn's own layer headers (`variances_0` for `variances[0]`); numbers, defaults and the
order of the weights are those of `load_param` and `load_model` in ncnn's src/layer/*.cpp.

A parameter that a release of ncnn knows and this table does not (the string expressions of Crop,
Interp and Reshape, the batch axes of 2026) is refused by name when a file is read.

The values of enumerated parameters have names too, above the table. Source: the enums in ncnn's
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


TURNED: Final[Mapping[int, BinaryOpType]] = MappingProxyType(
    {int(op): op for op in (BinaryOpType.ADD, BinaryOpType.MUL, BinaryOpType.MAX, BinaryOpType.MIN)}
    | {BinaryOpType.SUB: BinaryOpType.RSUB, BinaryOpType.DIV: BinaryOpType.RDIV}
)
"""An operation with its operands exchanged."""


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


def _fields(text: str) -> tuple[ParamField, ...]:
    """Return the fields of `text`, "number name=default" behind one another.

    As in a .param file, a "." makes a float: 0.1, [.] for a list of floats, [] for one of integers.
    A default that is a name is the value of that parameter; one that is missing is the integer 0.
    """
    items = (item.split() for item in text.split(","))
    return tuple(_field(int(number), *name.split("=")) for number, name in items)


def _field(number: int, name: str, default: str = "0") -> ParamField:
    if default in {"[]", "[.]"}:
        return ParamField(number, name, (), "floats" if "." in default else "ints")
    if default.isidentifier():
        return ParamField(number, name, Same(default), "int")
    if "." in default:
        return ParamField(number, name, float(np.float32(default)), "float")
    return ParamField(number, name, int(default), "int")


NONE = Arity(0, 0)
ANY = Arity(0, None)
SOME = Arity(1, None)
ONE_OR_TWO = Arity(1, 2)

# Every layer understands these two, and ncnn's own members for them have no default to misremember.
_COMMON = _fields("30 shape_hints=[], 31 featmask")
COMMON_PARAMS: Final = frozenset(field.name for field in _COMMON)

_CONVOLUTION = (
    "0 num_output, 1 kernel_w, 11 kernel_h=kernel_w, 2 dilation_w=1, 12 dilation_h=dilation_w, "
    "3 stride_w=1, 13 stride_h=stride_w, 4 pad_left, 15 pad_right=pad_left, 14 pad_top=pad_left, "
    "16 pad_bottom=pad_top, 18 pad_value=0., 5 bias_term, 6 weight_data_size, "
)
_ACTIVATION = "8 int8_scale_term, 9 activation_type, 10 activation_params=[.]"

# A convolution with dynamic weights gets them as blobs and has none in the file.
_STATIC = When("dynamic_weight", (0,))
_BIASED = When("bias_term")
_INT8 = When("int8_scale_term")
_REQUANTISED = When("int8_scale_term", (101, 102))
_PADS = "per_channel_pad_data_size"


def _raw(role: str, *factors: str, when: tuple[When, ...] = ()) -> WeightField:
    return WeightField(role, flagged=False, factors=factors, when=when)


def _flagged(role: str, *factors: str, when: tuple[When, ...] = ()) -> WeightField:
    return WeightField(role, flagged=True, factors=factors, when=when)


def _constant(load_type: int) -> WeightField:
    when = (When("load_type", (load_type,)),)
    return WeightField("data", load_type == 0, ("w", "h", "d", "c"), when, zero_is_one=True)


def _schema(  # noqa: PLR0913 -- the columns of the table
    type_: str,
    fields: str = "",
    weights: tuple[WeightField, ...] = (),
    *,
    inputs: Arity = ONE,
    outputs: Arity = ONE,
    explicit: bool = False,
) -> LayerSchema:
    own = _fields(fields) if fields else ()
    return LayerSchema(type_, (*own, *_COMMON), weights, inputs, outputs, explicit)


_TABLE = (
    _schema("Input", "0 w, 1 h, 11 d, 2 c", inputs=NONE),
    _schema(
        "MemoryData",
        "0 w, 1 h, 11 d, 2 c, 21 load_type=1",
        weights=(_constant(1), _constant(0)),
        inputs=NONE,
    ),
    _schema(
        "Convolution",
        _CONVOLUTION + _ACTIVATION + ", 19 dynamic_weight",
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
        _CONVOLUTION + "7 group=1, " + _ACTIVATION + ", 19 dynamic_weight",
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
        "0 num_output, 1 bias_term, 2 weight_data_size, " + _ACTIVATION,
        weights=(
            _flagged("weight", "weight_data_size"),
            _raw("bias", "num_output", when=(_BIASED,)),
            _raw("weight_scales", "num_output", when=(_INT8,)),
            _raw("bottom_scale", when=(_INT8,)),
        ),
    ),
    _schema(
        "Pooling",
        "0 pooling_type, 1 kernel_w, 11 kernel_h=kernel_w, 2 stride_w=1, 12 stride_h=stride_w, "
        "3 pad_left, 14 pad_right=pad_left, 13 pad_top=pad_left, 15 pad_bottom=pad_top, "
        "4 global_pooling, 5 pad_mode, 6 avgpool_count_include_pad, 7 adaptive_pooling, 8 out_w, "
        "18 out_h=out_w",
    ),
    _schema("BinaryOp", "0 op_type, 1 with_scalar, 2 b=0.", inputs=ONE_OR_TWO),
    _schema("Eltwise", "0 op_type, 1 coeffs=[.]", inputs=Arity(2, None)),
    _schema("HardSwish", "0 alpha=0.2, 1 beta=0.5", explicit=True),
    _schema("HardSigmoid", "0 alpha=0.2, 1 beta=0.5", explicit=True),
    _schema("ReLU", "0 slope=0."),
    _schema("Clip", f"0 min={-FLOAT32_MAX}, 1 max={FLOAT32_MAX}", explicit=True),
    _schema("Sigmoid"),
    _schema("Swish"),
    _schema("Mish"),
    _schema("ELU", "0 alpha=0.1"),
    _schema("UnaryOp", "0 op_type"),
    # ncnn refuses an axis other than 0 in a file where fixbug0 is not 1.
    _schema("Softmax", "0 axis, 1 fixbug0", explicit=True),
    _schema("Permute", "0 order_type"),
    _schema("Flatten"),
    _schema("Reshape", f"0 w={AUTO}, 1 h={AUTO}, 11 d={AUTO}, 2 c={AUTO}"),
    _schema("Concat", "0 axis", inputs=SOME),
    _schema("Split", outputs=SOME),
    _schema("Slice", "0 slices=[], 1 axis", outputs=SOME),
    _schema(
        "Normalize",
        "0 across_spatial, 4 across_channel=1, 1 channel_shared, 2 eps=1.e-4, 9 eps_mode, "
        "3 scale_data_size",
        weights=(_raw("scale", "scale_data_size"),),
        explicit=True,
    ),
    _schema(
        "PriorBox",
        "0 min_sizes=[.], 1 max_sizes=[.], 2 aspect_ratios=[.], 3 variances_0=0.1, "
        "4 variances_1=0.1, 5 variances_2=0.2, 6 variances_3=0.2, 7 flip=1, 8 clip, "
        f"9 image_width, 10 image_height, 11 step_width={AUTO}., 12 step_height={AUTO}., "
        "13 offset=0., 14 step_mmdetection, 15 center_mmdetection",
        inputs=ONE_OR_TWO,
        explicit=True,
    ),
    _schema(
        "DetectionOutput",
        "0 num_class, 1 nms_threshold=0.05, 2 nms_top_k=300, 3 keep_top_k=100, "
        "4 confidence_threshold=0.5, 5 variances_0=0.1, 6 variances_1=0.1, 7 variances_2=0.2, "
        "8 variances_3=0.2",
        inputs=Arity(3, 3),
        explicit=True,
    ),
    _schema("Noop", inputs=ANY, outputs=ANY),
    _schema("Dropout", "0 scale=1."),
    _schema(
        "Crop",
        "0 woffset, 1 hoffset, 13 doffset, 2 coffset, 3 outw, 4 outh, 14 outd, 5 outc, "
        "6 woffset2, 7 hoffset2, 15 doffset2, 8 coffset2, 9 starts=[], 10 ends=[], 11 axes=[]",
        inputs=ONE_OR_TWO,
    ),
    _schema(
        "Interp",
        "0 resize_type, 1 height_scale=1., 2 width_scale=1., 3 output_height, 4 output_width, "
        "5 dynamic_target_size, 6 align_corner",
        inputs=ONE_OR_TWO,
    ),
    _schema(
        "Padding",
        "0 top, 1 bottom, 2 left, 3 right, 4 type, 5 value=0., 6 per_channel_pad_data_size, "
        "7 front, 8 behind=front",
        weights=(_raw("per_channel_pad", _PADS, when=(When(_PADS),)),),
    ),
    _schema(
        "Scale",
        "0 scale_data_size, 1 bias_term",
        weights=(
            _raw("scale", "scale_data_size"),
            _raw("bias", "scale_data_size", when=(_BIASED,)),
        ),
    ),
    _schema(
        "BatchNorm",
        "0 channels, 1 eps=0.",
        weights=tuple(_raw(role, "channels") for role in ("slope", "mean", "var", "bias")),
    ),
    # As with Softmax: ncnn refuses axes in a file where fixbug0 is not 1.
    _schema(
        "Reduction",
        "0 operation, 1 reduce_all=1, 2 coeff=1., 3 axes=[], 4 keepdims, 5 fixbug0",
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
