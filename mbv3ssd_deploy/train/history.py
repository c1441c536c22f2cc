"""How a run went, epoch by epoch: as a table and as curves."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbv3ssd_deploy.charts import Line, Panel, render_curves
from mbv3ssd_deploy.io.files import publish_files

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TABLE, CHART = "history.csv", "history.png"
PLAN = "run.json"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What an epoch came to.

    Attributes:
        epoch: from 1.
        step: how many steps were made by its end.
        seconds: it took, validation included.
        lr: the learning rate of the heads at its end.
        localisation: smooth L1 by matched prior, the mean of the steps.
        classification: cross-entropy by matched prior, the mean of the steps.
        matched: priors matched in an image, the mean.
        mean_ap: VOC07 mAP at IoU 0.5 on the validation images; NaN where nobody measured.
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
        """Both losses together."""
        return self.localisation + self.classification


def write_history(folder: Path, history: Sequence[EpochRecord]) -> tuple[Path, Path]:
    """Write the table and the curves of a run into `folder`; return their paths.

    Raises:
        OutputError: no space or no permission.
        ValueError: there is no epoch yet.
    """
    return write_table_and_chart(folder, history, _panels(history))


def write_table_and_chart(
    folder: Path, records: Sequence[DataclassInstance], panels: Sequence[Panel]
) -> tuple[Path, Path]:
    """Write records as CSV and panels as PNG into `folder`, together; return their paths.

    Raises:
        OutputError: no space or no permission.
        ValueError: there is no panel.
    """
    table, chart = render_table(records).encode(), render_curves(panels)
    publish_files(folder, {TABLE: table, CHART: chart})
    return folder / TABLE, folder / CHART


def render_table(records: Sequence[DataclassInstance]) -> str:
    """Return records of one kind as CSV, one line each; what nobody measured (NaN) is empty."""
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


def _panels(history: Sequence[EpochRecord]) -> list[Panel]:
    epochs = [float(record.epoch) for record in history]
    losses = [
        Line("boxes", epochs, [record.localisation for record in history]),
        Line("classes", epochs, [record.classification for record in history]),
        Line("both", epochs, [record.loss for record in history]),
    ]
    rates = [Line("heads", epochs, [record.lr for record in history])]
    panels = [
        Panel("loss by matched prior", "epoch", "loss", losses),
        Panel("learning rate", "epoch", "learning rate", rates),
    ]
    measured = [record for record in history if not math.isnan(record.mean_ap)]
    if measured:
        line = Line(
            "VOC07 mAP50",
            [float(record.epoch) for record in measured],
            [record.mean_ap for record in measured],
        )
        title = "mAP50 (VOC07) on the validation images"
        panels.insert(1, Panel(title, "epoch", "mAP", [line], (0.0, 1.0)))
    return panels
