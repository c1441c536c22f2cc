"""ArchSpec -> widths, strides, map sizes and module names of its network; no torch here.

Features are numbered as in torchvision's MobileNetV3: 0 is the stem, 1..n the blocks, n + 1 the
last 1x1 convolution.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from mbv3ssd_deploy.core.spec import ArchSpec, TapPlace
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.nets.layouts import (
    LAST_CONV_FACTOR,
    STEM_CHANNELS,
    Activation,
    BlockRow,
    LastItem,
    Layout,
    ShortcutRule,
    SqueezeHidden,
    SqueezePlace,
    block_rows,
    layout_of,
)


def feature_map_sizes(arch: ArchSpec, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return (rows, columns) of each map that a head reads, for an input of `height` x `width`.

    Every convolution is padded by half its odd kernel, so one of stride s makes ceil(n / s) of n
    (the size formula of PyTorch's Conv2d documentation).

    Raises:
        SpecError: the arch contradicts itself, or the input has no pixels.
    """
    if height < 1 or width < 1:
        raise SpecError(f"the input size {height} x {width} has no pixels")
    plan = plan_net(arch)
    strides = (2, *(block.stride for block in plan.blocks), 1, 1)
    sizes: list[tuple[int, int]] = []
    for tap in arch.taps:
        # a block strides in its depthwise convolution, which comes after its expansion
        passed = tap.feature + (tap.place is not TapPlace.EXPANSION)
        size = (height, width)
        for stride in strides[:passed]:
            size = _strided(size, stride)
        sizes.append(size)
    for _ in plan.extras:
        sizes.append(_strided(sizes[-1], 2))
    return tuple(sizes)


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    rows, cols = size
    return -(-rows // stride), -(-cols // stride)


class Shortcut(enum.StrEnum):
    """What a block adds to its output."""

    NONE = "none"
    IDENTITY = "identity"
    PROJECTION = "projection"
    """The input through a 1x1 convolution and BatchNorm."""
    CONVOLUTION = "convolution"
    """The input through a 1x1 convolution with the block's stride and nothing more."""


class Part(enum.StrEnum):
    """An item of an inverted residual."""

    EXPAND = "expand"
    DEPTHWISE = "depthwise"
    SQUEEZE = "squeeze"
    SQUARE = "square"
    """The map times itself."""
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """One inverted residual in numbers.

    `parts` are its items in the order in which they run; `squeeze_hidden` is None without a gate.
    A gate before the depthwise activation is an item of the depthwise part, not one of its own.
    """

    in_channels: int
    expansion: int
    out_channels: int
    kernel: int
    stride: int
    activation: Activation
    parts: tuple[Part, ...]
    squeeze_hidden: int | None
    shortcut: Shortcut


@dataclass(frozen=True, slots=True)
class ExtraPlan:
    """One extra level after the backbone; its depthwise convolution has stride 2."""

    in_channels: int
    hidden: int
    out_channels: int
    squeeze_hidden: int | None


@dataclass(frozen=True, slots=True)
class NetPlan:
    """A whole network in numbers."""

    layout: Layout
    stem_channels: int
    blocks: tuple[BlockPlan, ...]
    last_channels: int
    extras: tuple[ExtraPlan, ...]
    map_channels: tuple[int, ...]
    """Channels of each feature map that a head reads: the taps, then the extras."""

    @property
    def last_feature(self) -> int:
        """The number of the last 1x1 convolution of the backbone's table."""
        return len(self.blocks) + 1

    @property
    def wide_feature(self) -> int | None:
        """The number of the wide convolution after it, where the layout has one."""
        return None if self.layout.wide_channels is None else self.last_feature + 1

    @property
    def last_squeeze_hidden(self) -> int:
        """The hidden width of the gate after the last convolution, where the layout has one."""
        return _squeeze_hidden(self.layout, self.last_channels)


def divisible_width(channels: float, divisor: int = 8) -> int:
    """Return `channels` rounded to a multiple of `divisor`, at most 10 % below it.

    The rounding of the MobileNet papers' reference code: half a divisor rounds up, never under one
    divisor, and one divisor more where rounding down would take away more than a tenth.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def plan_net(arch: ArchSpec) -> NetPlan:
    """Return every width and stride of the network that `arch` describes.

    Raises:
        SpecError: unknown layout, no such backbone in it, or taps that cannot be taken.
    """
    layout = layout_of(arch)
    stem = divisible_width(STEM_CHANNELS * arch.width_mult)
    blocks: list[BlockPlan] = []
    channels = stem
    for row in block_rows(arch):
        blocks.append(_plan_block(row, channels, arch.width_mult, layout))
        channels = blocks[-1].out_channels
    last = LAST_CONV_FACTOR * channels
    tail = (last,) if layout.wide_channels is None else (last, layout.wide_channels)
    _check_taps(arch, tuple(blocks), len(tail))
    taps = _tap_channels(arch, stem, tuple(blocks), tail)
    extras = _plan_extras(arch, layout, taps[-1])
    return NetPlan(layout, stem, tuple(blocks), last, extras, (*taps, *arch.extras))


def _plan_block(row: BlockRow, in_channels: int, width: float, layout: Layout) -> BlockPlan:
    expansion = divisible_width(row.expansion * width)
    out = divisible_width(row.out * width)
    place = layout.gate_place
    gated = out if place is SqueezePlace.AFTER_PROJECTION else expansion
    return BlockPlan(
        in_channels=in_channels,
        expansion=expansion,
        out_channels=out,
        kernel=row.kernel,
        stride=row.stride,
        activation=row.activation,
        parts=_parts(
            expands=layout.always_expands or expansion != in_channels,
            squeeze=place if row.squeeze else None,
            squares=layout.squares_ungated,
        ),
        squeeze_hidden=_squeeze_hidden(layout, gated) if row.squeeze else None,
        shortcut=_shortcut(layout.shortcut, row.stride, same_channels=in_channels == out),
    )


def _squeeze_hidden(layout: Layout, gated: int) -> int:
    rule = layout.gate_hidden
    if rule is SqueezeHidden.ALL:
        return gated
    quarter = gated // 4
    return divisible_width(quarter) if rule is SqueezeHidden.QUARTER_DIVISIBLE else max(1, quarter)


def _parts(*, expands: bool, squeeze: SqueezePlace | None, squares: bool) -> tuple[Part, ...]:
    first = (Part.EXPAND, Part.DEPTHWISE) if expands else (Part.DEPTHWISE,)
    if squeeze is None:
        return (*first, Part.SQUARE, Part.PROJECT) if squares else (*first, Part.PROJECT)
    if squeeze is SqueezePlace.AFTER_DEPTHWISE:
        return (*first, Part.SQUEEZE, Part.PROJECT)
    if squeeze is SqueezePlace.AFTER_PROJECTION:
        return (*first, Part.PROJECT, Part.SQUEEZE)
    return (*first, Part.PROJECT)


def _shortcut(rule: ShortcutRule, stride: int, *, same_channels: bool) -> Shortcut:
    if rule is ShortcutRule.ALWAYS_CONVOLVED:
        return Shortcut.CONVOLUTION
    if stride != 1:
        return Shortcut.NONE
    if same_channels:
        return Shortcut.IDENTITY
    return Shortcut.PROJECTION if rule is ShortcutRule.STRIDE_ONE else Shortcut.NONE


def _check_taps(arch: ArchSpec, blocks: tuple[BlockPlan, ...], tail: int) -> None:
    last = len(blocks) + tail
    numbers = [tap.feature for tap in arch.taps]
    problems = [f"feature {n} does not exist, the last is {last}" for n in numbers if n > last]
    if min(numbers) < 0 or any(a >= b for a, b in itertools.pairwise(numbers)):
        problems.append(f"taps {numbers} do not ascend from 0")
    if arch.taps[-1].place is TapPlace.EXPANSION:
        problems.append("the last tap must be an output: the extras go on from a whole feature")
    problems += [
        f"feature {tap.feature} cannot be tapped before its activation: only a wide convolution "
        "behind the last one can"
        for tap in arch.taps
        if tap.place is TapPlace.BEFORE_ACTIVATION and tap.feature < len(blocks) + 2
    ]
    problems += [
        f"feature {tap.feature} has no expansion that can be tapped: only a block that expands "
        "and has no shortcut can be cut in two"
        for tap in arch.taps
        if tap.place is TapPlace.EXPANSION and not _has_free_expansion(tap.feature, blocks)
    ]
    if problems:
        raise SpecError("; ".join(problems), where="arch.taps")


def _has_free_expansion(feature: int, blocks: tuple[BlockPlan, ...]) -> bool:
    if not 1 <= feature <= len(blocks):
        return False
    block = blocks[feature - 1]
    return Part.EXPAND in block.parts and block.shortcut is Shortcut.NONE


def _tap_channels(
    arch: ArchSpec, stem: int, blocks: tuple[BlockPlan, ...], tail: tuple[int, ...]
) -> tuple[int, ...]:
    outputs = (stem, *(block.out_channels for block in blocks), *tail)
    return tuple(
        blocks[tap.feature - 1].expansion
        if tap.place is TapPlace.EXPANSION
        else outputs[tap.feature]
        for tap in arch.taps
    )


def _plan_extras(arch: ArchSpec, layout: Layout, in_channels: int) -> tuple[ExtraPlan, ...]:
    hidden = layout.extra_hidden or tuple(max(1, out // 2) for out in arch.extras)
    if min(arch.extras, default=1) < 1 or len(hidden) != len(arch.extras):
        raise SpecError(
            f"layout {layout.name!r} takes {len(hidden)} extra levels of at least 1 channel, "
            f"not {arch.extras}",
            where="arch.extras",
        )
    sources = (in_channels, *arch.extras[:-1])
    gates = [_squeeze_hidden(layout, width) if layout.extra_gated else None for width in hidden]
    return tuple(map(ExtraPlan, sources, hidden, arch.extras, gates))


@dataclass(frozen=True, slots=True)
class BlockNames:
    """Module names of one inverted residual; None for a part that it does not have.

    All but `squeeze` are `ConvBnAct`s (`.0` convolution, `.1` BatchNorm); `squeeze` has `fc1`,
    `fc2` and, where the layout has them, `norm1`, `norm2`. A `shortcut` without a BatchNorm is a
    bare convolution.
    """

    expand: str | None
    depthwise: str
    squeeze: str | None
    project: str
    shortcut: str | None


@dataclass(frozen=True, slots=True)
class NetNames:
    """Module names of a whole network. `last` is None where no tap reaches the last convolution.

    `last` is its convolution, `last_norm` and `last_squeeze` what follows it; `wide` the wide
    convolution behind them. An extra is `.0`, `.1`, `.2`, each a `ConvBnAct`, with a gate `.1.2` if
    its layout has one; a head is `.0` (`ConvBnAct`) and `.1`, or a bare convolution. `first_norm`
    has the factors that scale the first map.
    """

    stem: str
    blocks: tuple[BlockNames, ...]
    last: str | None
    last_norm: str | None
    last_squeeze: str | None
    wide: str | None
    extras: tuple[str, ...]
    first_norm: str | None
    classification: tuple[str, ...]
    regression: tuple[str, ...]


def name_modules(arch: ArchSpec) -> NetNames:
    """Return the module names of the network that `arch` describes.

    Raises:
        SpecError: the arch contradicts itself.
    """
    plan = plan_net(arch)
    places = _feature_places(arch)
    blocks = tuple(
        _block_names(block, *places[number])
        for number, block in enumerate(plan.blocks, start=1)
        if number in places
    )
    last = _last_names(plan, places)
    wide = places.get(plan.wide_feature or -1)
    levels = range(len(plan.map_channels))
    return NetNames(
        stem=places[0][0],
        blocks=blocks,
        last=last.get("convolution"),
        last_norm=last.get(LastItem.NORM),
        last_squeeze=last.get(LastItem.SQUEEZE),
        wide=None if wide is None else f"{wide[0]}.0",
        first_norm="backbone.first_norm" if plan.layout.normalises_first else None,
        extras=tuple(f"backbone.extra.{number}" for number in range(len(plan.extras))),
        classification=tuple(f"head.classification_head.module_list.{n}" for n in levels),
        regression=tuple(f"head.regression_head.module_list.{n}" for n in levels),
    )


def _feature_places(arch: ArchSpec) -> dict[int, tuple[str, str]]:
    """Return, for each feature, its own name and the name of what is left of it after a tap."""
    cuts = {tap.feature: tap.place for tap in arch.taps}
    places: dict[int, tuple[str, str]] = {}
    part = item = 0
    for number in range(arch.taps[-1].feature + 1):
        here = f"backbone.features.{part}.{item}"
        after = here
        item += 1
        if number in cuts:
            part, item = part + 1, 0
        if cuts.get(number) is TapPlace.EXPANSION:
            after = f"backbone.features.{part}.{item}"
            item += 1
        places[number] = (here, after)
    return places


def _last_names(plan: NetPlan, places: Mapping[int, tuple[str, str]]) -> dict[str, str]:
    if plan.last_feature not in places:
        return {}
    here = places[plan.last_feature][0]
    items = ("convolution", *plan.layout.last)
    return {item: f"{here}.{number}" for number, item in enumerate(items)}


def _block_names(block: BlockPlan, here: str, after: str) -> BlockNames:
    def name(part: Part) -> str | None:
        if part not in block.parts:
            return None
        return f"{whole}.{block.parts.index(part)}"

    whole = after if here != after else f"{here}.block"
    depthwise = str(name(Part.DEPTHWISE))
    # a gated block without a part for the gate has it inside the depthwise part
    inside = f"{depthwise}.2" if block.squeeze_hidden is not None else None
    convolved = block.shortcut in (Shortcut.PROJECTION, Shortcut.CONVOLUTION)
    return BlockNames(
        expand=here if here != after else name(Part.EXPAND),
        depthwise=depthwise,
        squeeze=name(Part.SQUEEZE) or inside,
        project=str(name(Part.PROJECT)),
        shortcut=f"{here}.shortcut" if convolved else None,
    )
