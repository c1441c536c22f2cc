"""`train-backbone`: a backbone learns to classify before it learns to detect."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli import train
from mbv3ssd_deploy.cli.flags import EXISTING_FILE
from mbv3ssd_deploy.cli.output import Output, output_options

if TYPE_CHECKING:
    from mbv3ssd_deploy.train.history import BackboneEpoch
    from mbv3ssd_deploy.train.run import TrainReport


@click.command(name="train-backbone", short_help="Train a backbone by classification.")
@click.option(
    "--data",
    metavar="SOURCE",
    help="folder:ROOT with a folder for each class; or voc:..., coco:..., yolo:..., whose objects "
    "are cut out.",
)
@train.OUTPUT(help="Folder of the run.  [default: backbone, or the folder of --resume]")
@train.SPLIT
@train.VAL_SPLIT
@train.ARCH
@train.WIDTH
@train.IMGSZ
@train.EPOCHS
@train.BATCH
@train.LR
@click.option(
    "--label-smoothing", type=click.FloatRange(0, 0.9), help="Label smoothing.  [default: 0.1]"
)
@click.option("--dropout", type=click.FloatRange(0, 0.9), help="Dropout.  [default: 0.2]")
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    help="Stop after so many epochs without improvement; 0 for never.  [default: 20]",
)
@click.option("--initial", type=EXISTING_FILE, help="Weights to start from.")
@train.RESUME
@train.SEED
@train.WORKERS
@train.THREADS
@train.DEVICE
@train.OVERWRITE
@output_options
def command(*, out: Output, initial: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Train a MobileNetV3 classifier, from whose backbone `train --backbone` starts.

    Writes backbone.pth (the one with the highest accuracy on the validation images), last.pth (to
    resume from), history.csv and history.png. Ctrl-C saves, and prints how to resume. By default a
    Small of width 1 at 224 x 224; --arch and --width must be those of the detector.

    \b
        mbv3ssd-deploy train-backbone --data folder:flowers
        mbv3ssd-deploy train-backbone --data voc:my-photos --imgsz 96
        mbv3ssd-deploy train-backbone --resume backbone/last.pth
        mbv3ssd-deploy train --data voc:my-photos --backbone backbone/backbone.pth
    """
    from mbv3ssd_deploy.train.run import train_backbone

    request = train.request_from_flags("backbone", backbone_file=initial, **flags)
    report, out = train.run_training(train_backbone, request, out, _epoch_format)
    _show_report(report, out)
    train.end(report, "train-backbone", "--initial", out)


def _epoch_format(epoch: BackboneEpoch, seconds_left: float) -> str:
    top5 = "" if math.isnan(epoch.top5) else f"  top-5 {epoch.top5:.3f}"
    return (
        f"epoch {epoch.epoch:>3}  loss {epoch.loss:.3f}  top-1 {epoch.top1:.3f}{top5}"
        f"{train.times_format(epoch, seconds_left)}"
    )


def _show_report(report: TrainReport, out: Output) -> None:
    from mbv3ssd_deploy.train.backbone import BACKBONE_FILE

    best, names = report.best, list(report.spec.class_names)
    accuracy = None if best is None else {"epoch": best.epoch, "top1": best.top1}
    out.json(train.json_from_run(report) | {"best": accuracy, "classes": names})
    if best is not None:
        out.result(f"best top-1: {best.top1:.4f} after epoch {best.epoch}")
    out.written(report.files)
    if best is None:
        out.note("there is no backbone yet: the first epoch has not ended")
        return
    arch, data = report.spec.arch, report.record.settings.data
    width = [] if arch.width_mult == 1.0 else ["--width", f"{arch.width_mult:g}"]
    source = "SOURCE" if data.startswith("folder:") else data
    words = ("--data", source, "--arch", str(arch.backbone), *width)
    out.next_step("train", *words, "--backbone", report.folder / BACKBONE_FILE)
