"""What somebody wants of a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.train.device import Precision
from mbv3ssd_deploy.train.history import EpochRecord


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """A run, as it was asked for. None stands for "as the recipe, or the resumed run, has it".

    Attributes:
        data: the training source, `voc:ROOT`, `coco:ANN.json,IMAGES` or `yolo:data.yaml`.
        output: the folder of all files.
        train_split: of the source; train.
        val_data: the validation source; the training source.
        val_split: of that source; val.
        class_names: by label, background first; by default what the data set has.
        recipe: its name.
        changes: settings of the recipe by name, for instance `epochs` or `lr`.
        backbone: Large or Small.
        width_mult: of backbone and extras; 1.
        image_size: height and width.
        fit_priors: whether the sizes of the priors are made for the data where they fit poorly.
        backbone_file: weights that the backbone starts from.
        pretrained: a detector that the run starts from.
        resume: a snapshot that the run goes on from.
        seed: of everything random; 0.
        workers: processes that prepare images; half of the cores where it is None.
        threads: of PyTorch on the CPU; as many as PyTorch likes where it is None.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: of the convolutions.
        validate_every: epochs between validations; about 50 in all where it is None.
        overwrite: whether a run that is in `output` already may be replaced.
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


def _say_nothing(_: str) -> None:
    pass


def _see_nothing(_: EpochRecord, __: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Observer:
    """Whom a run tells how it goes.

    Attributes:
        progress: of the present epoch or validation.
        note: something a user should know, a sentence.
        detail: something that only who asks for details wants to know.
        epoch_done: the record of an epoch, and the seconds that remain, as far as one can tell.
    """

    progress: Progress = silent
    note: Callable[[str], None] = _say_nothing
    detail: Callable[[str], None] = _say_nothing
    epoch_done: Callable[[EpochRecord, float], None] = _see_nothing
