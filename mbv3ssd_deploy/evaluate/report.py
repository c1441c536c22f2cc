"""What an evaluation found: rows of runtimes, as a record, as JSON and as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbv3ssd_deploy.charts import Line, Panel, render_curves
from mbv3ssd_deploy.core.average_precision import ApReport, ClassAp, Protocol

REFERENCE = "torch"
"""The runtime that the others are compared with, if it is among them."""
_LINES = 10
"""Number of classes per panel; more cannot be distinguished."""


@dataclass(frozen=True, slots=True)
class LeftOutImage:
    """An image that could not be read, and why; its objects do not count."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class RuntimeRow:
    """One runtime's result.

    Attributes:
        name: as in `--runtimes`.
        title: which weights, computed how.
        ran: what really ran.
        ap: by the family's own decode rules, from a low score on.
        deployed: of the boxes that the network's own post-processing gave; None where it has none.
        ms_per_image: time inside the runtime; ncnn's with its DetectionOutput.
        file_bytes: the size of the model's files.
    """

    name: str
    title: str
    ran: str
    ap: ApReport
    deployed: ApReport | None
    ms_per_image: float
    file_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """How well a detector finds what is in a data set, on each runtime.

    Attributes:
        data: what was read, as the user wrote it.
        model: the detector's name.
        class_names: the data's, background first; the labels of all reports.
        images: how many were used.
        left_out: those that could not be.
        protocol: whose rules.
        score_threshold: from which on boxes were judged.
        rows: in the order asked for.
        notices: what a user should know of the classes.
        seconds: for everything.
        diagnosis: what would fix a low mAP; may be empty.
        problems: what was left out of the data, a line each.
    """

    data: str
    model: str
    class_names: tuple[str, ...]
    images: int
    left_out: tuple[LeftOutImage, ...]
    protocol: Protocol
    score_threshold: float
    rows: tuple[RuntimeRow, ...]
    notices: tuple[str, ...]
    seconds: float
    diagnosis: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def reference(self) -> RuntimeRow:
        """PyTorch's row, or the first where it is not among them."""
        return next((row for row in self.rows if row.name == REFERENCE), self.rows[0])

    def drop(self, row: RuntimeRow) -> float:
        """Return how far `row` is below the reference, in points of mAP (100 points are 1)."""
        return 100 * (self.reference.ap.mean - row.ap.mean)

    def worst_drop(self) -> tuple[float, RuntimeRow]:
        """Return the largest drop, and the row that has it; of the reference where it is alone."""
        others = [row for row in self.rows if row is not self.reference] or [self.reference]
        return max(((self.drop(row), row) for row in others), key=lambda pair: pair[0])


def json_from_report(report: EvaluationReport) -> dict[str, Any]:
    """Return the report as plain JSON; a precision that is not defined is null."""
    names = report.class_names
    return {
        "data": report.data,
        "model": report.model,
        "images": report.images,
        "left_out": [{"image": one.image, "reason": one.reason} for one in report.left_out],
        "metric": report.protocol.value,
        "score_threshold": report.score_threshold,
        "reference": report.reference.name,
        "classes": list(names[1:]),
        "runtimes": [_json_from_row(report, row) for row in report.rows],
        "notices": list(report.notices),
        "problems": list(report.problems),
        "diagnosis": list(report.diagnosis),
        "seconds": report.seconds,
    }


def _json_from_row(report: EvaluationReport, row: RuntimeRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "ran": row.ran,
        **_json_from_ap(row.ap, report.class_names),
        "drop_points": report.drop(row),
        "ms_per_image": row.ms_per_image,
        "file_bytes": row.file_bytes,
        "detection_out": None
        if row.deployed is None
        else _json_from_ap(row.deployed, report.class_names),
    }


def _json_from_ap(ap: ApReport, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "map": _defined(ap.mean),
        "map_by_iou": _table(ap.by_iou),
        "map_by_size": _table(ap.by_size),
        "average_recall": _table(ap.average_recall),
        "per_class": [
            {
                "name": names[one.label],
                "ap": _defined(one.ap),
                "truths": one.truths,
                "detections": one.detections,
                "ap_by_size": _table(one.by_size),
            }
            for one in ap.per_class
        ],
    }


def _table(values: Mapping[Any, float]) -> dict[str, float | None]:
    return {str(key): _defined(value) for key, value in values.items()}


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def render_report_curves(report: EvaluationReport) -> bytes:
    """Return a PNG of the precision-recall curves at IoU 0.5: one panel a runtime."""
    return render_curves([_panel(report, row) for row in report.rows])


def _panel(report: EvaluationReport, row: RuntimeRow) -> Panel:
    counted = [one for one in row.ap.per_class if one.truths]
    shown = sorted(counted, key=lambda one: -one.truths)[:_LINES]
    some = f", {len(shown)} of {len(counted)} classes" if len(shown) < len(counted) else ""
    return Panel(
        title=f"{row.name}: mAP {row.ap.mean:.4f}{some}",
        x_label="recall",
        y_label="precision",
        lines=[_line(report.class_names[one.label], one) for one in shown],
        y_limits=(0.0, 1.02),
    )


def _line(name: str, one: ClassAp) -> Line:
    return Line(f"{name} {one.ap:.3f}", one.curve.recall.tolist(), one.curve.precision.tolist())
