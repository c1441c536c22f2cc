"""What `eval` shows: a table of runtimes, one of classes, and what is to be known of both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mbv3ssd_deploy.cli.output import Output, size_format

if TYPE_CHECKING:
    from mbv3ssd_deploy.evaluate.report import EvaluationReport, RuntimeRow

_METRICS = {
    "voc07": "VOC07, 11 points, IoU 0.5",
    "voc": "VOC, area under the curve, IoU 0.5",
    "coco": "COCO, IoU 0.5 to 0.95",
}
_SIZES = ("small", "medium", "large")
_CUT = 1.0
"""From so many points on it is worth a sentence that DetectionOutput loses some."""


def show_evaluated(report: EvaluationReport, out: Output) -> None:
    """Print the tables, then what a user should know."""
    for one in report.left_out:
        out.note(f"skipped {one.image}: {one.reason}")
    for line in report.notices:
        out.note(f"notice: {line}")
    for line in report.problems:
        out.detail(f"  {line}")
    out.result(
        f"{report.model}: {report.images} images, {report.reference.ap.truths} objects, "
        f"{report.data}"
    )
    _show_runtimes(report, out)
    _show_classes(report, out)
    for row in report.rows:
        out.result(f"  {row.name}: {row.title}; {row.ran}")
    out.result(
        f"mAP: {_METRICS[report.protocol]}, by the family's own decode rules from a score of "
        f"{report.score_threshold:g} on; drop: points of 100 below {report.reference.name}"
    )
    out.result(
        "ms: the mean of all images in the runtime alone, one after the other, without reading, "
        "resizing and decoding; PyTorch and ONNX Runtime on as many threads as they like, ncnn on "
        "one and with its DetectionOutput: `bench` compares speed"
    )
    for row in report.rows:
        _show_cut(row, out)
    for line in report.diagnosis:
        out.result(line)


def _show_runtimes(report: EvaluationReport, out: Output) -> None:
    deployed = any(row.deployed for row in report.rows)
    ious = [iou for iou in (0.5, 0.75) if len(report.reference.ap.by_iou) > 1]
    header = ["runtime", "mAP", *(f"AP{100 * iou:.0f}" for iou in ious), *_SIZES, "drop"]
    header += ["detection_out"] if deployed else []
    rows = []
    for row in report.rows:
        cells = [row.name, _number(row.ap.mean)]
        cells += [_number(row.ap.by_iou[iou]) for iou in ious]
        cells += [_number(row.ap.by_size[size]) for size in _SIZES]
        cells += ["" if row is report.reference else f"{report.drop(row):+.2f}"]
        if deployed:
            cells += ["" if row.deployed is None else _number(row.deployed.mean)]
        rows.append((*cells, f"{row.ms_per_image:.1f}", size_format(row.file_bytes)))
    out.table("", (*header, "ms", "size"), rows)


def _show_classes(report: EvaluationReport, out: Output) -> None:
    rows = []
    for index, one in enumerate(report.reference.ap.per_class):
        cells = [_number(row.ap.per_class[index].ap) for row in report.rows]
        rows.append((report.class_names[one.label], str(one.truths), *cells))
    header = ("class", "objects", *(row.name for row in report.rows))
    out.table("Average precision by class", header, rows)


def _show_cut(row: RuntimeRow, out: Output) -> None:
    if row.deployed is None:
        return
    lost = 100 * (row.ap.mean - row.deployed.mean)
    if lost > _CUT:
        out.result(
            f"{row.name}: DetectionOutput's boxes are {lost:.1f} points below its heads by the "
            "family's rules: its score threshold or top-k cut the curve "
            "(`to-ncnn --conf 0.01` leaves it whole)"
        )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
