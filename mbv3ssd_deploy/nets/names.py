"""Where each part of a network lies in its state_dict; what a family's keys are renamed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mbv3ssd_deploy.core.spec import ArchSpec, TapPlace
from mbv3ssd_deploy.nets.layouts import LastItem
from mbv3ssd_deploy.nets.plan import BlockPlan, NetPlan, Part, Shortcut, plan_net


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
        first_norm="backbone.first_norm" if plan.layout.head.normalises_first else None,
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
