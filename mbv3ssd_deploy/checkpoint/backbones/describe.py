"""What a file of backbone weights is, for people: it is no detector, and which ones it feeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.checkpoint.backbones.source import (
    OWN_CLASSIFIER,
    Source,
    classifier_spec_in,
    find_backbone,
    find_source,
)
from mbv3ssd_deploy.checkpoint.backbones.wiring import fed_layouts
from mbv3ssd_deploy.checkpoint.contents import Contents
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint


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
        feeds: the layouts of the detectors that take its backbone exactly.
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


def _described(contents: Contents, source: Source, trained_on: str) -> FoundBackbone:
    is_ours = source.family == OWN_CLASSIFIER
    return FoundBackbone(
        path=contents.path,
        sha256=contents.sha256,
        family=source.family,
        title=source.title,
        evidence=source.evidence,
        network=source.network.backbone.value,
        feeds=fed_layouts(source.network),
        why_not=source.network.why_not,
        bn_eps=source.bn_eps,
        trained_on=trained_on,
        class_names=classifier_spec_in(contents).class_names if is_ours else (),
        notices=source.notes,
    )
