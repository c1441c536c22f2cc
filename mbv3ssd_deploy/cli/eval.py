"""`eval`: average precision on a data set, on every runtime."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbv3ssd_deploy.cli.flags import load_flags
from mbv3ssd_deploy.cli.output import Output, output_options, size_format

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadOptions
    from mbv3ssd_deploy.evaluate.report import EvaluationReport, RuntimeRow


@click.command(name="eval", short_help="Measure mAP on a data set, on every runtime.")
@click.argument("source", type=click.Path(path_type=Path), default=Path("deploy"))
@click.option(
    "--data",
    metavar="SOURCE",
    required=True,
    help="voc:ROOT[,ROOT...], coco:ANNOTATIONS.json,IMAGES or yolo:data.yaml.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "trainval", "test"]),
    default="test",
    show_default=True,
    help="Split to measure on.",
)
@click.option(
    "--runtimes",
    metavar="NAME[,NAME...]",
    help="Any of torch, torch-cuda, onnx, onnx-cuda, ncnn (float32, exact), ncnn-fp16 (as shipped) "
    "and ncnn-bf16.  [default: those of torch, onnx, ncnn, ncnn-fp16 that the bundle has]",
)
@click.option(
    "--metric",
    type=click.Choice(["voc07", "voc", "coco"]),
    help="VOC's 11 points, VOC's area under the curve, or COCO's.  "
    "[default: voc07 on voc:, coco on coco:, voc on yolo:]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N images only.")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0.0),
    metavar="POINTS",
    help="Exit with 1 if an mAP is over POINTS (of 100) below PyTorch's, or PyTorch's is near 0.",
)
@click.option(
    "--curves",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write precision-recall curves to this PNG.",
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="The checkpoint, if it was moved."
)
@load_flags
@output_options
def command(
    *,
    source: Path,
    data: str,
    split: str,
    runtimes: str | None,
    metric: str | None,
    limit: int | None,
    max_drop: float | None,
    curves: Path | None,
    checkpoint: Path | None,
    options: LoadOptions,
    out: Output,
) -> None:
    """Measure the mAP of SOURCE, a bundle (default: deploy) or a checkpoint, on annotated images.

    All runtimes are measured by the family's own rules on their raw heads, from a score of 0.01 on;
    the boxes of ncnn's DetectionOutput are measured as well. A checkpoint runs in PyTorch only; the
    options from --family to --spec apply to it.

    \b
        mbv3ssd-deploy eval --data voc:my-photos
        mbv3ssd-deploy eval deploy --data voc:my-photos --runtimes torch,ncnn-fp16 --max-drop 0.3
        mbv3ssd-deploy eval model.pth --data coco:val.json,val2017 --limit 500 --json
    """
    from mbv3ssd_deploy.core.average_precision import Protocol
    from mbv3ssd_deploy.data.dataset import Split
    from mbv3ssd_deploy.evaluate.report import json_from_report, render_report_curves
    from mbv3ssd_deploy.evaluate.run import evaluate_files
    from mbv3ssd_deploy.io.files import write_file

    names = _runtime_names(runtimes, gate=max_drop is not None)
    _check_flags(source, curves, options)
    with out.progress() as progress:
        report = evaluate_files(
            source,
            data,
            Split(split),
            runtimes=names,
            protocol=None if metric is None else Protocol(metric),
            checkpoint=checkpoint,
            options=options,
            limit=limit,
            progress=progress,
        )
    gate = {}
    if max_drop is not None:
        gate = {"max_drop": max_drop, "verdict": _verdict(report, max_drop)[0]}
    out.json(json_from_report(report) | gate)
    show_evaluated(report, out)
    if curves is not None:  # last: the results are already printed
        write_file(curves, render_report_curves(report))
        out.written([curves])
    if max_drop is not None:
        _judge(report, max_drop, out)
    if len(report.rows) > 1:
        out.next_step("detect", source, "PHOTOS/")


def _runtime_names(typed: str | None, *, gate: bool) -> tuple[str, ...]:
    from mbv3ssd_deploy.runtimes.open_model import MODELS

    names = tuple(dict.fromkeys(name.strip() for name in (typed or "").split(",") if name.strip()))
    strange = [name for name in names if name not in MODELS]
    if strange or (typed is not None and not names):
        raise click.UsageError(
            f"--runtimes {typed!r}: {', '.join(map(repr, strange)) or 'nothing'} is not one of "
            f"{', '.join(MODELS)}"
        )
    if gate and names and ("torch" not in names or len(names) == 1):
        raise click.UsageError(
            "--max-drop compares with PyTorch: --runtimes needs torch and another one"
        )
    return names


def _check_flags(source: Path, curves: Path | None, options: LoadOptions) -> None:
    from mbv3ssd_deploy.checkpoint.options import LoadOptions
    from mbv3ssd_deploy.evaluate.run import is_checkpoint

    if not is_checkpoint(source) and options != LoadOptions():
        raise click.UsageError(
            "a bundle records how its checkpoint is read: the options from --family to --spec are "
            "for a checkpoint file"
        )
    if curves is not None and curves.suffix.lower() != ".png":
        raise click.UsageError(f"--curves writes a PNG: {curves} does not end in .png")


def _verdict(report: EvaluationReport, max_drop: float) -> tuple[str, str]:
    """Return the verdict in a word, and why."""
    from mbv3ssd_deploy.evaluate.diagnosis import NEAR_ZERO

    if not _has_both(report):
        return "UNPROVEN", "PyTorch and another runtime are needed"
    if report.reference.ap.mean < NEAR_ZERO:
        return "UNPROVEN", (
            f"PyTorch's own mAP is {report.reference.ap.mean:.4f}; without detections, none can be "
            "lost"
        )
    drop, row = report.worst_drop()
    verdict = "PASS" if drop <= max_drop else "FAIL"
    return verdict, (
        f"the largest drop is {drop:.2f} points, of {row.name}; {max_drop:g} are allowed"
    )


def _has_both(report: EvaluationReport) -> bool:
    from mbv3ssd_deploy.evaluate.report import REFERENCE

    return report.reference.name == REFERENCE and len(report.rows) > 1


def _judge(report: EvaluationReport, max_drop: float, out: Output) -> None:
    """Print whether the runtimes are within the limit.

    Raises:
        BundleError: PyTorch is not among them.
        Exit: with 1, one does not, or there is nothing to lose.
    """
    from mbv3ssd_deploy.errors import BundleError

    if not _has_both(report):
        raise BundleError(
            "--max-drop compares other runtimes with PyTorch; one of both is missing",
            hint="see the reason above; --checkpoint FILE names a checkpoint that was moved",
        )
    verdict, why = _verdict(report, max_drop)
    out.result(f"{verdict}: {why}")
    if verdict != "PASS":
        raise click.exceptions.Exit(1)


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
        "resizing and decoding; PyTorch and ONNX Runtime on as many threads as they choose, ncnn "
        "on one and with its DetectionOutput: `bench` compares speed"
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
