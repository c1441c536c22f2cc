"""`train-backbone`: a backbone learns to classify before it learns to detect."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli.load_flags import EXISTING_FILE, ImageSize
from mbv3ssd_deploy.cli.output import Output, output_options
from mbv3ssd_deploy.cli.train import EXIT_INTERRUPTED, SPLITS
from mbv3ssd_deploy.cli.train_words import duration

if TYPE_CHECKING:
    from mbv3ssd_deploy.train.classifier_request import ClassifierEpoch
    from mbv3ssd_deploy.train.classifier_run import BackboneReport


@click.command(name="train-backbone", short_help="A backbone learns to classify before it detects.")
@click.option(
    "--data",
    metavar="SOURCE",
    required=True,
    help="folder:ROOT with a folder a class; or voc:..., coco:..., yolo:..., cut into objects.",
)
@click.option(
    "-o",
    "--output",
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("backbone"),
    show_default=True,
    help="The folder of all files.",
)
@click.option("--split", type=click.Choice(SPLITS), default="train", show_default=True)
@click.option("--val-split", type=click.Choice(SPLITS), default="val", show_default=True)
@click.option("--arch", type=click.Choice(("large", "small")), default="small", show_default=True)
@click.option("--width", type=click.FloatRange(min=0.1, max=4.0), default=1.0, show_default=True)
@click.option("--imgsz", "image_size", type=ImageSize(), default="224", show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="How often every image is seen.")
@click.option("--batch", type=click.IntRange(min=2), help="Images a step.")
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--label-smoothing", type=click.FloatRange(0, 0.9), default=0.1, show_default=True)
@click.option("--dropout", type=click.FloatRange(0, 0.9), default=0.2, show_default=True)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Stop after so many epochs without improvement; 0: never.",
)
@click.option("--initial", type=EXISTING_FILE, help="Weights to start from.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=0), help="Processes that prepare images.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of PyTorch on the CPU.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--overwrite", is_flag=True, help="Replace a backbone that is there already.")
@output_options
def command(*, out: Output, **flags: Any) -> None:  # noqa: ANN401 -- values of all flags
    """Train a MobileNetV3 classifier; its backbone is where `train --backbone` starts.

    Writes backbone.pth (the one with the highest accuracy on the validation images), history.csv
    and history.png. Arch and width must be those of the detector to come.

    \b
        mbv3ssd-deploy train-backbone --data folder:flowers
        mbv3ssd-deploy train-backbone --data voc:my-photos --imgsz 96
        mbv3ssd-deploy train --data voc:my-photos --backbone backbone/backbone.pth
    """
    from mbv3ssd_deploy.core.spec import Backbone
    from mbv3ssd_deploy.data.dataset import Split
    from mbv3ssd_deploy.train.classifier_request import (
        BACKBONE_RECIPE,
        BackboneObserver,
        BackboneRequest,
    )
    from mbv3ssd_deploy.train.classifier_run import train_backbone

    recipe = BACKBONE_RECIPE.changed(**{key: flags.pop(key) for key in ("epochs", "batch", "lr")})
    request = BackboneRequest(
        output=flags.pop("folder"),
        train_split=Split(flags.pop("split")),
        val_split=Split(flags.pop("val_split")),
        backbone=Backbone(flags.pop("arch")),
        width_mult=flags.pop("width"),
        recipe=recipe,
        **flags,
    )
    with out.progress() as progress:
        observer = BackboneObserver(
            progress=progress,
            note=lambda text: out.note(f"notice: {text}"),
            detail=lambda text: out.detail(f"  {text}"),
            epoch_done=lambda epoch, left: out.note(_words_on(epoch, left)),
        )
        report = train_backbone(request, observer)
    out.json(_json_from(report))
    _show(report, request, out)
    if report.interrupted:
        click.get_current_context().exit(EXIT_INTERRUPTED)


def _words_on(epoch: ClassifierEpoch, seconds_left: float) -> str:
    top5 = "" if math.isnan(epoch.top5) else f"  top-5 {epoch.top5:.3f}"
    left = f"  {duration(seconds_left)} left" if seconds_left > 0 else ""
    return (
        f"epoch {epoch.epoch:>3}  loss {epoch.loss:.3f}  top-1 {epoch.top1:.3f}{top5}"
        f"  {duration(epoch.seconds)}{left}"
    )


def _show(report: BackboneReport, request: Any, out: Output) -> None:  # noqa: ANN401
    if report.best is not None:
        out.result(f"best top-1: {report.best.top1:.4f} after epoch {report.best.epoch}")
    out.written(report.files)
    if report.interrupted:
        out.note(_words_on_interruption(report))
    if report.best is not None:
        arch, width = request.backbone, request.width_mult
        words = ["--arch", str(arch), *([] if width == 1.0 else ["--width", f"{width:g}"])]
        data = "SOURCE" if request.data.startswith("folder:") else request.data
        out.next_step("train", "--data", data, *words, "--backbone", report.files[0])


def _words_on_interruption(report: BackboneReport) -> str:
    if report.best is None:
        return "stopped before the end of the first epoch: there is no backbone yet"
    kept = shlex.quote(str(report.files[0]))
    return (
        f"stopped after epoch {len(report.history)}: the best backbone so far is kept; "
        f"`--initial {kept}` starts another training from it"
    )


def _json_from(report: BackboneReport) -> dict[str, Any]:
    best = report.best
    return {
        "interrupted": report.interrupted,
        "epochs": len(report.history),
        "classes": list(report.spec.class_names),
        "best": None if best is None else {"epoch": best.epoch, "top1": best.top1},
        "files": [str(path) for path in report.files],
    }
