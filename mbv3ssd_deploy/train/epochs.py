"""The epochs of a run: steps, validations, files."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbv3ssd_deploy.core.average_precision import ApReport
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.data.dataset import Dataset
from mbv3ssd_deploy.errors import DatasetError, RuntimeFailedError, TrainingError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.interrupts import StopRequest, stop_on_signals
from mbv3ssd_deploy.train.batches import Batch, BatchPlan, Examples, open_batches
from mbv3ssd_deploy.train.board import Board
from mbv3ssd_deploy.train.history import EpochRecord, write_history
from mbv3ssd_deploy.train.learner import Learner
from mbv3ssd_deploy.train.loop import StepLoss
from mbv3ssd_deploy.train.optimise import learning_rate, set_learning_rate, set_training_mode
from mbv3ssd_deploy.train.request import Observer
from mbv3ssd_deploy.train.snapshot import BEST, LAST, RunRecord, write_snapshot
from mbv3ssd_deploy.train.validate import validate

INSPECTION = "not-finite.npz"
_SAVE_SECONDS = 60.0
"""After so long an epoch is saved even if nothing was measured after it."""


class EpochSums(NamedTuple):
    """What the steps of an epoch add up to."""

    localisation: float = 0.0
    classification: float = 0.0
    matched: float = 0.0
    steps: float = 0.0
    seconds: float = 0.0

    def plus(self, loss: StepLoss, seconds: float) -> EpochSums:
        """Return the sums with one step more."""
        return EpochSums(
            self.localisation + loss.localisation,
            self.classification + loss.classification,
            self.matched + loss.matched,
            self.steps + 1,
            self.seconds + seconds,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a run came.

    Attributes:
        record: of the run at its end.
        report: of the last validation; None if there was none in this part of the run.
        interrupted: whether it was asked to stop before its end.
    """

    record: RunRecord
    report: ApReport | None
    interrupted: bool


@dataclass(slots=True)
class Epochs:
    """The steps of a run from where it stands to its end.

    Attributes:
        learner: the net that learns.
        spec: of the net.
        examples: what it learns from.
        val: what it is measured on.
        plan: which images each step sees.
        workers: processes that prepare images.
        folder: of all files.
        observer: is told how it goes.
        board: TensorBoard's, where it is installed.
        record: of the run; replaced as it goes on.
        others: files of the run that this one replaces; the first save takes them away.
        report: of the last validation.
    """

    learner: Learner
    spec: DetectorSpec
    examples: Examples
    val: Dataset
    plan: BatchPlan
    workers: int
    folder: Path
    observer: Observer
    board: Board | None
    record: RunRecord
    others: Sequence[Path] = ()
    report: ApReport | None = None
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _steps_here: int = 0

    @property
    def total_steps(self) -> int:
        """How many steps the whole run has."""
        return self.record.recipe.epochs * self.plan.steps_per_epoch

    def run(self) -> Outcome:
        """Make all steps that are left; save after each epoch, and when asked to stop.

        Raises:
            TrainingError: the loss is no longer a number; the batch was saved for inspection.
            DatasetError: none of a batch's images could be read.
            OutputError: a file cannot be written.
            RuntimeFailedError: a process that prepares images died; what was saved stays.
        """
        stepper = self.learner.stepper
        steps = range(self.record.step, self.total_steps)
        batches = open_batches(
            self.examples, self.plan, steps, team=stepper.team, workers=self.workers
        )
        if self.record.epoch_sums and self.record.step % self.plan.steps_per_epoch == 0:
            # the run was ended between the last step of an epoch and its validation
            self._finish_epoch(
                self.record.step // self.plan.steps_per_epoch, EpochSums(*self.record.epoch_sums)
            )
        set_training_mode(self.learner.net, self.record.recipe)
        with stop_on_signals() as stop:
            try:
                for step, batch in zip(steps, batches, strict=True):
                    if self._step(step, batch, stop):
                        self._save()
                        return self._outcome()
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                # it may have come in the middle of a step: what was saved before it counts
                raise _no_images(self.folder / LAST) from error
        return self._outcome()

    def _outcome(self) -> Outcome:
        return Outcome(self.record, self.report, self.record.step < self.total_steps)

    def _step(self, step: int, batch: Batch, stop: StopRequest) -> bool:
        """Make one step; return whether the run should stop after it."""
        began = time.monotonic()
        self._check_images(batch)
        recipe, per_epoch = self.record.recipe, self.plan.steps_per_epoch
        stepper = self.learner.stepper
        set_learning_rate(stepper.optimiser, learning_rate(recipe, step, per_epoch))
        loss = stepper.step(batch, stop=stop.is_set)
        if not loss.is_finite:
            raise self._not_finite(step, batch, loss)
        self._steps_here += 1
        sums = EpochSums(*self.record.epoch_sums).plus(loss, time.monotonic() - began)
        self.record = dataclasses.replace(self.record, step=step + 1, epoch_sums=tuple(sums))
        place = step % per_epoch + 1
        self.observer.progress(f"epoch {step // per_epoch + 1}", place, per_epoch)
        if place == per_epoch:
            self._finish_epoch(step // per_epoch + 1, sums)
        return loss.stop

    def _finish_epoch(self, epoch: int, sums: EpochSums) -> None:
        recipe, settings = self.record.recipe, self.record.settings
        began = time.monotonic()
        is_due = epoch % settings.validate_every == 0 or epoch == recipe.epochs
        mean_ap = self._validate() if is_due else math.nan
        entry = EpochRecord(
            epoch=epoch,
            step=self.record.step,
            seconds=sums.seconds + time.monotonic() - began,
            lr=learning_rate(recipe, self.record.step - 1, self.plan.steps_per_epoch),
            localisation=sums.localisation / sums.steps,
            classification=sums.classification / sums.steps,
            matched=sums.matched / sums.steps / self.plan.batch,
            mean_ap=mean_ap,
        )
        is_best = mean_ap > self.record.best
        self.record = dataclasses.replace(
            self.record,
            history=(*self.record.history, entry),
            best=mean_ap if is_best else self.record.best,
            epoch_sums=(),
        )
        if is_due or time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save(best=is_best)
        if self.board is not None:
            self.board.add(entry)
        self.observer.epoch_done(entry, self._seconds_left())
        set_training_mode(self.learner.net, recipe)

    def _validate(self) -> float:
        stepper = self.learner.stepper
        found = validate(
            self.learner.net_to_deploy(),
            self.val.samples,
            self.spec,
            device=stepper.device,
            team=stepper.team,
            workers=self.workers,
            progress=self.observer.progress,
        )
        for problem in found.problems:
            self.observer.note(f"not measured: {problem}")
        self.report = found.report
        return found.report.mean

    def _save(self, *, best: bool = False) -> None:
        if not self.learner.stepper.team.leads:
            return
        net = self.learner.net_to_deploy()
        written = {self.folder / LAST}
        if best:
            write_snapshot(self.folder / BEST, net, self.spec, self.record, None)
            written.add(self.folder / BEST)
        write_snapshot(self.folder / LAST, net, self.spec, self.record, self.learner.tensors())
        if self.record.history:
            written |= {*write_history(self.folder, self.record.history)}
        for path in set(self.others) - written:
            path.unlink(missing_ok=True)
        self.others = ()
        self._saved = time.monotonic()

    def _check_images(self, batch: Batch) -> None:
        for problem in batch.problems:
            self.observer.note(f"left out: {problem}")
        if not batch.places:
            raise DatasetError(
                "not one image of a batch could be read: " + "; ".join(batch.problems)
            )

    def _not_finite(self, step: int, batch: Batch, loss: StepLoss) -> TrainingError:
        """Write the batch that broke the loss; return the error that says so."""
        samples = self.examples.image_ids
        entries = io.BytesIO()
        np.savez_compressed(
            entries,
            inputs=batch.inputs.numpy(),
            boxes=batch.truths.boxes.numpy(),
            labels=batch.truths.labels.numpy(),
            images=np.array([samples[place] for place in batch.places]),
            step=np.array(step),
        )
        path = self.folder / INSPECTION
        write_file(path, entries.getvalue())
        which = "boxes" if not math.isfinite(loss.localisation) else "classes"
        return TrainingError(
            f"at step {step + 1} (epoch {step // self.plan.steps_per_epoch + 1}) the loss of the "
            f"{which} is {loss.localisation if which == 'boxes' else loss.classification}; "
            f"the batch was saved as {path}",
            hint="try a tenth of the learning rate (--lr), a longer warm-up, --clip-norm 10, "
            "or --precision float32"
            + (" (and --overwrite, or another --output)" if (self.folder / LAST).exists() else ""),
        )

    def _seconds_left(self) -> float:
        """Guess from the time that the steps of this part of the run took, validations included."""
        spent = time.monotonic() - self._began
        return spent / max(1, self._steps_here) * (self.total_steps - self.record.step)


def _no_images(last: Path) -> RuntimeFailedError:
    hint = "prepare images in fewer processes: --workers 0"
    if last.exists():
        hint = f"go on from what was saved, with fewer of them: --resume {last} --workers 0"
    return RuntimeFailedError(
        "a process that prepares images was ended from outside, for want of memory perhaps",
        hint=hint,
    )


def best_of(history: Sequence[EpochRecord]) -> EpochRecord | None:
    """Return the first epoch with the highest mAP; None where nobody measured."""
    measured = [record for record in history if not math.isnan(record.mean_ap)]
    return max(measured, key=lambda record: record.mean_ap, default=None)
