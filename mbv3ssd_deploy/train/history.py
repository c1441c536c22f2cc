"""The history of a run, epoch by epoch: as a table, as curves and for TensorBoard."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mbv3ssd_deploy.charts import Line, Panel, render_curves
from mbv3ssd_deploy.io.files import publish_files

TABLE, CHART = "history.csv", "history.png"
_BOARD = "tensorboard"
EpochT = TypeVar("EpochT", "EpochRecord", "BackboneEpoch")


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The result of an epoch of a detector's training.

    Attributes:
        epoch: from 1.
        step: the number of steps made by its end.
        seconds: its duration, validation included.
        lr: the learning rate of the heads at its end.
        localisation: smooth L1 per matched prior, the mean of the steps.
        classification: cross-entropy per matched prior, the mean of the steps.
        matched: matched priors per image, the mean.
        mean_ap: VOC07 mAP at IoU 0.5 on the validation images; NaN without validation.
    """

    epoch: int
    step: int
    seconds: float
    lr: float
    localisation: float
    classification: float
    matched: float
    mean_ap: float = math.nan

    @property
    def loss(self) -> float:
        """The sum of both losses."""
        return self.localisation + self.classification

    @property
    def score(self) -> float:
        """The mAP."""
        return self.mean_ap


@dataclass(frozen=True, slots=True)
class BackboneEpoch:
    """The result of an epoch of a classifier's training.

    Attributes:
        epoch: from 1.
        seconds: its duration, validation included.
        lr: the learning rate at its end.
        loss: cross-entropy, the mean of the steps.
        top1: share of the validation images whose class has the highest score; NaN
            without validation.
        top5: share whose class is among the best five; NaN for five classes or fewer.
    """

    epoch: int
    seconds: float
    lr: float
    loss: float
    top1: float = math.nan
    top5: float = math.nan

    @property
    def score(self) -> float:
        """The accuracy."""
        return self.top1


def best_epoch(history: Sequence[EpochT]) -> EpochT | None:
    """Return the first epoch with the highest score; None if there was no validation."""
    measured = [record for record in history if not math.isnan(record.score)]
    return max(measured, key=lambda record: record.score, default=None)


class Curves(NamedTuple):
    """A panel of a chart: label of each curve -> the field of the records that it shows."""

    title: str
    y_label: str
    fields: Mapping[str, str]
    y_limits: tuple[float, float] | None = None


DETECTOR_CURVES = (
    Curves(
        "loss by matched prior",
        "loss",
        {"boxes": "localisation", "classes": "classification", "both": "loss"},
    ),
    Curves("mAP50 (VOC07) on the validation images", "mAP", {"VOC07 mAP50": "mean_ap"}, (0.0, 1.0)),
    Curves("learning rate", "learning rate", {"heads": "lr"}),
)
BACKBONE_CURVES = (
    Curves("cross-entropy", "loss", {"training": "loss"}),
    Curves(
        "accuracy on the validation images", "share", {"top 1": "top1", "top 5": "top5"}, (0.0, 1.0)
    ),
)
_TAGS = {
    "localisation": "loss/boxes",
    "classification": "loss/classes",
    "loss": "loss",
    "lr": "learning rate",
    "mean_ap": "mAP50",
    "top1": "top 1",
    "top5": "top 5",
}
"""Fields of either kind of record -> names of TensorBoard's events."""


def write_history(
    folder: Path, history: Sequence[Any], curves: Sequence[Curves]
) -> tuple[Path, Path]:
    """Write the table and the curves of a run into `folder`; return their paths.

    Raises:
        OutputError: no space or no permission.
        ValueError: there is no epoch yet.
    """
    panels = [panel for one in curves if (panel := _panel(one, history)) is not None]
    files = {TABLE: render_table(history).encode(), CHART: render_curves(panels)}
    publish_files(folder, files)
    return folder / TABLE, folder / CHART


def render_table(records: Sequence[Any]) -> str:
    """Return dataclasses of one kind as CSV, one line each; NaN becomes an empty cell."""
    names = [field.name for field in dataclasses.fields(records[0])] if records else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(getattr(one, name)) for name in names] for one in records])
    return text.getvalue()


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def _panel(curves: Curves, history: Sequence[Any]) -> Panel | None:
    """Return the panel without what was not measured; None if nothing is left."""
    lines = []
    for label, field in curves.fields.items():
        measured = [one for one in history if not math.isnan(getattr(one, field))]
        epochs = [float(one.epoch) for one in measured]
        if measured:
            lines.append(Line(label, epochs, [getattr(one, field) for one in measured]))
    return Panel(curves.title, "epoch", curves.y_label, lines, curves.y_limits) if lines else None


class Board:
    """Writes every epoch's numbers as TensorBoard events into `folder / "tensorboard"`.

    It begins after `step`: later events of an interrupted run are hidden. Without TensorBoard, this
    raises ImportError.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # takes a second, which users without TensorBoard do not spend
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._writer: Any = SummaryWriter(str(folder / _BOARD), purge_step=step or None)

    def add(self, record: EpochRecord | BackboneEpoch, step: int) -> None:
        """Add an epoch that ended after `step`; NaN is left out."""
        values = dataclasses.asdict(record)
        for field, tag in _TAGS.items():
            if not math.isnan(values.get(field, math.nan)):
                self._writer.add_scalar(tag, values[field], step)
        self._writer.flush()


def board_if_installed(folder: Path, step: int) -> Board | None:
    """Return a board, or None where TensorBoard is not installed."""
    try:
        return Board(folder, step)
    except ImportError:
        return None
