"""`train`: annotated images become a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbv3ssd_deploy.cli.load_flags import EXISTING_FILE, ImageSize
from mbv3ssd_deploy.cli.output import Output, output_options
from mbv3ssd_deploy.cli.train_words import (
    Shares,
    json_from_train_report,
    request_from_flags,
    show_recipes,
    show_train_report,
    words_on_epoch,
)

EXIT_INTERRUPTED = 130
SPLITS = ("train", "val", "trainval", "test")


@click.command(name="train", short_help="Annotated images become a detector.")
@click.option(
    "--data",
    metavar="SOURCE",
    help="voc:ROOT[,ROOT...], coco:ANNOTATIONS.json,IMAGES or yolo:data.yaml.",
)
@click.option(
    "-o",
    "--output",
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the run; that of the snapshot with --resume, else `run`.",
)
@click.option("--split", type=click.Choice(SPLITS), help="What to learn from.  [default: train]")
@click.option("--val-data", metavar="SOURCE", help="What to be measured on, if not --data.")
@click.option("--val-split", type=click.Choice(SPLITS), help="Which part of it.  [default: val]")
@click.option("--labels", type=EXISTING_FILE, help="Class names, one a line; others are left out.")
@click.option("--recipe", metavar="NAME", help="A named recipe (`--recipe list` shows them).")
@click.option("--arch", type=click.Choice(("large", "small")), help="MobileNetV3-Large or -Small.")
@click.option("--width", type=click.FloatRange(min=0.1, max=4.0), help="Width of the network.")
@click.option("--imgsz", "image_size", type=ImageSize(), metavar="N|HxW", help="Input size.")
@click.option(
    "--priors",
    type=click.Choice(("auto", "default")),
    default="auto",
    show_default=True,
    help="`auto` makes sizes for the objects in the data where the standard ones fit poorly.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="How often every image is seen.")
@click.option("--batch", type=click.IntRange(min=2), help="Images a step, over all processes.")
@click.option("--lr", type=float, help="Learning rate of the heads.")
@click.option("--backbone-lr", type=float, help="That of the backbone, as a share of --lr.")
@click.option("--extras-lr", type=float, help="That of the extra levels, as a share of --lr.")
@click.option("--optimiser", "algorithm", type=click.Choice(("sgd", "adamw")), help="Algorithm.")
@click.option("--weight-decay", type=float, help="On convolution weights.")
@click.option("--warmup-epochs", type=float, help="Over how many epochs the rate rises.")
@click.option(
    "--schedule",
    type=click.Choice(("cosine", "multistep")),
    help="How the rate falls after the warm-up.",
)
@click.option(
    "--milestones",
    type=Shares(),
    metavar="SHARE[,SHARE...]",
    help="When a multi-step rate falls to a tenth, as shares of the run: 0.6,0.85.",
)
@click.option("--clip-norm", type=float, help="Largest norm of the gradient; 0 for any.")
@click.option("--ema-decay", type=float, help="Of the average of the weights; 0 for none.")
@click.option(
    "--freeze",
    type=click.Choice(("nothing", "backbone", "all-but-heads")),
    help="What does not learn; its BatchNorm statistics stay, too.",
)
@click.option(
    "--freeze-norms",
    is_flag=True,
    default=None,
    help="BatchNorm keeps its statistics: for batches of a few images, with --pretrained.",
)
@click.option("--vertical-flip", type=float, help="How likely an image is turned upside down.")
@click.option(
    "--backbone", "backbone_file", type=EXISTING_FILE, help="Weights the backbone starts from."
)
@click.option(
    "--pretrained", type=EXISTING_FILE, help="A detector to start from; its classes may differ."
)
@click.option("--resume", type=EXISTING_FILE, help="A run's last.pth, to go on from.")
@click.option("--seed", type=click.IntRange(min=0), help="Of everything random.  [default: 0]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that prepare images.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of PyTorch on the CPU.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option(
    "--precision",
    type=click.Choice(("auto", "float32", "bf16", "fp16")),
    help="Of convolutions; `auto` takes 16 bits on a GPU.",
)
@click.option("--val-every", type=click.IntRange(min=1), help="Epochs between validations.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is in the folder already.")
@output_options
def command(*, out: Output, recipe: str | None, **flags: Any) -> None:  # noqa: ANN401
    """Train an SSDLite detector with a MobileNetV3 backbone on annotated images.

    Writes best.pth (the snapshot with the highest mAP on the validation images), last.pth (to go on
    from), history.csv and history.png. Ctrl-C saves, and says how to go on.

    \b
        mbv3ssd-deploy train --data voc:my-photos
        mbv3ssd-deploy train --data voc:my-photos --arch large --imgsz 320 --epochs 300
        mbv3ssd-deploy train --resume run/last.pth
        torchrun --nproc-per-node 2 -m mbv3ssd_deploy train --data voc:my-photos
    """
    if recipe == "list":
        show_recipes(out)
        return
    from mbv3ssd_deploy.train.distributed import team_from_environment
    from mbv3ssd_deploy.train.request import Observer
    from mbv3ssd_deploy.train.run import train_detector

    request = request_from_flags(recipe=recipe, **flags)
    if not team_from_environment().leads:
        out = Output(verbosity=-1, as_json=False)  # of several processes, the first one talks
    with out.progress() as progress:
        observer = Observer(
            progress=progress,
            note=lambda text: out.note(f"notice: {text}"),
            detail=lambda text: out.detail(f"  {text}"),
            epoch_done=lambda record, left: out.note(words_on_epoch(record, left)),
        )
        report = train_detector(request, observer)
    out.json(json_from_train_report(report))
    show_train_report(report, out)
    if report.interrupted:
        click.get_current_context().exit(EXIT_INTERRUPTED)
