"""What a file of backbone weights is, for people: it is no detector, and which ones it feeds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.checkpoint.backbones.load import account_for
from mbv3ssd_deploy.checkpoint.backbones.source import (
    OWN_CLASSIFIER,
    Source,
    classifier_spec_in,
    find_backbone,
    find_source,
)
from mbv3ssd_deploy.checkpoint.backbones.wiring import Network, fed_layouts
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Tap, TapPlace
from mbv3ssd_deploy.nets.layouts import block_rows, layout_of

WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Widths that files are tried at; a native classifier says its own."""


@dataclass(frozen=True, slots=True)
class FoundBackbone:
    """A file of classification weights.

    Attributes:
        path: the file.
        sha256: of the whole file.
        family: the name of its family.
        title: where such files come from.
        evidence: what decided, in sentences for people.
        network: "large" or "small".
        width: of the network; None where its shapes are those of none of `WIDTHS`.
        feeds: the layouts of the detectors of that width that take its backbone exactly.
        why_not: why it feeds none; empty where it feeds some.
        bn_eps: what its BatchNorms add to the variance.
        trained_on: the input that published files of the family were trained on.
        class_names: of a native classifier, else empty.
        notices: what a user should know.
    """

    path: Path
    sha256: str
    family: str
    title: str
    evidence: tuple[str, ...]
    network: str
    width: float | None
    feeds: tuple[str, ...]
    why_not: str
    bn_eps: float
    trained_on: str
    class_names: tuple[str, ...]
    notices: tuple[str, ...]


def describe_backbone(path: Path) -> FoundBackbone | None:
    """Return what is known of the backbone weights at `path`; None if it is no such file.

    Raises:
        CheckpointError: the file is missing or broken; SpecError: the spec in it is.
        UnsafeCheckpointError: it wants to run code; nothing was run.
    """
    contents = read_checkpoint(path)
    family = find_backbone(contents)
    if family is None and contents.classifier_json is None:
        return None
    trained_on = "" if family is None else family.trained_on
    return _described(contents, find_source(contents), trained_on)


def _described(contents: RawCheckpoint, source: Source, trained_on: str) -> FoundBackbone:
    is_ours = source.family == OWN_CLASSIFIER
    layouts = fed_layouts(source.network)
    width = _width(source, layouts[0]) if layouts else None
    why_not = source.network.why_not
    if layouts and width is None:
        tried = ", ".join(f"{width:g}" for width in WIDTHS)
        why_not = f"its shapes are those of no detector of width {tried}"
    return FoundBackbone(
        path=contents.path,
        sha256=contents.sha256,
        family=source.family,
        title=source.title,
        evidence=source.evidence,
        network=source.network.backbone.value,
        width=width,
        feeds=() if width is None else layouts,
        why_not=why_not,
        bn_eps=source.bn_eps,
        trained_on=trained_on,
        class_names=classifier_spec_in(contents).class_names if is_ours else (),
        notices=source.notes,
    )


def _width(source: Source, layout: str) -> float | None:
    """Return the width at which the file fills a backbone of `layout`, whatever its taps are."""
    given: tuple[float, ...] = () if source.arch is None else (source.arch.width_mult,)
    for width in (*given, *WIDTHS):
        if account_for(source, _arch_of(source.network, layout, width)).is_clean:
            return width
    return None


def _arch_of(network: Network, layout: str, width: float) -> ArchSpec:
    """Return an arch of that backbone with one tap, behind its last convolution."""
    stem = (Tap(0, TapPlace.OUTPUT),)
    backbone, reduced = network.backbone, network.reduced_tail
    arch = ArchSpec(layout, backbone, width, reduced, taps=stem, extras=(1, 1, 1, 1))
    convolutions = 1 if layout_of(arch).wide_channels is None else 2
    last = Tap(len(block_rows(arch)) + convolutions, TapPlace.OUTPUT)
    return dataclasses.replace(arch, taps=(last,))
