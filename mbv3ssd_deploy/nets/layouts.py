"""How each family wires its blocks, extras and heads: one literal row per layout.

`ArchSpec.layout` names a row of `LAYOUTS`. A new family whose wiring differs in a way that the
fields below can say is one more row; nothing else in this room knows a family's name.

The block tables are those of the MobileNetV3 paper (arXiv 1905.02244, tables 1 and 2), with the
deviations of public code.
"""

from __future__ import annotations

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
    """Where in a block the squeeze-excite gate stands."""

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


class ShortcutRule(enum.StrEnum):
    """Which blocks add their input to their output."""

    SAME_SHAPE = "same_shape"
    """Stride 1 and as many channels out as in."""
    STRIDE_ONE = "stride_one"
    """Every block of stride 1; a 1x1 convolution with BatchNorm where the channels differ."""


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
class SqueezeLayout:
    """A squeeze-excite gate: 1x1 convolution, ReLU, 1x1 convolution, hard sigmoid.

    `norm`: the convolutions have a BatchNorm each and no bias. `pooled`: the gate sees the mean
    over the map; otherwise there is one gate per pixel.
    """

    place: SqueezePlace
    hidden: SqueezeHidden
    norm: bool
    pooled: bool


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How an inverted residual is wired.

    `always_expands`: a 1x1 expansion even where it would not change the number of channels.
    """

    always_expands: bool
    squeeze: SqueezeLayout
    activates_depthwise: bool
    activates_projection: bool
    shortcut: ShortcutRule


@dataclass(frozen=True, slots=True)
class ExtrasLayout:
    """An extra level: 1x1 to `hidden`, depthwise 3x3 of stride 2, 1x1 to the level's channels.

    `hidden` holds one width a level; None means half of the level's channels.
    """

    hidden: tuple[int, ...] | None
    activation: Activation
    activates_output: bool


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """A predictor: depthwise 3x3, BatchNorm, ReLU6, 1x1; the last level may be a bare 1x1."""

    depthwise_bias: bool
    bare_last_level: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """A family's wiring. `tables` is keyed by (backbone, reduced tail)."""

    name: str
    tables: Mapping[tuple[Backbone, bool], tuple[BlockRow, ...]]
    block: BlockLayout
    extras: ExtrasLayout
    head: HeadLayout
    bn_eps: float
    bn_momentum: float


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
    block=BlockLayout(
        always_expands=False,
        squeeze=SqueezeLayout(
            place=SqueezePlace.AFTER_DEPTHWISE,
            hidden=SqueezeHidden.QUARTER_DIVISIBLE,
            norm=False,
            pooled=True,
        ),
        activates_depthwise=True,
        activates_projection=False,
        shortcut=ShortcutRule.SAME_SHAPE,
    ),
    extras=ExtrasLayout(hidden=None, activation=Activation.RELU6, activates_output=True),
    head=HeadLayout(depthwise_bias=False, bare_last_level=False),
    bn_eps=1e-3,
    bn_momentum=0.03,
)
QFGAOHAO = Layout(
    name="qfgaohao",
    tables=MappingProxyType(
        {(Backbone.LARGE, False): LATE_STRIDE_LARGE, (Backbone.SMALL, False): PAPER_SMALL}
    ),
    block=BlockLayout(
        always_expands=True,
        squeeze=SqueezeLayout(
            place=SqueezePlace.AFTER_PROJECTION,
            hidden=SqueezeHidden.QUARTER,
            norm=True,
            pooled=True,
        ),
        activates_depthwise=True,
        activates_projection=False,
        shortcut=ShortcutRule.STRIDE_ONE,
    ),
    extras=ExtrasLayout(
        hidden=(256, 128, 128, 64), activation=Activation.HARDSWISH, activates_output=False
    ),
    head=HeadLayout(depthwise_bias=True, bare_last_level=True),
    bn_eps=1e-5,
    bn_momentum=0.1,
)

LAYOUTS = (TORCHVISION, QFGAOHAO)


def layout_of(arch: ArchSpec) -> Layout:
    """Return the row of `LAYOUTS` that `arch` names.

    Raises:
        SpecError: there is none of that name.
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
