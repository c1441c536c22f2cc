"""`train`: annotated images become a detector; and what `train-backbone` has in common with it."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli.flags import EXISTING_FILE, ImageSize, read_labels
from mbv3ssd_deploy.cli.output import Output, output_options

if TYPE_CHECKING:
    from mbv3ssd_deploy.train.config import Observer, TrainRequest
    from mbv3ssd_deploy.train.history import EpochRecord
    from mbv3ssd_deploy.train.run import TrainReport

EXIT_INTERRUPTED = 130
SPLITS = click.Choice(("train", "val", "trainval", "test"))
_COUNT = click.IntRange(min=1)
_COUNT_OR_0 = click.IntRange(min=0)


class Shares(click.ParamType["tuple[float, ...]"]):
    """Numbers separated by commas."""

    name = "shares"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers; the recipe checks their values."""
        try:
            return tuple(float(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of shares such as 0.6,0.85", param, ctx)


_FOLDER = click.Path(file_okay=False, path_type=Path)
OUTPUT = functools.partial(click.option, "-o", "--output", "--out", "folder", type=_FOLDER)
SPLIT = click.option("--split", type=SPLITS, help="Split to train on.  [default: train]")
VAL_SPLIT = click.option("--val-split", type=SPLITS, help="Split to validate on.  [default: val]")
ARCH = click.option("--arch", type=click.Choice(("large", "small")), help="Size of MobileNetV3.")
WIDTH = click.option(
    "--width", type=click.FloatRange(0.1, 4), help="Width multiplier.  [default: 1]"
)
IMGSZ = click.option("--imgsz", "image_size", type=ImageSize(), metavar="N|HxW", help="Input size.")
EPOCHS = click.option("--epochs", type=_COUNT, help="Number of epochs.")
BATCH = click.option("--batch", type=click.IntRange(min=2), help="Batch size, over all processes.")
LR = click.option("--lr", type=float, help="Learning rate.")
RESUME = click.option("--resume", type=EXISTING_FILE, help="last.pth of the run to resume.")
SEED = click.option("--seed", type=_COUNT_OR_0, help="Random seed.  [default: 0]")
WORKERS = click.option("--workers", type=_COUNT_OR_0, help="Processes that prepare images.")
THREADS = click.option("--threads", type=_COUNT, help="PyTorch's threads on the CPU.")
DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1."
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace a run in the folder.")


@click.command(name="train", short_help="Train a detector on annotated images.")
@click.option(
    "--data",
    metavar="SOURCE",
    help="voc:ROOT[,ROOT...], coco:ANNOTATIONS.json,IMAGES or yolo:data.yaml.",
)
@OUTPUT(help="Folder of the run.  [default: run, or the folder of --resume]")
@SPLIT
@click.option("--val-data", metavar="SOURCE", help="Data to validate on, if not --data.")
@VAL_SPLIT
@click.option("--labels", type=EXISTING_FILE, help="Class names, one per line; drops all others.")
@click.option("--recipe", metavar="NAME", help="Named recipe (`--recipe list` shows them).")
@ARCH
@WIDTH
@IMGSZ
@click.option(
    "--priors",
    type=click.Choice(("auto", "default")),
    default="auto",
    show_default=True,
    help="`auto` fits the sizes of the priors to the data where the standard ones fit poorly.",
)
@EPOCHS
@BATCH
@LR
@click.option(
    "--backbone-lr", type=float, help="Learning rate of the backbone, as a share of --lr."
)
@click.option("--extras-lr", type=float, help="Learning rate of the extras, as a share of --lr.")
@click.option("--optimiser", "algorithm", type=click.Choice(("sgd", "adamw")), help="Optimiser.")
@click.option("--weight-decay", type=float, help="Weight decay of convolutions.")
@click.option("--warmup-epochs", type=float, help="Length of the warm-up, in epochs.")
@click.option(
    "--schedule",
    type=click.Choice(("cosine", "multistep")),
    help="How the learning rate falls after the warm-up.",
)
@click.option(
    "--milestones",
    type=Shares(),
    metavar="SHARE[,SHARE...]",
    help="When a multi-step rate falls to a tenth, as shares of the run: 0.6,0.85.",
)
@click.option("--clip-norm", type=float, help="Maximum norm of the gradient; 0 for no limit.")
@click.option("--ema-decay", type=float, help="Decay of the weights' moving average; 0 for none.")
@click.option(
    "--freeze",
    type=click.Choice(("nothing", "backbone", "all-but-heads")),
    help="Part that is not trained, its BatchNorm statistics included.",
)
@click.option(
    "--freeze-norms",
    is_flag=True,
    default=None,
    help="Keep all BatchNorm statistics: for batches of a few images, with --pretrained.",
)
@click.option("--vertical-flip", type=float, help="Probability of turning an image upside down.")
@click.option("--backbone", "backbone_file", type=EXISTING_FILE, help="Weights of the backbone.")
@click.option("--pretrained", type=EXISTING_FILE, help="Detector to start from, of any classes.")
@RESUME
@SEED
@WORKERS
@THREADS
@DEVICE
@click.option(
    "--precision",
    type=click.Choice(("auto", "float32", "bf16", "fp16")),
    help="Precision of convolutions; `auto` uses 16 bits on a GPU.",
)
@click.option("--val-every", "validate_every", type=_COUNT, help="Epochs between validations.")
@OVERWRITE
@output_options
def command(*, out: Output, labels: Path | None, priors: str, **flags: Any) -> None:  # noqa: ANN401
    """Train an SSDLite detector with a MobileNetV3 backbone on annotated images.

    Writes best.pth (the snapshot with the highest mAP on the validation images), last.pth (to
    resume from), history.csv and history.png. Ctrl-C saves, and prints how to resume.

    \b
        mbv3ssd-deploy train --data voc:my-photos
        mbv3ssd-deploy train --data voc:my-photos --arch large --imgsz 320 --epochs 300
        mbv3ssd-deploy train --resume run/last.pth
        torchrun --nproc-per-node 2 -m mbv3ssd_deploy train --data voc:my-photos
    """
    if flags["recipe"] == "list":
        _show_recipes(out)
        return
    from mbv3ssd_deploy.train.run import train_detector

    flags |= {"class_names": _class_names(labels), "fit_priors": priors == "auto"}
    request = request_from_flags("run", **flags)
    report, out = run_training(train_detector, request, out, _epoch_format)
    _show_report(report, out)
    end(report, "train", "--pretrained", out)


def request_from_flags(default_folder: str, **flags: Any) -> TrainRequest:  # noqa: ANN401
    """Return what the flags ask for; those of a recipe's settings become its changes.

    Raises:
        UsageError: there is neither data nor a run to resume.
    """
    import dataclasses

    from mbv3ssd_deploy.core.spec import Backbone
    from mbv3ssd_deploy.data.dataset import Split
    from mbv3ssd_deploy.train.config import Precision, TrainRequest

    data, resume = flags["data"], flags["resume"]
    if data is None and resume is None:
        raise click.UsageError("Give --data SOURCE, or --resume RUN/last.pth to resume a run.")
    default = Path(default_folder) if resume is None else resume.parent
    values = {
        "output": flags.pop("folder") or default,
        "train_split": _as(Split, flags.pop("split")),
        "val_split": _as(Split, flags.pop("val_split")),
        "backbone": _as(Backbone, flags.pop("arch")),
        "width_mult": flags.pop("width"),
        "precision": _as(Precision, flags.pop("precision", None)),
    }
    names = {field.name for field in dataclasses.fields(TrainRequest)}
    values |= {name: flags.pop(name) for name in list(flags) if name in names}
    changes = {name: value for name, value in flags.items() if value is not None}
    return TrainRequest(changes=changes, **values)


def run_training(
    train: Callable[[TrainRequest, Observer], TrainReport],
    request: TrainRequest,
    out: Output,
    epoch_format: Callable[[Any, float], str],
) -> tuple[TrainReport, Output]:
    """Run a training and print its progress; return its report, and where to print that."""
    from mbv3ssd_deploy.train.config import Observer
    from mbv3ssd_deploy.train.process import world_from_environment

    if not world_from_environment().is_main:
        out = Output(verbosity=-1, as_json=False)  # of several processes, the first one prints
    with out.progress() as progress:
        observer = Observer(
            progress=progress,
            note=lambda text: out.note(f"notice: {text}"),
            detail=lambda text: out.detail(f"  {text}"),
            epoch_done=lambda record, left: out.note(epoch_format(record, left)),
        )
        return train(request, observer), out


def _epoch_format(record: EpochRecord, seconds_left: float) -> str:
    """Return an epoch in one line."""
    measured = "" if math.isnan(record.mean_ap) else f"  mAP50 {record.mean_ap:.3f}"
    return (
        f"epoch {record.epoch:>3}  loss {record.loss:.3f} (boxes {record.localisation:.3f}, "
        f"classes {record.classification:.3f}){measured}{times_format(record, seconds_left)}"
    )


def times_format(record: Any, seconds_left: float) -> str:  # noqa: ANN401 -- of either kind
    """Return the duration of an epoch, and the time left."""
    left = f"  {_duration(seconds_left)} left" if seconds_left > 0 else ""
    return f"  {_duration(record.seconds)}{left}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def end(report: TrainReport, command_name: str, initial_flag: str, out: Output) -> None:
    """Print how to resume an interrupted run, and exit with 130; or that a run had ended before."""
    from mbv3ssd_deploy.train.snapshot import LAST

    last = shlex.quote(str(report.folder / LAST))
    if not report.files:
        out.note(
            f"nothing is left to do: the run has ended after {len(report.record.history)} epochs; "
            f"to train longer, start again with {initial_flag} {last}"
        )
    if report.interrupted:
        out.note(f"stopped after step {report.record.step}; resume with:")
        out.note(f"  mbv3ssd-deploy {command_name} --resume {last}")
        click.get_current_context().exit(EXIT_INTERRUPTED)


def json_from_run(report: TrainReport) -> dict[str, Any]:
    """Return what both kinds of training report as JSON values."""
    from mbv3ssd_deploy.io.records import json_from_record

    record = report.record
    return {
        "interrupted": report.interrupted,
        "epochs": len(record.history),
        "steps": record.step,
        "recipe": json_from_record(record.recipe),
        "settings": json_from_record(record.settings),
        "files": [str(path) for path in report.files],
    }


def _show_recipes(out: Output) -> None:
    from mbv3ssd_deploy.io.records import json_from_record
    from mbv3ssd_deploy.train.config import RECIPES

    out.json({name: json_from_record(recipe) for name, recipe in RECIPES.items()})
    rows = []
    for recipe in RECIPES.values():
        numbers = map(str, (recipe.image_size, recipe.epochs, recipe.batch))
        steps = f"{recipe.algorithm} {recipe.lr:g}"
        rows.append((recipe.name, recipe.backbone, *numbers, steps, recipe.description))
    header = ("recipe", "arch", "imgsz", "epochs", "batch", "optimiser", "for")
    out.table("Recipes", header, rows)


def _show_report(report: TrainReport, out: Output) -> None:
    from mbv3ssd_deploy.train.detector import BEST
    from mbv3ssd_deploy.train.snapshot import LAST

    names, best, folder = report.spec.class_names, report.best, report.folder
    measured = [] if report.report is None else report.report.per_class
    aps = {names[one.label]: None if math.isnan(one.ap) else one.ap for one in measured}
    mean_ap = None if best is None else {"epoch": best.epoch, "mAP50": best.mean_ap}
    out.json(json_from_run(report) | {"best": mean_ap, "classes": aps})
    if best is not None:
        out.result(f"best mAP50 (VOC07): {best.mean_ap:.4f} after epoch {best.epoch}")
    rows = [
        (names[one.label], "-" if math.isnan(one.ap) else f"{one.ap:.4f}", str(one.truths))
        for one in measured
    ]
    title = f"Validation after epoch {len(report.record.history)}"
    out.table(title, ("class", "AP50", "objects"), rows)
    out.written(report.files)
    if not report.interrupted:
        out.next_step("export", folder / (BEST if (folder / BEST).exists() else LAST))


def _class_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    names = read_labels(path)
    return names if names[0].lower() == "background" else ("background", *names)


def _as(kind: Any, value: Any) -> Any:  # noqa: ANN401 -- an enum and its value
    return None if value is None else kind(value)
