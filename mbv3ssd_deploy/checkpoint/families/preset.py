"""The spec of a family whose files hold weights only: presets, and what the heads tell."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mbv3ssd_deploy.checkpoint.families.class_lists import BACKGROUND, numbered_names
from mbv3ssd_deploy.checkpoint.families.family import Draft, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import (
    HeadLevel,
    class_count,
    head_evidence,
)
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    BoxCoder,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorSpec,
)
from mbv3ssd_deploy.errors import CheckpointError, SpecError

SSD_CODER = BoxCoder(0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Preset:
    """What a family knows about its detectors that no file of it says."""

    family: str
    name: str
    arch: ArchSpec
    input: InputSpec
    priors: PriorSpec
    decode: DecodeSpec
    coder: BoxCoder = SSD_CODER


def preset_draft(preset: Preset, heads: tuple[HeadLevel, ...], *evidence: str) -> Draft:
    """Return the draft of `preset` for as many classes as `heads` predict; nobody names them.

    Raises:
        CheckpointError: the heads do not agree on a class count.
    """
    classes = class_count(heads)
    spec = DetectorSpec(
        name=preset.name,
        family=preset.family,
        arch=preset.arch,
        input=preset.input,
        class_names=numbered_names(classes),
        priors=preset.priors,
        coder=preset.coder,
        decode=preset.decode,
    )
    return Draft(
        spec=spec,
        heads=heads,
        evidence=(*evidence, head_evidence(heads, classes)),
        provenance={
            "arch": "weight shapes",
            "input": "family preset",
            "class_names": "head channels",
            "priors": "family preset",
            "coder": "family preset",
            "decode": "family preset",
        },
        names_given=False,
    )


def with_names(draft: Draft, names: tuple[str, ...]) -> Draft:
    """Return `draft` with the class names that the file carries, if they fit its heads.

    Args:
        draft: with numbered names.
        names: with or without the background first; empty where the file names none.
    """
    if not names:
        return draft
    classes = draft.spec.num_classes
    full = names if len(names) == classes else (BACKGROUND, *names)
    blank = not all(name.strip() for name in full)
    if len(full) != classes or len(set(full)) != classes or blank:
        left = (
            f"the class names in the file were left: {len(names)}, and the heads predict "
            f"{classes - 1} and the background"
        )
        if len(full) == classes:
            left = "the class names in the file were left: one is blank or stands twice"
        return dataclasses.replace(draft, notices=(*draft.notices, left))
    return dataclasses.replace(
        draft,
        spec=dataclasses.replace(draft.spec, class_names=full),
        provenance={**draft.provenance, "class_names": "file"},
        names_given=True,
    )


def table_size(request: SpecRequest, size: int) -> tuple[int, int]:
    """Return height and width of the input; a prior table binds them to `size` x `size`.

    Raises:
        SpecError: another image size is asked for, and no priors for it.
    """
    height, width = request.image_size or (size, size)
    if (height, width) != (size, size) and not request.priors_given:
        raise SpecError(
            f"this family's prior table is for {size} x {size} only, not {height} x {width}",
            hint="leave --imgsz out, or bring the priors that it was trained with: --spec",
        )
    return height, width


def shape_evidence(contents: RawCheckpoint, key: str, tells: str) -> str:
    """Return the sentence that the shape of `key` tells the network.

    Raises:
        CheckpointError: there is no such tensor.
    """
    if key not in contents.tensors:
        raise CheckpointError(f"{key} is missing, which tells the network")
    return f"{key} is {list(contents.shapes[key])}: {tells}"
