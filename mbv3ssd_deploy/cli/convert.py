"""`convert`: export, to-ncnn and verify in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbv3ssd_deploy.cli.load_flags import load_flags
from mbv3ssd_deploy.cli.ncnn_flags import ncnn_flags
from mbv3ssd_deploy.cli.output import Output, command_line, output_options

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadOptions


@click.command(name="convert", short_help="The three steps above in one go.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder of images, or one image, to verify on.",
)
@click.option(
    "-o",
    "--output",
    "bundle",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("deploy"),
    show_default=True,
    help="The bundle folder; an existing bundle is replaced whole.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch and ONNX Runtime are verified besides the CPU.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Verify on the first N images only.")
@click.option("--opset", type=int, default=17, show_default=True, help="The ONNX opset.")
@load_flags
@ncnn_flags
@output_options
def command(
    *,
    checkpoint: Path,
    images: Path,
    bundle: Path,
    device: str,
    limit: int | None,
    opset: int,
    options: LoadOptions,
    out: Output,
    **wanted: object,
) -> None:
    """Export CHECKPOINT, lower it to ncnn, and verify the result on IMAGES.

    The same as `export`, `to-ncnn` and `verify` one after the other, with their flags.

    \b
        mbv3ssd-deploy convert model.pth --images photos/
    """
    from mbv3ssd_deploy.cli.ncnn_flags import request_from_flags
    from mbv3ssd_deploy.cli.render import (
        json_from_exported,
        json_from_lowered,
        show_exported,
        show_lowered,
        show_verified,
    )
    from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn, verify
    from mbv3ssd_deploy.verification.report import json_from_report

    request = request_from_flags(**wanted)  # type: ignore[arg-type]
    typed = command_line()
    with out.progress() as progress:
        exported = export_checkpoint(
            checkpoint, bundle, options=options, opset=opset, command=typed, progress=progress
        )
    show_exported(exported, out)
    with out.progress() as progress:
        lowered = lower_to_ncnn(bundle, request, command=typed, progress=progress)
    show_lowered(lowered, out)
    with out.progress() as progress:
        report = verify(bundle, images, device=device, limit=limit, progress=progress)
    show_verified(report, bundle, out)
    out.json(
        {
            "export": json_from_exported(exported),
            "to_ncnn": json_from_lowered(lowered),
            "verify": json_from_report(report),
        }
    )
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)
