"""Backbone weights: a file gives all weights of a detector's backbone or is refused.

    read_checkpoint -> find its family -> compare the wiring -> rename and check keys -> check
    values -> convert BatchNorm's eps -> tensors under our names

Nothing is loaded in part: a backbone that lacks one tensor, or computes anything else than the
detector's, is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mbv3ssd_deploy.checkpoint.backbones.families import CLASSIFIER
from mbv3ssd_deploy.checkpoint.backbones.source import (
    OWN_CLASSIFIER,
    Network,
    Source,
    classifier_spec_in,
    differences,
    fed_layouts,
    feeding_families,
    find_backbone,
    find_source,
    network_of,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyReport, Shape, is_counter, listed
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint, checked_weights
from mbv3ssd_deploy.core.spec import ArchSpec, DetectorSpec, Tap, TapPlace
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.nets.build import ClassifierNet
from mbv3ssd_deploy.nets.layouts import block_rows, layout_of

FEATURES = "backbone.features."
"""How the names of a backbone's weights begin, in `SsdNet` and in `ClassifierNet`."""
_OWN_CLASSES = "a classifier for other classes: the new one starts fresh"
_NOT_ASKED = "the classifier, which no detector runs"


@dataclass(frozen=True, slots=True)
class LoadedBackbone:
    """All weights of a backbone, under the names that they have in the network to be fed.

    Attributes:
        path: the file.
        sha256: of the whole file.
        family: the name of its family.
        evidence: what decided, in sentences for people.
        tensors: our key -> float32 tensor (counters int64), on the CPU, copied from the file.
        report: where every key of the file went, and why the others were dropped.
        has_classifier: whether the classifier's layers are among `tensors`.
        notices: what a user should know.
    """

    path: Path
    sha256: str
    family: str
    evidence: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]
    report: KeyReport
    has_classifier: bool
    notices: tuple[str, ...]

    @property
    def dropped(self) -> Mapping[str, str]:
        """The file's key -> why it was not taken."""
        return self.report.dropped


@dataclass(frozen=True, slots=True)
class AppliedBackbone:
    """What a network got and what it kept: keys of its own."""

    filled: tuple[str, ...]
    kept: tuple[str, ...]


def load_backbone(
    path: Path, spec: DetectorSpec | ArchSpec, *, num_classes: int | None = None
) -> LoadedBackbone:
    """Return the backbone weights in the file at `path` for the detector that `spec` describes.

    Args:
        path: a classifier's checkpoint of a known family, what `train-backbone` wrote, or a
            detector of any family.
        spec: the detector to be fed, or its arch.
        num_classes: given for a `ClassifierNet` of that many classes (no background among them):
            the file's classifier is taken too if it predicts as many.

    Raises:
        CheckpointError: the file is missing, broken, of no known family, or its backbone is not the
            detector's: then the hint names what feeds it.
        UnsafeCheckpointError: it contains code to run; nothing was run.
        SpecError: the arch contradicts itself, or a spec in the file is broken.
    """
    arch = spec.arch if isinstance(spec, DetectorSpec) else spec
    try:
        return _load(path, arch, num_classes)
    except (CheckpointError, SpecError) as error:
        if not error.where.startswith(str(path)):
            error.where = f"{path}: {error.where}" if error.where else str(path)
        raise


def apply_backbone(net: nn.Module, loaded: LoadedBackbone) -> AppliedBackbone:
    """Copy the weights into `net`, an `SsdNet` or a `ClassifierNet`, and return what it got.

    Raises:
        CheckpointError: `net` is not of the arch that they were loaded for; nothing was copied.
    """
    state = net.state_dict()
    wanted = [key for key in state if key.startswith(FEATURES)]
    given = {
        key: tensor
        for key, tensor in loaded.tensors.items()
        if key in state or key.startswith(FEATURES)
    }
    unlike = [
        key
        for key in {*wanted, *given}
        if key not in state or key not in given or state[key].shape != given[key].shape
    ]
    if unlike:
        raise CheckpointError(
            "the network is not the one that the weights were loaded for; it differs in "
            + listed(sorted(unlike)),
            where=str(loaded.path),
        )
    net.load_state_dict(given, strict=False)
    return AppliedBackbone(tuple(given), tuple(key for key in state if key not in given))


def _load(path: Path, arch: ArchSpec, num_classes: int | None) -> LoadedBackbone:
    target = network_of(arch)
    contents = read_checkpoint(path)
    source = find_source(contents)
    found = differences(source.network, target)
    if found:
        own = f"a detector or train-backbone's result of layout {arch.layout}"
        raise CheckpointError(
            f"the backbone of {source.family} does not feed this detector "
            f"({arch.layout}, MobileNetV3-{arch.backbone.capitalize()}): {'; '.join(found)}",
            hint=f"this detector takes {' or '.join((*feeding_families(target), own))}",
        )
    report = account_for(source, arch, num_classes)
    if not report.is_clean:
        raise CheckpointError(
            f"the backbone of {source.family} does not fill this detector's "
            f"({arch.layout}, width {arch.width_mult:g}): {report.problems()}",
            hint="half a file, or another width: the widths of both must be the same",
        )
    weights, notices = checked_weights(
        {key: source.tensors[key] for key in report.renamed}, contents.unusable
    )
    eps = layout_of(arch).bn_eps
    tensors = _converted(_renamed(weights, report, arch, num_classes), source.bn_eps, eps)
    if source.bn_eps != eps:
        rescaled = (
            f"the file's BatchNorms add {source.bn_eps:g} to the variance, the detector's {eps:g}: "
            "their factors were rescaled, so that the numbers stay"
        )
        notices = (*notices, rescaled)
    return LoadedBackbone(
        path=path,
        sha256=contents.sha256,
        family=source.family,
        evidence=source.evidence,
        tensors=tensors,
        report=_with_file_keys(report, source),
        has_classifier=any(key.startswith(f"{CLASSIFIER}.") for key in tensors),
        notices=(*source.notes, *notices),
    )


def _wanted(arch: ArchSpec, num_classes: int | None) -> dict[str, Shape]:
    with torch.device("meta"):
        net = ClassifierNet(arch, 1 if num_classes is None else num_classes)
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


def account_for(source: Source, arch: ArchSpec, num_classes: int | None = None) -> KeyReport:
    """Return where each tensor of a file goes in the backbone of `arch`.

    The classifier's layers are included if `num_classes` is given and they predict as many;
    otherwise all of them are dropped.
    """
    wanted = _wanted(arch, num_classes)
    backbone = {key: shape for key, shape in wanted.items() if key.startswith(FEATURES)}
    classifier = {key: shape for key, shape in wanted.items() if key not in backbone}
    shapes = {key: tuple(tensor.shape) for key, tensor in source.tensors.items()}
    keymap = source.keymap(arch)
    report = keymap.account(shapes, wanted)
    dense = {key: new for key, new in report.renamed.items() if new in classifier}
    if num_classes is not None and {new: shapes[key] for key, new in dense.items()} == classifier:
        return report
    why = _NOT_ASKED if num_classes is None else _OWN_CLASSES
    rest = {key: shape for key, shape in shapes.items() if key not in dense}
    report = keymap.account(rest, backbone)
    return dataclasses.replace(report, dropped={**report.dropped, **dict.fromkeys(dense, why)})


def _renamed(
    weights: Mapping[str, torch.Tensor],
    report: KeyReport,
    arch: ArchSpec,
    num_classes: int | None,
) -> dict[str, torch.Tensor]:
    """Return copies under our names and in our shapes, every counter there."""
    wanted = _wanted(arch, num_classes)
    counters = [key for key in wanted if is_counter(key) and key.startswith(FEATURES)]
    filled: dict[str, torch.Tensor] = {key: torch.zeros((), dtype=torch.int64) for key in counters}
    for key, new in report.renamed.items():
        tensor = weights[key].reshape(wanted[new])
        filled[new] = tensor.clone(memory_format=torch.contiguous_format)
    return filled


def _converted(
    tensors: dict[str, torch.Tensor], eps: float, wanted: float
) -> dict[str, torch.Tensor]:
    """Return `tensors` for BatchNorms that add `wanted` to the variance and not `eps`.

    A BatchNorm computes factor * (x - mean) / sqrt(variance + eps) + bias, so that
    factor * sqrt((variance + wanted) / (variance + eps)) with `wanted` gives the same numbers. The
    variance could be moved instead, but would fall below 0 where it is small, and would be wrong
    again as soon as training updates it.
    """
    if eps == wanted:
        return tensors
    converted = dict(tensors)
    for key, tensor in tensors.items():
        if key.endswith(".running_var"):
            factor = f"{key.removesuffix('running_var')}weight"
            variance = tensor.double()
            share = ((variance + wanted) / (variance + eps)).sqrt()
            converted[factor] = (tensors[factor].double() * share).float()
    return converted


def _with_file_keys(report: KeyReport, source: Source) -> KeyReport:
    names = source.file_keys
    # a counter that the file lacks was created for the detector
    lacking = {key for key in source.tensors if names and key not in names}
    renamed = {names.get(k, k): new for k, new in report.renamed.items() if k not in lacking}
    dropped = {names.get(k, k): why for k, why in report.dropped.items() if k not in lacking}
    return dataclasses.replace(report, renamed=renamed, dropped={**source.dropped, **dropped})


WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Widths that are tried; a native classifier contains its own."""


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
        width: of the network; None where its shapes match none of `WIDTHS`.
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
    """Return what is known of the backbone weights at `path`; None for any other file.

    Raises:
        CheckpointError: the file is missing or broken; SpecError: the spec in it is.
        UnsafeCheckpointError: it contains code to run; nothing was run.
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
        why_not = f"its shapes match no detector of width {tried}"
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
