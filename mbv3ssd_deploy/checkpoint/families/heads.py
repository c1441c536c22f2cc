"""Boxes per cell and classes, read from the shapes of the predictors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import PriorSpec
from mbv3ssd_deploy.errors import CheckpointError, SpecError

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
