"""What a family of checkpoints is: how to recognise it, describe it, and rename its keys."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mbv3ssd_deploy.checkpoint.keymap import KeyMap, Shape
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


@dataclass(frozen=True, slots=True)
class Signature:
    """What the keys of a file must be like.

    Attributes:
        present: keys that must all be there.
        absent: keys that must not.
        starts: beginnings that at least one key each must have.
        ranks: keys whose tensors must have that many dimensions.
        like: a pattern that the family's keys match; measures nearness, never decides.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    ranks: tuple[tuple[str, int], ...] = ()
    like: str = ""

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether a file with tensors of these shapes has this signature."""
        return (
            all(key in shapes for key in self.present)
            and not any(key in shapes for key in self.absent)
            and all(any(key.startswith(start) for key in shapes) for start in self.starts)
            and all(len(shapes.get(key, ())) == rank for key, rank in self.ranks)
        )

    @property
    def telling(self) -> tuple[str, ...]:
        """The keys that must be there, for people: a beginning ends in `*`."""
        return (*self.present, *(f"{start}*" for start in self.starts))

    def missing(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return those of `telling` that are not among `shapes`."""
        begun = (any(key.startswith(start) for key in shapes) for start in self.starts)
        found = (*(key in shapes for key in self.present), *begun)
        return tuple(key for key, there in zip(self.telling, found, strict=True) if not there)

    def unlike(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return the keys that no file of the family has."""
        return tuple(key for key in shapes if not re.fullmatch(self.like, key))


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """What a user asked for that a family must know while it makes the spec.

    `priors_given`: the user brings priors of their own, so that fixed tables do not bind.
    """

    image_size: tuple[int, int] | None
    priors_given: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """The spec that a family reads from a file, and why.

    Attributes:
        spec: before any of the user's changes.
        heads: the predictors of the file, level by level.
        evidence: sentences for people: which keys and shapes decided.
        provenance: field of the spec -> "file", "head channels", "weight shapes", "family preset".
        names_given: whether the class names are real, not class_1, class_2, ...
        notices: what a user should know, and can do something about.
    """

    spec: DetectorSpec
    heads: tuple[HeadLevel, ...]
    evidence: tuple[str, ...]
    provenance: Mapping[str, str]
    names_given: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One family that this version loads.

    Attributes:
        name: what `--family` calls it.
        title: for people.
        signature: how its files are told from others.
        draft: makes the spec from a file. Raises CheckpointError or SpecError.
        keymap: the renaming of its keys for that spec.
        carries_spec: its files are told by the spec in them, not by their keys.
        tell: for a family whose keys are another's too: whether the values of a file are this
            family's, and the sentence that says what told it.
        arranged: for a family whose tensors hold our numbers in another order: returns the tensor
            of a key of the file in our order.
    """

    name: str
    title: str
    signature: Signature
    draft: Callable[[RawCheckpoint, SpecRequest], Draft]
    keymap: Callable[[DetectorSpec], KeyMap]
    carries_spec: bool = False
    tell: Callable[[RawCheckpoint], tuple[bool, str]] | None = None
    arranged: Callable[[str, torch.Tensor, DetectorSpec], torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Stranger:
    """A kind of file that is recognised only to be refused by name.

    `is_rest`: what is left of a code base when its known networks are told; half a file of a
    family, or a changed one, looks the same.
    """

    title: str
    signature: Signature
    hint: str = ""
    is_rest: bool = False


_ONE_TRAINING = (
    "all levels of one training predict the same classes: were heads replaced on some levels only?"
)


@dataclass(frozen=True, slots=True)
class HeadKeys:
    """The keys of the last convolution's weights of both predictors of one level."""

    classification: str
    regression: str


@dataclass(frozen=True, slots=True)
class HeadLevel:
    """Output channels of both predictors of one level."""

    classification: int
    regression: int

    @property
    def boxes_per_cell(self) -> int:
        """How many boxes stand in a cell: a box is four regressions."""
        return self.regression // 4


def read_heads(contents: RawCheckpoint, keys: Sequence[HeadKeys]) -> tuple[HeadLevel, ...]:
    """Return the output channels level by level.

    Raises:
        CheckpointError: with every key that is missing, or every level whose channels fit nothing.
    """
    names = [name for level in keys for name in (level.classification, level.regression)]
    channels = contents.channels(*names)
    levels = tuple(map(HeadLevel, channels[::2], channels[1::2]))
    problems = [
        f"level {number}: {level.regression} regression channels are no multiple of 4"
        for number, level in enumerate(levels)
        if level.regression % 4 or not level.regression
    ]
    problems += [
        f"level {number}: {level.classification} class channels do not divide by "
        f"{level.boxes_per_cell} boxes per cell"
        for number, level in enumerate(levels)
        if level.boxes_per_cell and level.classification % level.boxes_per_cell
    ]
    if problems:
        raise CheckpointError(
            "the heads fit no class count: " + "; ".join(problems), hint=_ONE_TRAINING
        )
    return levels


def class_count(levels: Sequence[HeadLevel]) -> int:
    """Return C, the number of classes with the background, that all levels agree on.

    Raises:
        CheckpointError: they do not agree; the numbers of every level are shown.
    """
    counts = [level.classification // level.boxes_per_cell for level in levels]
    if len(set(counts)) > 1 or counts[0] < 2:
        shown = "; ".join(
            f"level {number}: {level.classification} / {level.boxes_per_cell} = {count}"
            for number, (level, count) in enumerate(zip(levels, counts, strict=True))
        )
        raise CheckpointError(f"the heads fit no class count: {shown}", hint=_ONE_TRAINING)
    return counts[0]


def check_boxes(levels: Sequence[HeadLevel], priors: PriorSpec) -> None:
    """Check that the heads predict as many boxes per cell as the priors have.

    Raises:
        SpecError: with both numbers of every level.
    """
    heads = [level.boxes_per_cell for level in levels]
    table = [level.boxes_per_cell for level in priors.levels]
    if heads != table:
        raise SpecError(
            f"the heads predict {_dashed(heads)} boxes per cell, level by level, and the priors "
            f"have {_dashed(table)}",
            hint="if the training changed the priors, describe them with --spec: `inspect FILE "
            "--write-spec spec.json` writes the family's own, to be changed",
        )


def head_evidence(levels: Sequence[HeadLevel], classes: int) -> str:
    """Return, in words, what the head channels told."""
    boxes = [level.boxes_per_cell for level in levels]
    return (
        f"{len(levels)} levels with {_dashed(boxes)} boxes per cell (regression channels / 4) and "
        f"{classes} classes with the background (class channels / boxes)"
    )


def _dashed(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))


def input_variance(contents: RawCheckpoint, convolution: str, variance: str) -> float | None:
    """Return roughly the variance of the input that the first BatchNorm's statistics saw.

    The median over the channels of running variance / sum of the squared weights: what a
    convolution does to the variance of uncorrelated inputs. About 0.3 for (pixel - 127) / 128, 1.6
    for inputs normalised as for ImageNet, and 5000 for pixels less their mean.

    Args:
        contents: the file.
        convolution: key of the first convolution's weight.
        variance: key of the first BatchNorm's running variance.

    Returns:
        None where the tensors are missing, do not fit each other, or are not finite.
    """
    weight, running = contents.tensors.get(convolution), contents.tensors.get(variance)
    if weight is None or running is None or weight.dim() < 2 or running.dim() != 1:
        return None
    if len(weight) != len(running) or not len(running):
        return None
    gains = weight.to(torch.float64).square().flatten(1).sum(1)
    ratio = float((running.to(torch.float64) / gains).median())
    return ratio if math.isfinite(ratio) and ratio > 0 else None


BACKGROUND = "background"

# torchvision's list: the index is the COCO category id. COCO left eleven ids unused; their names
# must differ from each other all the same.
COCO_91 = (
    "background person bicycle car motorcycle airplane bus train truck boat traffic_light "
    "fire_hydrant N/A_12 stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear "
    "zebra giraffe N/A_26 backpack umbrella N/A_29 N/A_30 handbag tie suitcase frisbee skis "
    "snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket "
    "bottle N/A_45 wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli "
    "carrot hot_dog pizza donut cake chair couch potted_plant bed N/A_66 dining_table N/A_68 "
    "N/A_69 toilet N/A_71 tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator N/A_83 book clock vase scissors teddy_bear hair_drier toothbrush"
)


def coco_names() -> tuple[str, ...]:
    """Return the 91 names of torchvision's COCO detectors; unused ids are "N/A 12" and so on."""
    return tuple(name.replace("_", " ") for name in COCO_91.split())


def numbered_names(num_classes: int) -> tuple[str, ...]:
    """Return background, class_1, class_2, ...: the names of classes that nobody named."""
    return (BACKGROUND, *(f"class_{number}" for number in range(1, num_classes)))


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
