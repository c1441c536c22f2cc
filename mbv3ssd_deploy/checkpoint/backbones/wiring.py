"""Whether a backbone is wired as a detector wants it, and what differs where it is not.

Weights of the same shapes do not make the same network: gates with and without pooling share every
shape. So the layouts of both are compared, fact by fact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mbv3ssd_deploy.checkpoint.backbones.family import BackboneFamily
from mbv3ssd_deploy.checkpoint.backbones.table import BACKBONES
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.layouts import LAYOUTS, Layout, layout_of


@dataclass(frozen=True, slots=True)
class Network:
    """A backbone without its weights: a layout, Large or Small, and which tail.

    `layout` is None for one that no detector has; `why_not` then says what it does otherwise.
    """

    layout: Layout | None
    backbone: Backbone
    reduced_tail: bool = False
    why_not: str = ""


FACTS: tuple[tuple[str, Callable[[Layout], object]], ...] = (
    ("where the gate stands", lambda layout: layout.block.squeeze.place),
    ("how wide the gate is", lambda layout: layout.block.squeeze.hidden),
    ("whether the gate has BatchNorms", lambda layout: layout.block.squeeze.norm),
    ("whether the gate pools", lambda layout: layout.block.squeeze.pooled),
    ("whether each block expands", lambda layout: layout.block.always_expands),
    ("activation after the depthwise part", lambda layout: layout.block.activates_depthwise),
    ("activation after the projection", lambda layout: layout.block.activates_projection),
    ("which blocks add their input", lambda layout: layout.block.shortcut),
    ("whether blocks without a gate square", lambda layout: layout.block.squares_ungated),
    ("biases", lambda layout: layout.base_bias),
    ("what follows the last convolution", lambda layout: ", ".join(layout.last)),
    ("a wide convolution behind it", lambda layout: layout.wide_channels),
)
"""What decides what a backbone computes, besides its block table. BatchNorm's eps is converted."""


def network_of(arch: ArchSpec) -> Network:
    """Return the backbone of `arch`.

    Raises:
        SpecError: there is no such layout.
    """
    return Network(layout_of(arch), arch.backbone, arch.reduced_tail)


def network_of_family(family: BackboneFamily, backbone: Backbone) -> Network:
    """Return the network that the files of `family` hold."""
    named = family.layouts.get(backbone)
    layout = next((layout for layout in LAYOUTS if layout.name == named), None)
    return Network(layout, backbone, why_not=family.why_not.get(backbone, ""))


def differences(source: Network, target: Network) -> tuple[str, ...]:
    """Return in words what keeps `source`'s weights from computing the same in `target`.

    Widths are not looked at: the shapes of the tensors tell them.
    """
    if source.backbone is not target.backbone:
        mine, theirs = source.backbone.capitalize(), target.backbone.capitalize()
        return (f"it is MobileNetV3-{mine}, the detector's is {theirs}",)
    if source.layout is None or target.layout is None:
        return (source.why_not or target.why_not,)
    found = [
        f"{words} ({_said(fact(source.layout))} in the file, {_said(fact(target.layout))} in the "
        "detector)"
        for words, fact in FACTS
        if fact(source.layout) != fact(target.layout)
    ]
    if _table(source) != _table(target):
        found.append(_other_table(source, target))
    return tuple(found)


def _other_table(source: Network, target: Network) -> str:
    if source.reduced_tail is not target.reduced_tail:
        mine, theirs = ("reduced" if n.reduced_tail else "full" for n in (source, target))
        return f"the tail ({mine} in the file, {theirs} in the detector)"
    return "the table of blocks (a stride, kernel, width or activation differs)"


def _table(network: Network) -> object:
    layout = network.layout
    key = (network.backbone, network.reduced_tail)
    return None if layout is None else layout.tables.get(key)


def _said(value: object) -> str:
    words = {True: "yes", False: "no", None: "none"}
    if isinstance(value, bool) or value is None:
        return words[value]
    return str(value).replace("_", " ")


def fed_layouts(source: Network) -> tuple[str, ...]:
    """Return the names of the layouts whose detectors take `source`'s weights exactly."""
    return tuple(
        layout.name
        for layout in LAYOUTS
        if (source.backbone, source.reduced_tail) in layout.tables
        and not differences(source, Network(layout, source.backbone, source.reduced_tail))
    )


def feeding_families(target: Network) -> tuple[str, ...]:
    """Return the names of the families whose files feed `target` exactly."""
    return tuple(
        family.name
        for family in BACKBONES
        if target.backbone in {*family.layouts, *family.why_not}
        and not differences(network_of_family(family, target.backbone), target)
    )
