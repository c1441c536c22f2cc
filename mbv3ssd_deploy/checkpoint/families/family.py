"""What a family of checkpoints is: how to recognise it, describe it, and rename its keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mbv3ssd_deploy.checkpoint.keymap import KeyMap, Shape
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    BoxCoder,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorLevel,
    PriorRounding,
    PriorSpec,
    ResizeRule,
    ResultOrder,
    Tap,
)
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.nets.plan import feature_map_sizes


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
        """Return whether a file with tensors of these shapes has this signature."""
        return (
            all(key in shapes for key in self.present)
            and not any(key in shapes for key in self.absent)
            and all(any(key.startswith(start) for key in shapes) for start in self.starts)
            and all(len(shapes.get(key, ())) == rank for key, rank in self.ranks)
        )

    @property
    def required(self) -> tuple[str, ...]:
        """The keys that must be there, for people: a beginning ends in `*`."""
        return (*self.present, *(f"{start}*" for start in self.starts))

    def missing(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return those of `required` that are not among `shapes`."""
        begun = (any(key.startswith(start) for key in shapes) for start in self.starts)
        found = (*(key in shapes for key in self.present), *begun)
        return tuple(key for key, there in zip(self.required, found, strict=True) if not there)

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
        signature: how its files are recognised.
        draft: makes the spec from a file. Raises CheckpointError or SpecError.
        keymap: the renaming of its keys for that spec.
        carries_spec: its files are recognised by the spec in them, not by their keys.
        decide: for a family that shares its keys with another: whether the values of a file are
            this family's, and the evidence.
        arranged: for a family whose tensors hold our numbers in another order: returns the tensor
            of a key of the file in our order.
    """

    name: str
    title: str
    signature: Signature
    draft: Callable[[RawCheckpoint, SpecRequest], Draft]
    keymap: Callable[[DetectorSpec], KeyMap]
    carries_spec: bool = False
    decide: Callable[[RawCheckpoint], tuple[bool, str]] | None = None
    arranged: Callable[[str, torch.Tensor, DetectorSpec], torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class UnsupportedModel:
    """A kind of file that is recognised only to be refused by name.

    `is_rest`: any other network of a code base; an incomplete or changed file of a family looks
    the same.
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
        """The number of boxes per cell: a box is four regressions."""
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
        f"level {number}: {level.regression} regression channels are not a multiple of 4"
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
    """Return the evidence of the head channels as a sentence."""
    boxes = [level.boxes_per_cell for level in levels]
    return (
        f"{len(levels)} levels with {_dashed(boxes)} boxes per cell (regression channels / 4) and "
        f"{classes} classes with the background (class channels / boxes)"
    )


def _dashed(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))


BACKGROUND = "background"


def numbered_names(num_classes: int) -> tuple[str, ...]:
    """Return background, class_1, class_2, ...: the names of classes that nobody named."""
    return (BACKGROUND, *(f"class_{number}" for number in range(1, num_classes)))


SSD_CODER = BoxCoder(0.1, 0.2)
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)
"""A wide and a tall box for 2, and for 3."""
SSD_DECODE = DecodeSpec(
    score_threshold=0.01,
    iou_threshold=0.45,
    candidates_per_class=None,
    keep_per_class=None,
    keep_total=200,
    clip_before_nms=False,
    iou_epsilon=0.0,
    order=ResultOrder.CLASS,
)


@dataclass(frozen=True, slots=True)
class PriorTable:
    """The priors of a family for feature maps of any size.

    Attributes:
        size: width and height of the frame that boxes and steps are given in.
        boxes: smallest and largest box, level by level.
        ratios: of each level.
        steps: distance of the cells, level by level; None where the cells divide the image evenly.
        clip: what is clamped.
        rounding: what is rounded.
    """

    size: float
    boxes: tuple[tuple[float, float], ...]
    ratios: tuple[tuple[float, ...], ...] = (RATIOS,) * 6
    steps: tuple[float, ...] | None = None
    clip: ClipRule = ClipRule.CENTRE_FORM
    rounding: PriorRounding = PriorRounding.NONE

    def on_maps(self, maps: Sequence[tuple[int, int]]) -> PriorSpec:
        """Return the priors on feature maps of these (rows, columns)."""
        levels = []
        rows_of_table = zip(maps, self.boxes, self.ratios, strict=True)
        for number, ((rows, cols), (small, large), ratios) in enumerate(rows_of_table):
            step_x, step_y = self.size / cols, self.size / rows
            if self.steps is not None:
                step_x = step_y = float(self.steps[number])
            level = PriorLevel(rows, cols, step_x, step_y, float(small), float(large), ratios)
            levels.append(level)
        size = float(self.size)
        return PriorSpec(size, size, tuple(levels), self.clip, self.rounding)


@dataclass(frozen=True, slots=True)
class Preset:
    """One network of a family: what no file of it says.

    Attributes:
        family: the name of the family.
        name: of the detector.
        arch: which network.
        input: at the size that it was trained at.
        priors: its prior table.
        decode: the family's evaluation settings.
        heads: the keys of the predictors.
        key: a tensor that only this network of the family has; empty where shapes decide.
        key_role: what layer `key` is.
        coder: how a regression becomes a box.
        any_size: the priors hold for every image size.
        names_in_file: a file may name its classes.
        notices: what a user should know.
    """

    family: str
    name: str
    arch: ArchSpec
    input: InputSpec
    priors: PriorTable
    decode: DecodeSpec
    heads: tuple[HeadKeys, ...]
    key: str = ""
    key_role: str = "last convolution"
    coder: BoxCoder = SSD_CODER
    any_size: bool = False
    names_in_file: bool = False
    notices: tuple[str, ...] = ()


def full_arch(
    layout: str, backbone: Backbone, taps: tuple[Tap, ...], extras: tuple[int, ...]
) -> ArchSpec:
    """Return the arch of width 1.0 with the full tail."""
    return ArchSpec(layout, backbone, 1.0, reduced_tail=False, taps=taps, extras=extras)


def rgb_input(
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    resize: ResizeRule = ResizeRule.CV2_U8,
) -> InputSpec:
    """Return a square RGB input of (pixel - mean) / std."""
    return InputSpec(size, size, ChannelOrder.RGB, mean, std, resize)


def draft_by_key(presets: Sequence[Preset], contents: RawCheckpoint, request: SpecRequest) -> Draft:
    """Return the draft of the one of `presets` whose key the file has.

    Raises:
        CheckpointError: it has none of the keys, or the heads agree on no class count.
        SpecError: the image size has no priors.
    """
    preset = next((preset for preset in presets if preset.key in contents.tensors), None)
    if preset is None and len(presets) > 1:
        role = f"the {presets[0].key_role}s of the Large and the Small backbone"
        keys = " nor ".join(preset.key for preset in presets)
        raise CheckpointError(f"neither {keys} exists: {role}")
    if preset is None:
        raise CheckpointError(f"{presets[0].key} is missing, which decides the network")
    backbone = f"MobileNetV3-{preset.arch.backbone.capitalize()}"
    found = f"{preset.key} is {list(contents.shapes[preset.key])}: {backbone}"
    return preset_draft(preset, contents, request, (found,))


def preset_draft(
    preset: Preset, contents: RawCheckpoint, request: SpecRequest, evidence: tuple[str, ...]
) -> Draft:
    """Return the draft of `preset` for as many classes as the heads of the file predict.

    Raises:
        CheckpointError: the heads agree on no class count. SpecError: the image size has no priors.
    """
    height, width = _image_size(preset, request)
    heads = read_heads(contents, preset.heads)
    classes = class_count(heads)
    draft = Draft(
        spec=DetectorSpec(
            name=preset.name,
            family=preset.family,
            arch=preset.arch,
            input=dataclasses.replace(preset.input, height=height, width=width),
            class_names=numbered_names(classes),
            priors=preset.priors.on_maps(feature_map_sizes(preset.arch, height, width)),
            coder=preset.coder,
            decode=preset.decode,
        ),
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
        notices=preset.notices,
    )
    return _with_names(draft, contents.class_names) if preset.names_in_file else draft


def _image_size(preset: Preset, request: SpecRequest) -> tuple[int, int]:
    """Return height and width of the input; a table of fixed steps holds for one size only."""
    size = (preset.input.height, preset.input.width)
    height, width = request.image_size or size
    if (height, width) != size and not (preset.any_size or request.priors_given):
        raise SpecError(
            f"this family's prior table is for {size[0]} x {size[1]} only, not {height} x {width}",
            hint="leave --imgsz out, or bring the priors that it was trained with: --spec",
        )
    return height, width


def _with_names(draft: Draft, names: tuple[str, ...]) -> Draft:
    """Return `draft` with the file's own class names, if they fit its heads."""
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
            left = "the class names in the file were left: one is blank or a duplicate"
        return dataclasses.replace(draft, notices=(*draft.notices, left))
    return dataclasses.replace(
        draft,
        spec=dataclasses.replace(draft.spec, class_names=full),
        provenance={**draft.provenance, "class_names": "file"},
        names_given=True,
    )
