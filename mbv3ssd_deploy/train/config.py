"""What a user asks of a training run: requests, recipes and the observer of its progress."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.augment import AugmentOptions, ColourOptions
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.io.progress import Progress, silent


class Precision(enum.StrEnum):
    """The arithmetic of convolutions; weights, losses and BatchNorm stay in float32."""

    AUTO = "auto"
    """bfloat16 on a GPU that has it, float16 on any other GPU, float32 on a CPU."""
    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"


class Algorithm(enum.StrEnum):
    """The optimiser."""

    SGD = "sgd"
    """With momentum, but not Nesterov's, as in every SSD project."""
    ADAMW = "adamw"


class Schedule(enum.StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    """Along half a cosine down to `final_lr_share` (SGDR, arXiv 1608.03983, equation 5)."""
    MULTISTEP = "multistep"
    """By `gamma` at each of the `milestones`."""


class Freeze(enum.StrEnum):
    """Which part of the net is frozen, its BatchNorm statistics included."""

    NOTHING = "nothing"
    BACKBONE = "backbone"
    ALL_BUT_HEADS = "all-but-heads"


_RANGES = (
    (1, 1e12, "1 or more", "epochs batch"),
    (1e-12, 1e12, "above 0 and below 1e12", "lr bn_momentum negatives_per_positive smooth_l1_beta"),
    (0, 1e12, "0 or more and below 1e12", "weight_decay warmup_epochs clip_norm backbone_lr"),
    (0, 1e12, "0 or more and below 1e12", "extras_lr patience"),
    (0, 1 - 1e-9, "0 or more and below 1", "momentum ema_decay final_lr_share match_threshold"),
    (0, 1 - 1e-9, "0 or more and below 1", "label_smoothing dropout"),
    (0, 1, "from 0 to 1", "vertical_flip"),
)
"""The lowest and highest valid number, both in words, and the settings that they are for."""
_CHOICES: Mapping[str, type[enum.StrEnum]] = MappingProxyType(
    {"algorithm": Algorithm, "schedule": Schedule, "freeze": Freeze}
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All settings of a training run that concern neither the data nor the network.

    Attributes:
        backbone: "large" or "small": the network it is meant for.
        image_size: the side of the input it is meant for, in pixels.
        batch: the batch size, over all processes.
        lr: the learning rate of the heads, for a batch of `batch` images.
        backbone_lr: the learning rate of the backbone, as a share of `lr`.
        extras_lr: the learning rate of the extra levels, as a share of `lr`.
        momentum: of SGD; AdamW has betas of 0.9 and 0.999.
        milestones: of MULTISTEP, as shares of all steps.
        gamma: of MULTISTEP: the factor at each of them.
        final_lr_share: of COSINE: the last learning rate, as a share of `lr`.
        warmup_epochs: how long the rate rises from near 0; fractions of an epoch count.
        clip_norm: the maximum norm of the gradient; 0 for no limit.
        ema_decay: of the moving average of the weights; 0 for no average.
        bn_momentum: weight of a batch in BatchNorm's running statistics.
        negatives_per_positive: hard negatives for each matched prior.
        match_threshold: the IoU from which a prior is matched to a box.
        smooth_l1_beta: where smooth L1 becomes linear.
        freeze: the part that is not trained.
        freeze_norms: whether every BatchNorm keeps and applies its running statistics: right for
            batches of a few images, when starting from a detector with good statistics.
        vertical_flip: the probability of turning an image upside down: right where nothing is
            upright, as under a microscope.
        label_smoothing: the share of a classifier's target that is spread over all classes.
        patience: epochs without improvement after which training ends; 0 for never.
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
    label_smoothing: float = 0.0
    dropout: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name):g}, and must be {valid}"
            for lowest, highest, valid, names in _RANGES
            for name in names.split()
            if not lowest <= getattr(self, name) <= highest
        ]
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value in set(kind):  # a plain string is accepted for the enum member it names
                object.__setattr__(self, name, kind(value))
            else:
                problems.append(f"{name} is {value!r}, not one of {', '.join(kind)}")
        problems += self._milestone_problems()
        if problems:
            raise SpecError("; ".join(problems), where=f"recipe {self.name}")

    def _milestone_problems(self) -> list[str]:
        marks = self.milestones
        if self.schedule is Schedule.MULTISTEP and not marks:
            return ["a multi-step schedule has no milestones"]
        if self.schedule is Schedule.COSINE and marks:
            return ["milestones are for a multi-step schedule, and this one is a cosine"]
        rising = all(one < two for one, two in itertools.pairwise((0.0, *marks, 1.0)))
        return [] if rising else [f"milestones {marks} do not rise between 0 and 1"]

    def changed(self, **settings: Any) -> Recipe:  # noqa: ANN401 -- values of any field
        """Return the recipe with those `settings` that are not None.

        Raises:
            SpecError: a value is out of its range.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if given.get("schedule") == Schedule.COSINE:
            given = {"milestones": ()} | given
        return dataclasses.replace(self, **given)


DEFAULT_RECIPE = "small-data"

_VOC = "Pascal VOC 2007 and 2012 trainval; never run here: the data was not available"
_COCO = "COCO 2017; never run here: the data was not available"
_ONLY_CROPS = AugmentOptions(colours=ColourOptions(chance=0.0), zoom_out_chance=0.0)
_SWAPS = AugmentOptions(colours=ColourOptions(swap_chance=0.5))
_ON_VOC: Mapping[str, Any] = MappingProxyType(
    {"lr": 0.02, "warmup_epochs": 2.0, "clip_norm": 10.0, "ema_decay": 0.9998, "bn_momentum": 0.03}
)

# A row for each recipe. Those named after public projects have the settings that the projects'
# READMEs and training scripts give, for this trainer's network, priors and loss; a description says
# where a setting has no counterpart here.
# fmt: off
_ROWS = (
    Recipe("small-data", "a few hundred images, from scratch, in an hour or so on a CPU",
           batch=16, algorithm=Algorithm.ADAMW, lr=2e-3, weight_decay=0.02, warmup_epochs=3.0,
           clip_norm=10.0, ema_decay=0.998,
           augmentation=AugmentOptions(zoom_out_chance=0.3, zoom_out_most=2.0)),
    Recipe("voc0712-large", f"Large on {_VOC}", "large", epochs=240, **_ON_VOC),
    Recipe("voc0712-small", f"Small on {_VOC}", "small", epochs=240, **_ON_VOC),
    Recipe("coco-large", f"torchvision's ssdlite320_mobilenet_v3_large (mAP 21.3), 8 GPUs; {_COCO}",
           "large", 320, 660, 192, lr=0.15, weight_decay=4e-5, bn_momentum=0.03,
           augmentation=_ONLY_CROPS),
    Recipe("qfgaohao", f"mb3-ssd-lite by the README of its sister networks; {_VOC}",
           "large", 300, 200, warmup_epochs=0.0, augmentation=_SWAPS),
    Recipe("jungin500", f"its second stage, from its backbone; {_VOC}",
           "small", 300, 200, backbone_lr=0.03, warmup_epochs=0.0, augmentation=_SWAPS),
    Recipe("tongyu", "30 kinds of goods on shelves, 95,000 images that were never published; "
           "never run here", "small", 300, 40, warmup_epochs=0.0, augmentation=_SWAPS),
    Recipe("shaoshengsong", "cake and bread of Open Images; never run here: the data was not "
           "available", "small", 300, 100, 5, backbone_lr=0.1, warmup_epochs=0.0,
           augmentation=_SWAPS),
    Recipe("lufficc", f"120,000 steps (mAP 69.5); {_VOC}", "large", epochs=232, lr=1e-3,
           schedule=Schedule.MULTISTEP, milestones=(80 / 120, 100 / 120)),
    Recipe("ujsyehao", f"25 epochs of ten rounds each (mAP 71.7); {_VOC}", "large", 300, 250, 16,
           lr=0.02, schedule=Schedule.MULTISTEP, milestones=(16 / 25, 22 / 25), warmup_epochs=0.5,
           clip_norm=35.0),
    Recipe("compact", "multi-step instead of its plateau rule, near-L1 for boxes (mAP 67.9); "
           f"{_VOC}", "large", 300, 600, lr=1e-3, schedule=Schedule.MULTISTEP,
           milestones=(2 / 3, 8 / 9), warmup_epochs=0.0, smooth_l1_beta=0.01),
)
BACKBONE_RECIPE = Recipe(
    "backbone", "classification of a few thousand images or object crops",
    epochs=100, algorithm=Algorithm.ADAMW, lr=2e-3, weight_decay=0.02, warmup_epochs=3.0,
    clip_norm=10.0, ema_decay=0.998, label_smoothing=0.1, dropout=0.2, patience=20)
"""The recipe of `train-backbone`; settings that only a detector has are ignored."""
# fmt: on
RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ROWS})
"""By name, the default first."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """The training of a detector or of a backbone; None means the recipe's or resumed run's value.

    Attributes:
        data: the training source: `voc:ROOT`, `coco:ANN.json,IMAGES` or `yolo:data.yaml`; of a
            backbone also `folder:ROOT`, with a folder for each class.
        output: the folder of all files.
        train_split: part of the training source; train.
        val_data: the validation source; the training source.
        val_split: part of the validation source; val.
        class_names: by label, background first; those of the data set. Detectors only.
        recipe: the name of a recipe; `small-data`. Detectors only.
        changes: settings of the recipe by name, for instance `epochs` or `lr`.
        backbone: Large or Small.
        width_mult: of backbone and extras; 1.
        image_size: height and width.
        fit_priors: whether prior sizes are fitted to the data where the standard ones fit poorly.
        backbone_file: weights that the backbone starts from.
        pretrained: a detector that the run starts from.
        resume: a snapshot (`last.pth`) of the run to resume.
        seed: random seed; 0.
        workers: processes that prepare images; half of the cores.
        threads: PyTorch's threads on the CPU; PyTorch's own default.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: of the convolutions; auto, of a backbone float32.
        validate_every: epochs between validations; about 50 validations in all, of a backbone 1.
        overwrite: whether a run that is already in `output` may be replaced.
    """

    data: str | None
    output: Path
    train_split: Split | None = None
    val_data: str | None = None
    val_split: Split | None = None
    class_names: tuple[str, ...] | None = None
    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    backbone: Backbone | None = None
    width_mult: float | None = None
    image_size: tuple[int, int] | None = None
    fit_priors: bool = True
    backbone_file: Path | None = None
    pretrained: Path | None = None
    resume: Path | None = None
    seed: int | None = None
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    precision: Precision | None = None
    validate_every: int | None = None
    overwrite: bool = False


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Observer:
    """Callbacks of a run.

    Attributes:
        progress: called during an epoch or validation.
        note: called with a sentence that a user should know.
        detail: called with a sentence for a user who asked for details.
        epoch_done: called with an `EpochRecord` (for a backbone a `BackboneEpoch`) and an estimate
            of the seconds left.
    """

    progress: Progress = silent
    note: Callable[[str], None] = _ignore
    detail: Callable[[str], None] = _ignore
    epoch_done: Callable[[Any, float], None] = _ignore
