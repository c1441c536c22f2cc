"""Where each part of a network lies in its state_dict; what a family's keys are renamed to."""

from __future__ import annotations

from dataclasses import dataclass

from mbv3ssd_deploy.core.spec import ArchSpec, TapPlace
from mbv3ssd_deploy.nets.plan import BlockPlan, NetPlan, Part, Shortcut, plan_net


@dataclass(frozen=True, slots=True)
class BlockNames:
    """Module names of one inverted residual; None for a part that it does not have.

    All but `squeeze` are `ConvBnAct`s (`.0` convolution, `.1` BatchNorm); `squeeze` has `fc1`,
    `fc2` and, where the layout has them, `norm1`, `norm2`.
    """

    expand: str | None
    depthwise: str
    squeeze: str | None
    project: str
    shortcut: str | None


@dataclass(frozen=True, slots=True)
class NetNames:
    """Module names of a whole network. `last` is None where no tap reaches the last convolution.

    An extra is `.0`, `.1`, `.2`, each a `ConvBnAct`; a head is `.0` (`ConvBnAct`) and `.1`, or a
    bare convolution.
    """

    stem: str
    blocks: tuple[BlockNames, ...]
    last: str | None
    extras: tuple[str, ...]
    classification: tuple[str, ...]
    regression: tuple[str, ...]


def name_modules(arch: ArchSpec) -> NetNames:
    """Return the module names of the network that `arch` describes.

    Raises:
        SpecError: the arch contradicts itself.
    """
    plan = plan_net(arch)
    places = _feature_places(arch, plan)
    blocks = tuple(
        _block_names(block, *places[number])
        for number, block in enumerate(plan.blocks, start=1)
        if number in places
    )
    last = places.get(plan.last_feature)
    levels = range(len(plan.map_channels))
    return NetNames(
        stem=places[0][0],
        blocks=blocks,
        last=None if last is None else last[0],
        extras=tuple(f"backbone.extra.{number}" for number in range(len(plan.extras))),
        classification=tuple(f"head.classification_head.module_list.{n}" for n in levels),
        regression=tuple(f"head.regression_head.module_list.{n}" for n in levels),
    )


def _feature_places(arch: ArchSpec, plan: NetPlan) -> dict[int, tuple[str, str]]:
    """Return, for each feature, its own name and the name of what is left of it after a tap."""
    cuts = {tap.feature: tap.place for tap in arch.taps}
    places: dict[int, tuple[str, str]] = {}
    part = item = 0
    for number in range(min(plan.last_feature, arch.taps[-1].feature) + 1):
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


def _block_names(block: BlockPlan, here: str, after: str) -> BlockNames:
    def name(part: Part) -> str | None:
        if part not in block.parts:
            return None
        return f"{whole}.{block.parts.index(part)}"

    whole = after if here != after else f"{here}.block"
    return BlockNames(
        expand=here if here != after else name(Part.EXPAND),
        depthwise=str(name(Part.DEPTHWISE)),
        squeeze=name(Part.SQUEEZE),
        project=str(name(Part.PROJECT)),
        shortcut=f"{here}.shortcut" if block.shortcut is Shortcut.PROJECTION else None,
    )
