"""What somebody wants of the training of a backbone, and how an epoch of it went."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.train.recipes import Algorithm, Recipe

BACKBONE_RECIPE = Recipe(
    name="backbone",
    description="classification of a few thousand images or object crops",
    epochs=100,
    batch=32,
    algorithm=Algorithm.ADAMW,
    lr=2e-3,
    weight_decay=0.02,
    warmup_epochs=3.0,
    clip_norm=10.0,
    ema_decay=0.998,
)
"""What `train-backbone` takes; what only a detector needs is not looked at."""


@dataclass(frozen=True, slots=True)
class BackboneRequest:
    """The training of a backbone, as it was asked for.

    Attributes:
        data: `folder:ROOT` with a folder a class, or a detection source whose objects are cut out.
        output: the folder of all files.
        train_split: what to learn from.
        val_split: what to be measured on.
        backbone: Large or Small.
        width_mult: of the backbone.
        image_size: height and width; object crops are stretched to it.
        recipe: how it learns.
        label_smoothing: the share of the truth that is spread over all classes.
        dropout: in the classifier.
        patience: epochs without improvement after which it stops; 0 for never.
        initial: weights that it starts from.
        seed: of everything random.
        workers: processes that prepare images; half of the cores where None.
        threads: of PyTorch on the CPU.
        device: "auto", "cpu", "cuda" or "cuda:1".
        overwrite: whether a backbone that is in `output` already may be replaced.
    """

    data: str
    output: Path
    train_split: Split = Split.TRAIN
    val_split: Split = Split.VAL
    backbone: Backbone = Backbone.SMALL
    width_mult: float = 1.0
    image_size: tuple[int, int] = (224, 224)
    recipe: Recipe = BACKBONE_RECIPE
    label_smoothing: float = 0.1
    dropout: float = 0.2
    patience: int = 20
    initial: Path | None = None
    seed: int = 0
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class ClassifierEpoch:
    """What an epoch came to.

    Attributes:
        epoch: from 1.
        seconds: it took.
        lr: the learning rate at its end.
        loss: cross-entropy, the mean of the steps.
        top1: share of the validation images whose class was named first.
        top5: share whose class was among the first five; NaN with five classes or fewer.
    """

    epoch: int
    seconds: float
    lr: float
    loss: float
    top1: float
    top5: float = math.nan


def _say_nothing(_: str) -> None:
    pass


def _see_nothing(_: ClassifierEpoch, __: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class BackboneObserver:
    """Whom the training of a backbone tells how it goes; see `request.Observer`."""

    progress: Progress = silent
    note: Callable[[str], None] = _say_nothing
    detail: Callable[[str], None] = _say_nothing
    epoch_done: Callable[[ClassifierEpoch, float], None] = _see_nothing
