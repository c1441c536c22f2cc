"""A backbone learns to classify, so that a detector need not start from nothing.

images with a class -> net -> (batch -> step) x epochs -> accuracy -> backbone.pth
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from mbv3ssd_deploy.charts import Line, Panel
from mbv3ssd_deploy.checkpoint.backbones.load import apply_backbone, load_backbone
from mbv3ssd_deploy.checkpoint.families.native import native_spec
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.core.classifier_spec import ClassifierSpec
from mbv3ssd_deploy.data.classification import (
    NO_CLASS_AUGMENTATION,
    ClassSamples,
)
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.folders import ClassificationSet
from mbv3ssd_deploy.data.made_split import SPLIT_SEED
from mbv3ssd_deploy.data.summary import every_problem, summary_of_training
from mbv3ssd_deploy.errors import DatasetError, OutputError, TrainingError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.interrupts import StopRequest, stop_on_signals
from mbv3ssd_deploy.io.records import json_from_record
from mbv3ssd_deploy.nets.classifier import ClassifierNet, build_classifier
from mbv3ssd_deploy.train.batches import BatchPlan
from mbv3ssd_deploy.train.classifier_data import (
    ClassBatch,
    read_classes,
    training_batches,
    validation_batches,
)
from mbv3ssd_deploy.train.classifier_request import (
    BackboneObserver,
    BackboneRequest,
    ClassifierEpoch,
)
from mbv3ssd_deploy.train.device import device_named
from mbv3ssd_deploy.train.distributed import Team
from mbv3ssd_deploy.train.ema import MovingAverage
from mbv3ssd_deploy.train.history import CHART, PLAN, TABLE, write_table_and_chart
from mbv3ssd_deploy.train.optimise import (
    Part,
    build_optimiser,
    learning_rate,
    set_learning_rate,
    set_norm_momentum,
)
from mbv3ssd_deploy.train.settle import check_batch

BACKBONE_FILE = "backbone.pth"
_CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class BackboneReport:
    """What came of it.

    Attributes:
        folder: of all files.
        spec: of the classifier.
        history: epoch by epoch.
        interrupted: whether it was asked to stop before its end.
        files: what was written; a backbone is among them from the end of the first epoch on.
    """

    folder: Path
    spec: ClassifierSpec
    history: tuple[ClassifierEpoch, ...]
    interrupted: bool
    files: tuple[Path, ...]

    @property
    def best(self) -> ClassifierEpoch | None:
        """The first epoch with the highest accuracy."""
        return max(self.history, key=lambda epoch: epoch.top1, default=None)


def train_backbone(
    request: BackboneRequest, observer: BackboneObserver | None = None
) -> BackboneReport:
    """Train a classifier and write the best one, whose backbone `train --backbone` takes.

    Raises:
        DatasetError: the data cannot be used.
        SpecError: settings contradict each other.
        CheckpointError: the weights to start from do not fit.
        OutputError: the folder cannot be written, or holds another backbone.
        RuntimeUnavailableError: there is no such device.
        TrainingError: the loss is no longer a number.
    """
    observer = BackboneObserver() if observer is None else observer
    device = device_named(request.device, Team())
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    path = request.output / BACKBONE_FILE
    if path.exists() and not request.overwrite:
        raise OutputError(
            "there is a backbone already",
            where=str(path),
            hint="replace it (--overwrite), or choose another --output",
        )
    learn, val = _read(request, observer)
    if learn.class_names != val.class_names:
        raise DatasetError("training and validation images have other classes", where=request.data)
    spec = _spec_of(request, learn)
    torch.manual_seed(request.seed)
    _write_plan(request, spec)
    net = _start(request, spec, observer).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    lessons = _Lessons(request, spec, net, learn, val, device, observer)
    try:
        with stop_on_signals() as stop:
            interrupted = lessons.run(stop)
    finally:
        if lessons.history:
            write_table_and_chart(request.output, lessons.history, _panels(lessons.history))
    names = (*((BACKBONE_FILE, TABLE, CHART) if lessons.history else ()), PLAN)
    return BackboneReport(
        folder=request.output,
        spec=spec,
        history=tuple(lessons.history),
        interrupted=interrupted,
        files=tuple(request.output / name for name in names),
    )


def _read(
    request: BackboneRequest, observer: BackboneObserver
) -> tuple[ClassificationSet, ClassificationSet]:
    """Return what to learn from and what to be measured on."""

    def read(split: Split) -> ClassificationSet:
        # not this run's seed: no test image of the detector to come may be learned from
        return read_classes(request.data, split, seed=SPLIT_SEED, progress=observer.progress)

    learn, val = read(request.train_split), read(request.val_split)
    for line in summary_of_training(learn.problems, val.problems):
        observer.note(line)
    for line in every_problem((*learn.problems, *val.problems)):
        observer.detail(line)
    return learn, val


def _write_plan(request: BackboneRequest, spec: ClassifierSpec) -> None:
    """Write down what is going to be done: a folder that cannot be written to shows itself now.

    Raises:
        OutputError: the folder cannot be written to.
    """
    plan = {
        "data": request.data,
        "splits": [request.train_split.value, request.val_split.value],
        "seed": request.seed,
        "recipe": json_from_record(request.recipe),
        "label_smoothing": request.label_smoothing,
        "dropout": request.dropout,
        "spec": json_from_record(spec),
    }
    write_file(request.output / PLAN, (json.dumps(plan, indent=1) + "\n").encode())


def _spec_of(request: BackboneRequest, learn: ClassificationSet) -> ClassifierSpec:
    # that of the detectors to come, so that the backbone finds the pixels that it knows
    detector = native_spec(
        request.backbone,
        ("background", "object"),
        image_size=request.image_size,
        width_mult=request.width_mult,
    )
    name = f"mobilenet_v3_{request.backbone}"
    return ClassifierSpec(name, detector.arch, detector.input, learn.class_names)


def _start(
    request: BackboneRequest, spec: ClassifierSpec, observer: BackboneObserver
) -> ClassifierNet:
    net = build_classifier(spec.arch, spec.num_classes, dropout=request.dropout)
    set_norm_momentum(net, request.recipe.bn_momentum)
    if request.initial is not None:
        loaded = load_backbone(request.initial, spec.arch, num_classes=spec.num_classes)
        apply_backbone(net, loaded)
        observer.note(f"weights of {loaded.family} from {loaded.path}")
        for notice in loaded.notices:
            observer.note(notice)
    return net


class _Lessons:
    """The epochs of a backbone's training."""

    def __init__(  # noqa: PLR0913, PLR0917 -- a net, its images, and where it runs
        self,
        request: BackboneRequest,
        spec: ClassifierSpec,
        net: ClassifierNet,
        learn: ClassificationSet,
        val: ClassificationSet,
        device: torch.device,
        observer: BackboneObserver,
    ) -> None:
        self.request, self.spec, self.net = request, spec, net
        self.device, self.observer = device, observer
        self.history: list[ClassifierEpoch] = []
        recipe = request.recipe
        self.plan = BatchPlan(len(learn), check_batch(recipe, len(learn), 1), request.seed)
        parts = (Part((net.backbone,), recipe.backbone_lr), Part((net.classifier,), 1.0))
        self.optimiser = build_optimiser(parts, recipe)
        self.average = MovingAverage(net, recipe.ema_decay)
        self.judged = copy.deepcopy(net)
        self.examples = ClassSamples(learn, spec.input, seed=request.seed, cache_bytes=_CACHE_BYTES)
        self.questions = ClassSamples(val, spec.input, seed=0, options=NO_CLASS_AUGMENTATION)

    def run(self, stop: StopRequest) -> bool:
        """Learn to the end, or until nothing improves; return whether it was asked to stop."""
        began = time.monotonic()
        epochs = self.request.recipe.epochs
        for epoch in range(epochs):
            at = time.monotonic()
            loss = self._learn(epoch, stop)
            if stop.is_set:
                return True
            self.judged.load_state_dict(self.average.state)
            accuracy = self._accuracy()
            rate = self.optimiser.param_groups[-1]["lr"]
            entry = ClassifierEpoch(epoch + 1, time.monotonic() - at, rate, loss, *accuracy)
            self._finish(entry)
            left = (time.monotonic() - began) / (epoch + 1) * (epochs - epoch - 1)
            self.observer.epoch_done(entry, left)
            if self._is_stale():
                self.observer.note(
                    f"no improvement in {self.request.patience} epochs: training ends here"
                )
                break
        return False

    def _learn(self, epoch: int, stop: StopRequest) -> float:
        """Make the steps of an epoch (from 0); return their mean loss."""
        per_epoch, total = self.plan.steps_per_epoch, 0.0
        self.net.train()
        batches = training_batches(self.examples, self.plan, epoch, self._workers())
        for place, batch in enumerate(batches):
            rate = learning_rate(self.request.recipe, epoch * per_epoch + place, per_epoch)
            set_learning_rate(self.optimiser, rate)
            total += self._step(batch)
            self.observer.progress(f"epoch {epoch + 1}", place + 1, per_epoch)
            if stop.is_set:
                break
        return total / per_epoch

    def _step(self, batch: ClassBatch) -> float:
        self._tell(batch)
        logits = self.net(batch.inputs.to(self.device, memory_format=torch.channels_last))
        loss = functional.cross_entropy(
            logits, batch.labels.to(self.device), label_smoothing=self.request.label_smoothing
        )
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value}", hint="try a tenth of the learning rate (--lr)"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.request.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.request.recipe.clip_norm)
        self.optimiser.step()
        self.average.update(self.net)
        return value

    @torch.no_grad()
    def _accuracy(self) -> tuple[float, float]:
        """Return the shares of validation images named first, and among the first five."""
        self.judged.eval()
        ranks = []
        for batch in validation_batches(self.questions, self._workers()):
            self._tell(batch)
            logits = self.judged(batch.inputs.to(self.device, memory_format=torch.channels_last))
            ranks.append(ranks_of(logits.cpu(), batch.labels))
        rank = torch.cat(ranks)
        top5 = float((rank < 5).double().mean()) if self.spec.num_classes > 5 else math.nan
        return float((rank < 1).double().mean()), top5

    def _finish(self, entry: ClassifierEpoch) -> None:
        is_best = all(entry.top1 > before.top1 for before in self.history)
        self.history.append(entry)
        if is_best:
            training = {
                "recipe": json_from_record(self.request.recipe),
                "data": self.request.data,
                "seed": self.request.seed,
                "epoch": entry.epoch,
                "top1": entry.top1,
            }
            path = self.request.output / BACKBONE_FILE
            write_native(path, self.judged, self.spec, extra={"training": training})

    def _is_stale(self) -> bool:
        best = max(self.history, key=lambda epoch: epoch.top1)
        patience = self.request.patience
        return 0 < patience <= len(self.history) - best.epoch

    def _tell(self, batch: ClassBatch) -> None:
        for problem in batch.problems:
            self.observer.note(f"left out: {problem}")
        if not len(batch.labels):
            raise DatasetError(
                "not one image of a batch could be read: " + "; ".join(batch.problems)
            )

    def _workers(self) -> int:
        if self.request.workers is not None:
            return self.request.workers
        cores = len(os.sched_getaffinity(0))
        return max(1, cores // 2)


def ranks_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (N,), how many classes have a higher logit (N, C) than the true one, `labels` (N,)."""
    return (logits > logits.gather(1, labels[:, None])).sum(dim=1)


def _panels(history: Iterable[ClassifierEpoch]) -> list[Panel]:
    records = list(history)
    epochs = [float(record.epoch) for record in records]
    losses = [Line("training", epochs, [record.loss for record in records])]
    accuracy = [Line("top 1", epochs, [record.top1 for record in records])]
    if not math.isnan(records[0].top5):
        accuracy.append(Line("top 5", epochs, [record.top5 for record in records]))
    return [
        Panel("cross-entropy", "epoch", "loss", losses),
        Panel("accuracy on the validation images", "epoch", "share", accuracy, (0.0, 1.0)),
    ]
