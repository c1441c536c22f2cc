"""How each family wires its blocks, extras and heads: one literal row per layout.

`ArchSpec.layout` names a row of `LAYOUTS`. A new family whose wiring differs in the fields of
`Layout` is one more row; nothing else in this room knows a family's name.

The block tables are those of the MobileNetV3 paper (arXiv 1905.02244, tables 1 and 2), with the
deviations of public code.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.errors import SpecError


class Activation(enum.StrEnum):
    """What follows a convolution and its BatchNorm."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    HARDSWISH = "hardswish"


class SqueezePlace(enum.StrEnum):
    """The place of the squeeze-excite gate in a block."""

    BEFORE_ACTIVATION = "before_activation"
    """On the expanded channels, between the depthwise convolution's BatchNorm and activation."""
    AFTER_DEPTHWISE = "after_depthwise"
    """On the expanded channels, after the depthwise convolution's activation."""
    AFTER_PROJECTION = "after_projection"
    """On the output channels, after the projection's BatchNorm."""


class SqueezeHidden(enum.StrEnum):
    """How wide the gate's hidden layer is."""

    QUARTER_DIVISIBLE = "quarter_divisible"
    """A quarter of the gated channels, rounded to a multiple of 8."""
    QUARTER = "quarter"
    """A quarter of the gated channels, rounded down."""
    ALL = "all"
    """As wide as the gated channels."""


class ShortcutRule(enum.StrEnum):
    """Which blocks add their input to their output."""

    SAME_SHAPE = "same_shape"
    """Stride 1 and as many channels out as in."""
    STRIDE_ONE = "stride_one"
    """Every block of stride 1; a 1x1 convolution with BatchNorm where the channels differ."""
    ALWAYS_CONVOLVED = "always_convolved"
    """Every block, through a 1x1 convolution with the block's stride and no BatchNorm."""


class LastItem(enum.StrEnum):
    """What may follow the last 1x1 convolution of the backbone."""

    SQUEEZE = "squeeze"
    NORM = "norm"
    ACTIVATION = "activation"


class PredictorKind(enum.StrEnum):
    """What a head does to a feature map."""

    SEPARABLE = "separable"
    """Depthwise 3x3, BatchNorm, ReLU6, then 1x1."""
    CONVOLUTION = "convolution"
    """One 3x3 convolution."""


@dataclass(frozen=True, slots=True)
class BlockRow:
    """One row of a block table, at width 1.0."""

    kernel: int
    expansion: int
    out: int
    activation: Activation
    squeeze: bool
    stride: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a network is wired, in plain fields; the defaults are torchvision's wiring.

    A squeeze-excite gate is a 1x1 convolution, ReLU, a 1x1 convolution and a hard sigmoid. An extra
    level is a 1x1 to its hidden width, a depthwise 3x3 of stride 2, and a 1x1 to its channels.

    Attributes:
        name: what `ArchSpec.layout` calls it.
        tables: (backbone, reduced tail) -> the block table.
        always_expands: a 1x1 expansion even where it would not change the number of channels.
        activates_depthwise: an activation after the depthwise part of a block.
        activates_projection: an activation after the projection of a block.
        shortcut: which blocks add their input.
        squares_ungated: a block without a gate multiplies its map with itself instead.
        gate_place: the place of the gate in a block.
        gate_hidden: how wide the gate's hidden layer is.
        gate_norm: the convolutions of the gate have a BatchNorm each and no bias.
        gate_pools: the gate reads the mean over the map; otherwise there is one gate per pixel.
        extra_hidden: one hidden width per extra level; None for half of the level's channels.
        extra_activation: inside an extra level.
        extra_activates_output: an activation behind the last 1x1 of an extra level.
        extra_gated: a gate between the depthwise BatchNorm of an extra level and its activation.
        class_head: the class predictors.
        box_head: the box predictors.
        head_depthwise_bias: a bias in the depthwise convolution of a separable predictor.
        head_activation: inside a separable predictor.
        bare_last_level: the predictors of the last level are a 1x1 convolution.
        normalises_first: the first map is divided by its length over the channels, pixel by pixel,
            and scaled by a learned factor per channel (ParseNet, arXiv 1506.04579).
        bn_eps: added to the variance by every BatchNorm.
        bn_momentum: of every BatchNorm.
        stem_activation: of the first convolution.
        base_bias: all backbone convolutions but the expansions have a bias, BatchNorm or not.
        last: what follows the last 1x1 convolution, in this order.
        wide_channels: one more 1x1 convolution of that width after it, with a bias, h-swish and no
            BatchNorm.
    """

    name: str
    tables: Mapping[tuple[Backbone, bool], tuple[BlockRow, ...]]
    always_expands: bool = False
    activates_depthwise: bool = True
    activates_projection: bool = False
    shortcut: ShortcutRule = ShortcutRule.SAME_SHAPE
    squares_ungated: bool = False
    gate_place: SqueezePlace = SqueezePlace.AFTER_DEPTHWISE
    gate_hidden: SqueezeHidden = SqueezeHidden.QUARTER_DIVISIBLE
    gate_norm: bool = False
    gate_pools: bool = True
    extra_hidden: tuple[int, ...] | None = None
    extra_activation: Activation = Activation.RELU6
    extra_activates_output: bool = True
    extra_gated: bool = False
    class_head: PredictorKind = PredictorKind.SEPARABLE
    box_head: PredictorKind = PredictorKind.SEPARABLE
    head_depthwise_bias: bool = False
    head_activation: Activation = Activation.RELU6
    bare_last_level: bool = False
    normalises_first: bool = False
    bn_eps: float = 1e-3
    bn_momentum: float = 0.03
    stem_activation: Activation = Activation.HARDSWISH
    base_bias: bool = False
    last: tuple[LastItem, ...] = (LastItem.NORM, LastItem.ACTIVATION)
    wide_channels: int | None = None


STEM_CHANNELS = 16
LAST_CONV_FACTOR = 6
"""The last 1x1 convolution has 6 times the channels of the last block, in both networks."""

RE, HS = Activation.RELU, Activation.HARDSWISH

PAPER_LARGE = (
    BlockRow(3, 16, 16, RE, squeeze=False, stride=1),
    BlockRow(3, 64, 24, RE, squeeze=False, stride=2),
    BlockRow(3, 72, 24, RE, squeeze=False, stride=1),
    BlockRow(5, 72, 40, RE, squeeze=True, stride=2),
    BlockRow(5, 120, 40, RE, squeeze=True, stride=1),
    BlockRow(5, 120, 40, RE, squeeze=True, stride=1),
    BlockRow(3, 240, 80, HS, squeeze=False, stride=2),
    BlockRow(3, 200, 80, HS, squeeze=False, stride=1),
    BlockRow(3, 184, 80, HS, squeeze=False, stride=1),
    BlockRow(3, 184, 80, HS, squeeze=False, stride=1),
    BlockRow(3, 480, 112, HS, squeeze=True, stride=1),
    BlockRow(3, 672, 112, HS, squeeze=True, stride=1),
    BlockRow(5, 672, 160, HS, squeeze=True, stride=2),
    BlockRow(5, 960, 160, HS, squeeze=True, stride=1),
    BlockRow(5, 960, 160, HS, squeeze=True, stride=1),
)
# The reduced tail halves the last stage, as section 6.3 of the paper does for detection.
PAPER_LARGE_REDUCED = (
    *PAPER_LARGE[:12],
    BlockRow(5, 672, 80, HS, squeeze=True, stride=2),
    BlockRow(5, 480, 80, HS, squeeze=True, stride=1),
    BlockRow(5, 480, 80, HS, squeeze=True, stride=1),
)
PAPER_SMALL = (
    BlockRow(3, 16, 16, RE, squeeze=True, stride=2),
    BlockRow(3, 72, 24, RE, squeeze=False, stride=2),
    BlockRow(3, 88, 24, RE, squeeze=False, stride=1),
    BlockRow(5, 96, 40, HS, squeeze=True, stride=2),
    BlockRow(5, 240, 40, HS, squeeze=True, stride=1),
    BlockRow(5, 240, 40, HS, squeeze=True, stride=1),
    BlockRow(5, 120, 48, HS, squeeze=True, stride=1),
    BlockRow(5, 144, 48, HS, squeeze=True, stride=1),
    BlockRow(5, 288, 96, HS, squeeze=True, stride=2),
    BlockRow(5, 576, 96, HS, squeeze=True, stride=1),
    BlockRow(5, 576, 96, HS, squeeze=True, stride=1),
)
# leaderj1001/MobileNetV3-Pytorch: ReLU where the paper has h-swish for the first time.
LATE_SWISH_SMALL = (
    *PAPER_SMALL[:3],
    *(dataclasses.replace(row, activation=RE) for row in PAPER_SMALL[3:6]),
    *PAPER_SMALL[6:],
)
PAPER_SMALL_REDUCED = (
    *PAPER_SMALL[:8],
    BlockRow(5, 288, 48, HS, squeeze=True, stride=2),
    BlockRow(5, 288, 48, HS, squeeze=True, stride=1),
    BlockRow(5, 288, 48, HS, squeeze=True, stride=1),
)
# xiaolai518/mobilenetv3 and all that copied it: the last stage widens one block before it strides.
LATE_STRIDE_LARGE = (
    *PAPER_LARGE[:12],
    BlockRow(5, 672, 160, HS, squeeze=True, stride=1),
    BlockRow(5, 672, 160, HS, squeeze=True, stride=2),
    BlockRow(5, 960, 160, HS, squeeze=True, stride=1),
)
# mmdetection's own MobileNetV3 (724845a) halves the last stage one expansion earlier.
HALVED_EARLY_LARGE = (
    *PAPER_LARGE[:12],
    BlockRow(5, 336, 80, HS, squeeze=True, stride=2),
    *PAPER_LARGE_REDUCED[13:],
)
HALVED_EARLY_SMALL = (
    *PAPER_SMALL[:8],
    BlockRow(5, 144, 48, HS, squeeze=True, stride=2),
    *PAPER_SMALL_REDUCED[9:],
)

TORCHVISION = Layout(
    name="torchvision",
    tables=MappingProxyType(
        {
            (Backbone.LARGE, False): PAPER_LARGE,
            (Backbone.LARGE, True): PAPER_LARGE_REDUCED,
            (Backbone.SMALL, False): PAPER_SMALL,
            (Backbone.SMALL, True): PAPER_SMALL_REDUCED,
        }
    ),
)
QFGAOHAO = Layout(
    name="qfgaohao",
    tables=MappingProxyType(
        {(Backbone.LARGE, False): LATE_STRIDE_LARGE, (Backbone.SMALL, False): PAPER_SMALL}
    ),
    always_expands=True,
    shortcut=ShortcutRule.STRIDE_ONE,
    gate_place=SqueezePlace.AFTER_PROJECTION,
    gate_hidden=SqueezeHidden.QUARTER,
    gate_norm=True,
    extra_hidden=(256, 128, 128, 64),
    extra_activation=Activation.HARDSWISH,
    extra_activates_output=False,
    head_depthwise_bias=True,
    bare_last_level=True,
    bn_eps=1e-5,
    bn_momentum=0.1,
)
# tongyuhome/MobileNetV3-SSD and shaoshengsong/MobileNetV3-SSD, on leaderj1001's backbone.
TONGYU_LARGE = dataclasses.replace(
    QFGAOHAO,
    name="tongyu_large",
    tables=MappingProxyType({(Backbone.LARGE, False): LATE_STRIDE_LARGE}),
    activates_depthwise=False,
    activates_projection=True,
    shortcut=ShortcutRule.SAME_SHAPE,
    gate_place=SqueezePlace.AFTER_DEPTHWISE,
    gate_norm=False,
    extra_activation=Activation.RELU6,
    base_bias=True,
    wide_channels=1280,
)
TONGYU_SMALL = dataclasses.replace(
    TONGYU_LARGE,
    name="tongyu_small",
    tables=MappingProxyType({(Backbone.SMALL, False): LATE_SWISH_SMALL}),
    last=(LastItem.SQUEEZE, LastItem.NORM, LastItem.ACTIVATION),
)
JUNGIN500 = dataclasses.replace(
    QFGAOHAO,
    name="jungin500",
    tables=MappingProxyType({(Backbone.SMALL, False): PAPER_SMALL}),
    activates_depthwise=False,
    shortcut=ShortcutRule.ALWAYS_CONVOLVED,
    squares_ungated=True,
    gate_place=SqueezePlace.AFTER_DEPTHWISE,
    gate_hidden=SqueezeHidden.ALL,
    gate_norm=False,
    last=(LastItem.ACTIVATION, LastItem.NORM),
)
UJSYEHAO = dataclasses.replace(
    QFGAOHAO,
    name="ujsyehao",
    tables=MappingProxyType({(Backbone.LARGE, False): LATE_STRIDE_LARGE}),
    gate_pools=False,
    extra_hidden=None,
    extra_activation=Activation.RELU6,
    extra_activates_output=True,
    bare_last_level=False,
)
# The same backbone with the heads of a plain SSD: mmdetection 1.x without `depthwise_heads`.
UJSYEHAO_PLAIN = dataclasses.replace(
    UJSYEHAO,
    name="ujsyehao_plain",
    class_head=PredictorKind.CONVOLUTION,
    box_head=PredictorKind.CONVOLUTION,
)
COMPACT = dataclasses.replace(UJSYEHAO_PLAIN, name="compact", normalises_first=True)
LUFFICC = Layout(
    name="lufficc",
    tables=MappingProxyType({(Backbone.LARGE, False): PAPER_LARGE}),
    gate_place=SqueezePlace.BEFORE_ACTIVATION,
    extra_hidden=(192, 128, 128, 64),
    extra_activation=Activation.HARDSWISH,
    extra_activates_output=False,
    extra_gated=True,
    head_depthwise_bias=True,
    bare_last_level=True,
    bn_eps=1e-5,
    bn_momentum=0.1,
)
# mmdetection 2.x and 3.x: SSDNeck and SSDHead on a MobileNetV3 that changed from version to version
# in what these names say: whether a block expands where it would not change the channels
# (with_expand_conv), and whether the gate's width is rounded down instead of to a multiple of 8.
MMDET = dataclasses.replace(
    TORCHVISION,
    name="mmdet",
    tables=MappingProxyType(
        {
            (Backbone.LARGE, False): PAPER_LARGE,
            (Backbone.LARGE, True): HALVED_EARLY_LARGE,
            (Backbone.SMALL, False): PAPER_SMALL,
            (Backbone.SMALL, True): HALVED_EARLY_SMALL,
        }
    ),
)
MMDET_QUARTER = dataclasses.replace(MMDET, name="mmdet_quarter", gate_hidden=SqueezeHidden.QUARTER)
MMDET_EXPANDING = dataclasses.replace(MMDET, name="mmdet_expanding", always_expands=True)
MMDET_EXPANDING_QUARTER = dataclasses.replace(
    MMDET_QUARTER, name="mmdet_expanding_quarter", always_expands=True
)
# mmclassification before 0.12: its Large strides late, as xiaolai518's.
MMDET_EARLY = dataclasses.replace(
    MMDET_EXPANDING_QUARTER,
    name="mmdet_early",
    tables=MappingProxyType({(Backbone.LARGE, False): LATE_STRIDE_LARGE}),
)
_MMDET_PLAIN = (MMDET, MMDET_QUARTER, MMDET_EXPANDING, MMDET_EXPANDING_QUARTER, MMDET_EARLY)
# SSDNeck's `l2_norm_scale` normalises the first map.
MMDET_LAYOUTS = (
    *_MMDET_PLAIN,
    *(
        dataclasses.replace(layout, name=f"{layout.name}_l2norm", normalises_first=True)
        for layout in _MMDET_PLAIN
    ),
)

LAYOUTS = (
    TORCHVISION,
    QFGAOHAO,
    TONGYU_LARGE,
    TONGYU_SMALL,
    JUNGIN500,
    UJSYEHAO,
    COMPACT,
    LUFFICC,
    UJSYEHAO_PLAIN,
    *MMDET_LAYOUTS,
)


def layout_of(arch: ArchSpec) -> Layout:
    """Return the row of `LAYOUTS` that `arch` names.

    Raises:
        SpecError: the name is unknown.
    """
    for layout in LAYOUTS:
        if layout.name == arch.layout:
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise SpecError(f"there is no layout {arch.layout!r}; known are {known}", where="arch.layout")


def block_rows(arch: ArchSpec) -> tuple[BlockRow, ...]:
    """Return the block table of `arch`, at width 1.0.

    Raises:
        SpecError: the layout has no such backbone, or no reduced tail of it.
    """
    layout = layout_of(arch)
    rows = layout.tables.get((arch.backbone, arch.reduced_tail))
    if rows is None:
        tail = "a reduced tail" if arch.reduced_tail else "a full tail"
        raise SpecError(
            f"layout {layout.name!r} has no {arch.backbone} backbone with {tail}", where="arch"
        )
    return rows
