"""The training loop, the same for detectors and backbones: steps, validations, snapshots.

batch -> loss -> step, x steps of an epoch -> validation -> history and snapshots, x epochs
"""

from __future__ import annotations

import abc
import dataclasses
import io
import math
import operator
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from mbv3ssd_deploy.core.average_precision import ApReport
from mbv3ssd_deploy.data.dataset import DatasetProblem, every_problem, summary_of_training
from mbv3ssd_deploy.errors import DatasetError, RuntimeFailedError, TrainingError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.interrupts import StopRequest, stop_on_signals
from mbv3ssd_deploy.train.batches import Batch, BatchPlan, Examples, open_batches
from mbv3ssd_deploy.train.config import Observer, Recipe, TrainRequest
from mbv3ssd_deploy.train.history import Curves, best_epoch, board_if_installed, write_history
from mbv3ssd_deploy.train.loss import LossSums, Truths
from mbv3ssd_deploy.train.snapshot import LAST, Kind, RunRecord, RunSettings, write_snapshot
from mbv3ssd_deploy.train.state import (
    Part,
    StepLoss,
    TrainState,
    learning_rate,
    set_learning_rate,
)

INSPECTION = "not-finite.npz"
_SAVE_SECONDS = 60.0
"""An epoch that ends so long after the last save is saved even without validation."""


class Task(abc.ABC):
    """What is trained, on which data: all that differs between detectors and backbones.

    Attributes:
        kind: of its snapshots.
        best_name: the file of the best snapshot.
        losses: fields of an epoch's record -> the terms of the loss, in words.
        measures: fields of an epoch's record that `validate` returns; the first is the score.
        not_finite_hint: what to try when the loss is NaN or infinite.
        spec: of the net; set by `start` or `restart`.
        class_names: of the data, as in the spec; this and the next two are set by `read_data`.
        image_ids: the names of the training images.
        fingerprint: a hash of training images and annotations.
        report: of a detector's last validation.
    """

    kind: ClassVar[Kind]
    best_name: ClassVar[str]
    curves: ClassVar[tuple[Curves, ...]]
    losses: ClassVar[Mapping[str, str]]
    measures: ClassVar[tuple[str, ...]]
    not_finite_hint: ClassVar[str]
    spec: Any
    class_names: tuple[str, ...]
    image_ids: Sequence[str]
    fingerprint: str
    report: ApReport | None = None

    def __init__(self, request: TrainRequest, recipe: Recipe, observer: Observer) -> None:
        self.request, self.recipe, self.observer = request, recipe, observer

    @abc.abstractmethod
    def read_data(self, settings: RunSettings, class_names: tuple[str, ...] | None) -> None:
        """Read both data sets; of these classes only, if some are given."""

    @abc.abstractmethod
    def start(self) -> nn.Module:
        """Return the net of a new run, in training mode; PyTorch's seed decides random weights."""

    @abc.abstractmethod
    def restart(self, spec: Any) -> nn.Module:  # noqa: ANN401 -- of the kind of net
        """Return the net of a run to resume, without its weights."""

    @abc.abstractmethod
    def parts(self, net: Any) -> Sequence[Part]:  # noqa: ANN401 -- of the kind of net
        """Return the parts of `net` with their learning rates."""

    @abc.abstractmethod
    def examples(self, seed: int) -> Examples:
        """Return the training samples."""

    @abc.abstractmethod
    def loss_sums(self, state: TrainState, batch: Batch) -> LossSums:
        """Return the loss of this process's batch."""

    @abc.abstractmethod
    def validate(self, state: TrainState, workers: int) -> tuple[float, ...]:
        """Return `measures` of the net on the validation images."""

    def note_all(self, texts: Iterable[str]) -> None:
        """Report sentences to the observer."""
        for text in texts:
            self.observer.note(text)

    def report_problems(
        self, train: Sequence[DatasetProblem], val: Sequence[DatasetProblem]
    ) -> None:
        """Report what was left out of the data: a summary, and every case as a detail."""
        self.note_all(summary_of_training(train, val))
        for line in every_problem((*train, *val)):
            self.observer.detail(line)

    def check_images(self, batch: Batch) -> None:
        """Report images that could not be read.

        Raises:
            DatasetError: none of the batch could be read.
        """
        self.note_all(f"left out: {problem}" for problem in batch.problems)
        if not batch.indices:
            raise DatasetError(
                "none of the images of a batch could be read: " + "; ".join(batch.problems)
            )


class Trainer:
    """The steps of a run from its present state to its end.

    Args:
        task: what is trained.
        state: of the net.
        record: of the run; replaced after every step.
        plan: which images are in a batch.
        workers: the number of processes that prepare images.
        replaced: files of a run that this one replaces; removed at the first save.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- a net, its run, and where it runs
        self,
        task: Task,
        state: TrainState,
        record: RunRecord,
        plan: BatchPlan,
        workers: int,
        replaced: Sequence[Path] = (),
    ) -> None:
        self.record = record
        self._task, self._state, self._plan, self._workers = task, state, plan, workers
        self._replaced, self._folder, self._observer = replaced, task.request.output, task.observer
        is_main = state.world.is_main
        self._board = board_if_installed(self._folder, record.step) if is_main else None
        self._began = self._saved = time.monotonic()
        self._steps_here = 0

    @property
    def total_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.record.recipe.epochs * self._plan.steps_per_epoch

    @property
    def is_done(self) -> bool:
        """Whether all steps are made, or the score has not improved for too many epochs."""
        best = best_epoch(self.record.history)
        stale = 0 if best is None else self.record.history[-1].epoch - best.epoch
        return self.record.step >= self.total_steps or 0 < self.record.recipe.patience <= stale

    def run(self) -> bool:
        """Make all remaining steps; save after validations and when asked to stop.

        Return whether the run was interrupted before its end.

        Raises:
            TrainingError: the loss is NaN or infinite; the batch was saved for inspection.
            DatasetError: none of a batch's images could be read.
            OutputError: a file cannot be written.
            RuntimeFailedError: a worker process died; what was saved stays.
        """
        if self.record.epoch_sums and self.record.step % self._plan.steps_per_epoch == 0:
            # the run was ended between the last step of an epoch and its validation
            self._finish_epoch()
        if not self.is_done:
            self._state.set_training_mode()
            try:
                self._make_steps()
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                # it may have come in the middle of a step: what was saved before it counts
                raise _worker_died(self._folder / LAST) from error
        return not self.is_done

    def _make_steps(self) -> None:
        steps = range(self.record.step, self.total_steps)
        batches = open_batches(
            self._task.examples(self._plan.seed),
            self._plan.batches_of(steps, self._state.world),
            workers=self._workers,
        )
        with stop_on_signals() as stop:
            for step, batch in zip(steps, batches, strict=True):
                stop_asked = self._step(step, batch, stop)
                if stop_asked:
                    self._save()
                if stop_asked or self.is_done:
                    return

    def _step(self, step: int, batch: Batch, stop: StopRequest) -> bool:
        """Make one step; return whether a process was asked to stop."""
        began = time.monotonic()
        self._task.check_images(batch)
        epoch, place = divmod(step, self._plan.steps_per_epoch)
        set_learning_rate(self._state.optimiser, self._rate(step))
        loss = self._state.train_step(self._task.loss_sums(self._state, batch), stop=stop.is_set)
        if not loss.is_finite:
            raise self._not_finite(step, batch, loss)
        self._steps_here += 1
        added = (*loss.means, loss.divisor, 1.0, time.monotonic() - began)
        sums = self.record.epoch_sums or (0.0,) * len(added)
        self.record = dataclasses.replace(
            self.record, step=step + 1, epoch_sums=tuple(map(operator.add, sums, added))
        )
        self._observer.progress(f"epoch {epoch + 1}", place + 1, self._plan.steps_per_epoch)
        if place + 1 == self._plan.steps_per_epoch:
            self._finish_epoch()
        return loss.stop

    def _finish_epoch(self) -> None:
        record = self.record
        *sums, divisor, steps, seconds = record.epoch_sums
        epoch = record.step // self._plan.steps_per_epoch
        began = time.monotonic()
        is_due = epoch % record.settings.validate_every == 0 or epoch == record.recipe.epochs
        measures = self._task.validate(self._state, self._workers) if is_due else ()
        values = {
            "epoch": epoch,
            "step": record.step,
            "seconds": seconds + time.monotonic() - began,
            "lr": self._rate(record.step - 1),
            "matched": divisor / steps / self._plan.batch,
            **dict(zip(self._task.losses, [value / steps for value in sums], strict=True)),
            **dict(zip(self._task.measures, measures, strict=False)),
        }
        kind = self._task.kind.epoch
        entry = kind(**{name: values[name] for name in kind.__dataclass_fields__ if name in values})
        is_best = entry.score > record.best
        self.record = dataclasses.replace(
            record,
            history=(*record.history, entry),
            best=entry.score if is_best else record.best,
            epoch_sums=(),
        )
        if is_due or time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save(best=is_best)
        if self._board is not None:
            self._board.add(entry, record.step)
        self._observer.epoch_done(entry, 0.0 if self.is_done else self._seconds_left())
        if self.is_done and record.step < self.total_steps:
            patience = record.recipe.patience
            self._observer.note(f"no improvement in {patience} epochs: training ends here")
        self._state.set_training_mode()

    def _rate(self, step: int) -> float:
        return learning_rate(self.record.recipe, step, self._plan.steps_per_epoch)

    def _save(self, *, best: bool = False) -> None:
        if not self._state.world.is_main:
            return
        net, folder, spec = self._state.eval_net(), self._folder, self._task.spec
        written = {folder / LAST}
        if best:
            written.add(folder / self._task.best_name)
            write_snapshot(folder / self._task.best_name, net, spec, self.record, None)
        write_snapshot(folder / LAST, net, spec, self.record, self._state.tensors())
        if self.record.history:
            written |= {*write_history(folder, self.record.history, self._task.curves)}
        for path in set(self._replaced) - written:
            path.unlink(missing_ok=True)
        self._replaced = ()
        self._saved = time.monotonic()

    def _not_finite(self, step: int, batch: Batch, loss: StepLoss) -> TrainingError:
        """Write the batch that broke the loss; return the error."""
        targets = batch.targets
        entries = io.BytesIO()
        np.savez_compressed(
            entries,
            inputs=batch.inputs.numpy(),
            images=np.array([self._task.image_ids[index] for index in batch.indices]),
            step=np.array(step),
            **(targets._asdict() if isinstance(targets, Truths) else {"labels": targets}),
        )
        path, last = self._folder / INSPECTION, self._folder / LAST
        write_file(path, entries.getvalue())
        losses = zip(self._task.losses.values(), loss.means, strict=True)
        name, value = next(item for item in losses if not math.isfinite(item[1]))
        epoch = step // self._plan.steps_per_epoch + 1
        again = " (and --overwrite, or another --output)" if last.exists() else ""
        return TrainingError(
            f"at step {step + 1} (epoch {epoch}) {name} is {value}; the batch was saved as {path}",
            hint=self._task.not_finite_hint + again,
        )

    def _seconds_left(self) -> float:
        """Estimate from the steps of this part of the run, validations included."""
        spent = time.monotonic() - self._began
        return spent / max(1, self._steps_here) * (self.total_steps - self.record.step)


def _worker_died(last: Path) -> RuntimeFailedError:
    hint = "prepare images in fewer processes: --workers 0"
    if last.exists():
        hint = f"resume from what was saved, with fewer of them: --resume {last} --workers 0"
    return RuntimeFailedError(
        "a process that prepares images was killed, perhaps for lack of memory", hint=hint
    )
