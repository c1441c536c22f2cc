"""The layer table: what each ncnn layer's numbered parameters and weights mean.

The table is the only place where a parameter number appears. The writer, the reader, the checker,
the lowerings and the page docs/formats/ncnn-layers.md are all made from it. Names are those of the
members in ncnn's own layer headers (`variances_0` for `variances[0]`); numbers, defaults and the
order of the weights are those of `load_param` and `load_model` in ncnn's src/layer/*.cpp.

A parameter that a release of ncnn knows and this table does not (the string expressions of Crop,
Interp and Reshape, the batch axes of 2026) is refused by name when a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

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


def _f32(value: float) -> float:
    return float(np.float32(value))


def _int(number: int, name: str, default: int | Same = 0) -> ParamField:
    return ParamField(number, name, default, Kind.INT)


def _float(number: int, name: str, default: float = 0.0) -> ParamField:
    return ParamField(number, name, _f32(default), Kind.FLOAT)


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
    _int(0, "num_output"),
    _int(1, "kernel_w"),
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
    _int(5, "bias_term"),
    _int(6, "weight_data_size"),
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


_MEMORY_DIMENSIONS = ("w", "h", "d", "c")


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
    _schema("Input", _int(0, "w"), _int(1, "h"), _int(11, "d"), _int(2, "c"), inputs=NONE),
    _schema(
        "MemoryData",
        _int(0, "w"),
        _int(1, "h"),
        _int(11, "d"),
        _int(2, "c"),
        _int(21, "load_type", 1),
        weights=(
            WeightField(
                "data",
                flagged=False,
                factors=_MEMORY_DIMENSIONS,
                when=(When("load_type", (1,)),),
                zero_is_one=True,
            ),
            WeightField(
                "data",
                flagged=True,
                factors=_MEMORY_DIMENSIONS,
                when=(When("load_type", (0,)),),
                zero_is_one=True,
            ),
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
        _int(0, "num_output"),
        _int(1, "bias_term"),
        _int(2, "weight_data_size"),
        _int(8, "int8_scale_term"),
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
        _int(0, "pooling_type"),
        _int(1, "kernel_w"),
        _int(11, "kernel_h", Same("kernel_w")),
        _int(2, "stride_w", 1),
        _int(12, "stride_h", Same("stride_w")),
        _int(3, "pad_left"),
        _int(14, "pad_right", Same("pad_left")),
        _int(13, "pad_top", Same("pad_left")),
        _int(15, "pad_bottom", Same("pad_top")),
        _int(4, "global_pooling"),
        _int(5, "pad_mode"),
        _int(6, "avgpool_count_include_pad"),
        _int(7, "adaptive_pooling"),
        _int(8, "out_w"),
        _int(18, "out_h", Same("out_w")),
    ),
    _schema(
        "BinaryOp",
        _int(0, "op_type"),
        _int(1, "with_scalar"),
        _float(2, "b"),
        inputs=Arity(1, 2),
    ),
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
    _schema(
        "Reshape",
        _int(0, "w", AUTO),
        _int(1, "h", AUTO),
        _int(11, "d", AUTO),
        _int(2, "c", AUTO),
    ),
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
        _float(3, "variances_0", 0.1),
        _float(4, "variances_1", 0.1),
        _float(5, "variances_2", 0.2),
        _float(6, "variances_3", 0.2),
        _int(7, "flip", 1),
        _int(8, "clip"),
        _int(9, "image_width"),
        _int(10, "image_height"),
        _float(11, "step_width", AUTO),
        _float(12, "step_height", AUTO),
        _float(13, "offset"),
        _int(14, "step_mmdetection"),
        _int(15, "center_mmdetection"),
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
        _float(5, "variances_0", 0.1),
        _float(6, "variances_1", 0.1),
        _float(7, "variances_2", 0.2),
        _float(8, "variances_3", 0.2),
        inputs=Arity(3, 3),
        explicit=True,
    ),
    _schema("Noop", inputs=ANY, outputs=ANY),
    _schema("Dropout", _float(0, "scale", 1.0)),
    _schema(
        "Crop",
        _int(0, "woffset"),
        _int(1, "hoffset"),
        _int(13, "doffset"),
        _int(2, "coffset"),
        _int(3, "outw"),
        _int(4, "outh"),
        _int(14, "outd"),
        _int(5, "outc"),
        _int(6, "woffset2"),
        _int(7, "hoffset2"),
        _int(15, "doffset2"),
        _int(8, "coffset2"),
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
        _int(3, "output_height"),
        _int(4, "output_width"),
        _int(5, "dynamic_target_size"),
        _int(6, "align_corner"),
        inputs=Arity(1, 2),
    ),
    _schema(
        "Padding",
        _int(0, "top"),
        _int(1, "bottom"),
        _int(2, "left"),
        _int(3, "right"),
        _int(4, "type"),
        _float(5, "value"),
        _int(6, "per_channel_pad_data_size"),
        _int(7, "front"),
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
        _int(0, "scale_data_size"),
        _int(1, "bias_term"),
        weights=(
            _raw("scale", "scale_data_size"),
            _raw("bias", "scale_data_size", when=(_BIASED,)),
        ),
    ),
    _schema(
        "BatchNorm",
        _int(0, "channels"),
        _float(1, "eps"),
        weights=(
            _raw("slope", "channels"),
            _raw("mean", "channels"),
            _raw("var", "channels"),
            _raw("bias", "channels"),
        ),
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
    strange = sorted(set(given) - set(known))
    if strange:
        raise ValueError(f"{type_} has no parameter {', '.join(strange)}")
    stored = {key: known[key].stored(value) for key, value in given.items()}
    kept = MappingProxyType(schema.without_defaults(stored))
    return NcnnLayer(type_, name, inputs, outputs, kept, weights)


def param_of(layer: NcnnLayer, name: str) -> Param:
    """Return a parameter of `layer` as ncnn sees it, its default included.

    Raises:
        KeyError: the layer type, or the parameter, is not in the table.
    """
    return LAYERS[layer.type].value(layer.params, name)
