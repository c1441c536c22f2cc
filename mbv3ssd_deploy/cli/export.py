"""`export`: export a checkpoint to an ONNX body in a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mbv3ssd_deploy.cli.flags import load_flags
from mbv3ssd_deploy.cli.output import Output, command_line, named, output_options

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadOptions


Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "-o",
        "--output",
        "bundle",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("deploy"),
        show_default=True,
        help="Bundle folder; an existing bundle is replaced whole.",
    ),
    click.option(
        "--opset", type=int, help="ONNX opset.  [default: 17; 18 with PyTorch's newer exporter]"
    ),
    click.option(
        "--exporter",
        type=click.Choice(["auto", "torchscript", "dynamo"]),
        default="auto",
        show_default=True,
        help="PyTorch's exporter; auto tries the first, then the other.",
    ),
)


def export_flags(function: Command) -> Command:
    """Add the options of `export` that `convert` shares."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(name="export", short_help="Export a checkpoint to an ONNX body in a bundle.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@export_flags
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Batch size of the body; ncnn needs 1.",
)
@load_flags
@output_options
def command(
    *,
    checkpoint: Path,
    bundle: Path,
    opset: int | None,
    exporter: str,
    batch: int,
    options: LoadOptions,
    out: Output,
) -> None:
    """Recognise CHECKPOINT and export its conv body to ONNX.

    Writes BUNDLE/body.onnx (input `input`, outputs `loc` and `conf`: no priors, no softmax, no
    NMS) and BUNDLE/detector.json, which describes its input and output.

    \b
        mbv3ssd-deploy export model.pth
        mbv3ssd-deploy export model.pth -o my-bundle --labels labels.txt
    """
    from mbv3ssd_deploy.cli.render import json_from_exported, show_exported
    from mbv3ssd_deploy.onnx_body.body import ExporterChoice
    from mbv3ssd_deploy.pipeline import export_checkpoint

    with out.progress() as progress:
        exported = export_checkpoint(
            checkpoint,
            bundle,
            options=options,
            opset=opset,
            batch=batch,
            exporter=ExporterChoice(exporter),
            command=command_line(),
            progress=progress,
        )
    show_exported(exported, out)
    out.json(json_from_exported(exported))
    if batch == 1:
        out.next_step("to-ncnn", *named(bundle))
    else:
        out.next_step("verify", *named(bundle), "--images", "PHOTOS/")
