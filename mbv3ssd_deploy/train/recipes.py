"""How a detector is trained: a record of settings. `recipe_table` has those with a name."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mbv3ssd_deploy.data.augment import AugmentOptions
from mbv3ssd_deploy.errors import SpecError


class Algorithm(enum.StrEnum):
    """How a step is made of gradients."""

    SGD = "sgd"
    """With Nesterov's momentum off, as every SSD project has it."""
    ADAMW = "adamw"


class Schedule(enum.StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    """Along half a cosine down to `final_lr_share` (SGDR, arXiv 1608.03983, equation 5)."""
    MULTISTEP = "multistep"
    """By `gamma` at each of the `milestones`."""


class Freeze(enum.StrEnum):
    """Which part of the net stays as it is, its BatchNorm statistics included."""

    NOTHING = "nothing"
    BACKBONE = "backbone"
    ALL_BUT_HEADS = "all-but-heads"


_Range = tuple[float, float, str]
_ONE_OR_MORE: _Range = (1, 1e12, "1 or more")
_ABOVE_0: _Range = (1e-12, 1e12, "above 0 and below 1e12")
_0_OR_MORE: _Range = (0, 1e12, "0 or more and below 1e12")
_BELOW_1: _Range = (0, 1 - 1e-9, "0 or more and below 1")
_A_SHARE: _Range = (0, 1, "from 0 to 1")
_RANGES: Mapping[tuple[str, ...], _Range] = MappingProxyType(
    {
        ("epochs", "batch"): _ONE_OR_MORE,
        ("lr", "bn_momentum", "negatives_per_positive", "smooth_l1_beta"): _ABOVE_0,
        ("weight_decay", "warmup_epochs", "clip_norm", "backbone_lr", "extras_lr"): _0_OR_MORE,
        ("momentum", "ema_decay", "final_lr_share", "match_threshold"): _BELOW_1,
        ("vertical_flip",): _A_SHARE,
    }
)
"""Which settings lie between which numbers: least, most, and both in words."""
_CHOICES: Mapping[str, type[enum.StrEnum]] = MappingProxyType(
    {"algorithm": Algorithm, "schedule": Schedule, "freeze": Freeze}
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All settings of a training run that are not the data and not the network.

    Attributes:
        name: what it is called.
        description: one sentence for people.
        backbone: "large" or "small": the network it is meant for.
        image_size: the input's side it is meant for, in pixels.
        epochs: how often every image is seen.
        batch: images a step, over all processes.
        algorithm: SGD or AdamW.
        lr: the learning rate of the heads, for `batch` images.
        backbone_lr: that of the backbone, as a share of `lr`.
        extras_lr: that of the extra levels, as a share of `lr`.
        momentum: SGD's; AdamW takes 0.9 and 0.999.
        weight_decay: on convolution weights; norms and biases have none.
        schedule: how the learning rate falls.
        milestones: for MULTISTEP, as shares of all steps.
        gamma: for MULTISTEP.
        final_lr_share: for COSINE, where it ends.
        warmup_epochs: over how many epochs the rate rises from near 0; parts of an epoch count.
        clip_norm: the largest norm of the gradient; 0 for any.
        ema_decay: of the average of the weights; 0 for none.
        bn_momentum: the share of a batch in BatchNorm's running statistics.
        negatives_per_positive: hard negatives against each matched prior.
        match_threshold: the IoU from which on a prior answers for a box.
        smooth_l1_beta: where smooth L1 turns into a line.
        freeze: what does not learn.
        freeze_norms: whether every BatchNorm keeps its running statistics and works with them:
            right for batches of a few images, from a detector that has good ones.
        augmentation: what happens to an image.
        vertical_flip: how likely an image is turned upside down: right where nothing stands
            upright, as under a microscope.
    """

    name: str
    description: str
    backbone: str = "small"
    image_size: int = 320
    epochs: int = 120
    batch: int = 32
    algorithm: Algorithm = Algorithm.SGD
    lr: float = 0.01
    backbone_lr: float = 1.0
    extras_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.COSINE
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    final_lr_share: float = 0.0
    warmup_epochs: float = 1.0
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    bn_momentum: float = 0.1
    negatives_per_positive: float = 3.0
    match_threshold: float = 0.5
    smooth_l1_beta: float = 1.0
    freeze: Freeze = Freeze.NOTHING
    freeze_norms: bool = False
    augmentation: AugmentOptions = AugmentOptions()  # noqa: RUF009 -- frozen, it may be shared
    vertical_flip: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value:g}, and must be {wanted}"
            for name, value, wanted in self._out_of_range()
        ]
        for name, kind in _CHOICES.items():
            # a plain word is as good as the choice that it names
            word = getattr(self, name)
            if word in set(kind):
                object.__setattr__(self, name, kind(word))
            else:
                problems.append(f"{name} is {word!r}, not one of {', '.join(kind)}")
        problems += self._wrong_milestones()
        if problems:
            raise SpecError("; ".join(problems), where=f"recipe {self.name}")

    def _out_of_range(self) -> list[tuple[str, float, str]]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return [
            (name, values[name], wanted)
            for names, (least, most, wanted) in _RANGES.items()
            for name in names
            if not least <= values[name] <= most
        ]

    def _wrong_milestones(self) -> list[str]:
        marks = self.milestones
        if self.schedule is Schedule.MULTISTEP and not marks:
            return ["a multi-step schedule has no milestones"]
        if self.schedule is Schedule.COSINE and marks:
            return ["a cosine schedule has milestones, which are for a multi-step one"]
        rising = all(one < two for one, two in itertools.pairwise((0.0, *marks, 1.0)))
        return [] if rising else [f"milestones {marks} do not rise between 0 and 1"]

    def changed(self, **settings: Any) -> Recipe:  # noqa: ANN401 -- values of any field
        """Return the recipe with those `settings` that are not None.

        Raises:
            SpecError: a value makes no sense.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if given.get("schedule") == Schedule.COSINE:
            given = {"milestones": ()} | given
        return dataclasses.replace(self, **given)
