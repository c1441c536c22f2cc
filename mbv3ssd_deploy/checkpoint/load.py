"""A checkpoint file becomes a net and its spec: the only way in.

    read_checkpoint -> recognise -> draft the spec -> the user's changes -> rename and check keys
    -> check values -> net

Every step reports all that it finds wrong at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mbv3ssd_deploy.checkpoint.families.family import Family, SpecRequest
from mbv3ssd_deploy.checkpoint.families.table import FAMILIES
from mbv3ssd_deploy.checkpoint.keymap import KeyReport, Shape, is_counter
from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.checkpoint.overrides import apply_overrides
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.checkpoint.recognise import recognise
from mbv3ssd_deploy.checkpoint.state_dict import (
    MIXED_PREFIX,
    RawCheckpoint,
    checked_weights,
    partial_prefix,
)
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.nets.build import SsdNet, assemble_net

__all__ = ["Checkpoint", "LoadOptions", "LoadedDetector", "load_detector"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a detector came from.

    Attributes:
        path: the file.
        sha256: of the whole file.
        container: how the file is built, in words.
        family: the name of the family.
        evidence: what decided, in sentences for people.
    """

    path: Path
    sha256: str
    container: str
    family: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedDetector:
    """A detector, ready to run, with the account of how it was read.

    Attributes:
        checkpoint: where it came from.
        spec: all that downstream needs to know.
        net: in eval mode, on the CPU, float32.
        report: where every key of the file went.
        notices: what a user should know, and can do something about.
        provenance: field of the spec -> "file", "head channels", "weight shapes", "family preset",
            "flag" or "--spec". Boxes per cell are always those of the heads, and the priors agree.
    """

    checkpoint: Checkpoint
    spec: DetectorSpec
    net: SsdNet
    report: KeyReport
    notices: tuple[str, ...]
    provenance: Mapping[str, str]


def load_detector(path: Path, options: LoadOptions | None = None) -> LoadedDetector:
    """Return the detector in the checkpoint file at `path`.

    Raises:
        CheckpointError: the file is missing, broken, of no known family, or lacks something.
        UnsafeCheckpointError: it wants to run code; nothing was run.
        SpecError: the options contradict the file, or themselves.
    """
    options = LoadOptions() if options is None else options
    try:
        return _load(path, options)
    except (CheckpointError, SpecError) as error:
        of_options = tuple(filter(None, (options.class_names_from, options.spec_from)))
        if not error.where.startswith((str(path), *of_options)):
            error.where = f"{path}: {error.where}" if error.where else str(path)
        raise


def drafted_spec(path: Path, options: LoadOptions) -> DetectorSpec:
    """Return what the family says of the file at `path`: a template for `spec_changes`.

    It may contradict the heads, for a fork that changed its priors.

    Raises:
        CheckpointError: as `load_detector` does. SpecError: the image size has no priors.
    """
    contents = read_checkpoint(path, averaged=options.ema)
    family, _ = recognise(contents, options.family)
    return family.draft(contents, SpecRequest(options.image_size, _gives_levels(options))).spec


def _gives_levels(options: LoadOptions) -> bool:
    priors = (options.spec_changes or {}).get("priors")
    return isinstance(priors, Mapping) and "levels" in priors


def _load(path: Path, options: LoadOptions) -> LoadedDetector:
    contents = read_checkpoint(path, averaged=options.ema)
    family, evidence = recognise(contents, options.family)
    draft = family.draft(contents, SpecRequest(options.image_size, _gives_levels(options)))
    final = apply_overrides(draft, options)
    net, report, notices = _fill(contents, family, final.spec)
    return LoadedDetector(
        checkpoint=Checkpoint(
            path=path,
            sha256=contents.sha256,
            container=contents.container.value,
            family=family.name,
            evidence=(*contents.wrapping, *evidence, *draft.evidence),
        ),
        spec=final.spec,
        net=net,
        report=report,
        notices=(*contents.notices, *draft.notices, *final.notices, *notices),
        provenance=final.provenance,
    )


def _fill(
    contents: RawCheckpoint, family: Family, spec: DetectorSpec
) -> tuple[SsdNet, KeyReport, tuple[str, ...]]:
    with torch.device("meta"):  # shapes first: no memory for a net that the file does not fill
        net = assemble_net(spec)
    wanted = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    report = family.keymap(spec).account(contents.shapes, wanted)
    if not report.is_clean:
        mixed = partial_prefix(contents.tensors)
        raise CheckpointError(
            f"the file does not fill a {family.name} network: "
            f"{f'{mixed}; ' if mixed else ''}{report.problems()}",
            hint=_what_else(contents, family, report),
        )
    weights, notices = checked_weights(
        {key: contents.tensors[key] for key in report.renamed}, contents.unusable
    )
    if family.arranged is not None:
        weights = {key: family.arranged(key, tensor, spec) for key, tensor in weights.items()}
    state = {key: torch.zeros((), dtype=torch.int64) for key in wanted if is_counter(key)}
    # copies: tensors of a file may share memory, and safetensors maps them from the disk
    state |= {new: _copied(weights[key], wanted[new]) for key, new in report.renamed.items()}
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval(), report, notices


def _what_else(contents: RawCheckpoint, family: Family, report: KeyReport) -> str:
    """Return what to do about a file of `family` that does not fill it."""
    if partial_prefix(contents.tensors):
        return MIXED_PREFIX
    unmatched = dict.fromkeys(report.unmatched, ())
    others = [
        other.name
        for other in FAMILIES
        if not other.carries_spec
        and other.signature != family.signature
        and not other.signature.unlike(unmatched)
        and len(family.signature.unlike(unmatched)) == len(unmatched)
    ]
    if unmatched and others:
        return f"the unknown keys are like those of {others[0]}: were two files put into one?"
    if report.missing and not (report.unmatched or report.wrong_shape):
        return f"{len(contents.tensors)} tensors are here; was the whole network saved?"
    return "a fork that changed its network needs a family file of its own: docs/adding.md"


def _copied(tensor: torch.Tensor, shape: Shape) -> torch.Tensor:
    return tensor.reshape(shape).clone(memory_format=torch.contiguous_format)
