"""`convert`: export, to-ncnn and verify in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbv3ssd_deploy.cli.export import export_flags
from mbv3ssd_deploy.cli.flags import load_flags, ncnn_flags
from mbv3ssd_deploy.cli.output import Output, command_line, output_options
from mbv3ssd_deploy.cli.verify import verify_flags

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadOptions
    from mbv3ssd_deploy.pipeline import Exported, Lowered


@click.command(name="convert", short_help="Run export, to-ncnn and verify in one go.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@export_flags
@verify_flags
@load_flags
@ncnn_flags
@output_options
def command(
    *,
    checkpoint: Path,
    bundle: Path,
    opset: int | None,
    exporter: str,
    images: Path,
    device: str,
    limit: int | None,
    device_results: tuple[Path, ...],
    options: LoadOptions,
    out: Output,
    **ncnn: object,
) -> None:
    """Export CHECKPOINT, lower it to ncnn, and verify the result on images.

    The same as `export`, `to-ncnn` and `verify` one after the other, with their options; the
    checkpoint is read once.

    \b
        mbv3ssd-deploy convert model.pth --images photos/
    """
    from mbv3ssd_deploy.cli.flags import request_from_flags
    from mbv3ssd_deploy.cli.render import (
        json_from_exported,
        json_from_lowered,
        show_exported,
        show_lowered,
        show_verified,
    )
    from mbv3ssd_deploy.onnx_body.body import ExporterChoice
    from mbv3ssd_deploy.pipeline import Exported, convert
    from mbv3ssd_deploy.verification.report import json_from_report

    steps: list[Exported | Lowered] = []
    try:
        with out.progress() as progress:
            report = convert(
                checkpoint,
                images,
                bundle,
                options=options,
                opset=opset,
                exporter=ExporterChoice(exporter),
                request=request_from_flags(**ncnn),  # type: ignore[arg-type]
                device=device,
                limit=limit,
                device_results=device_results,
                command=command_line(),
                on_step=steps.append,
                progress=progress,
            )
    finally:  # what was made is there, also when a later step fails
        plain = {}
        for step in steps:
            if isinstance(step, Exported):
                show_exported(step, out)
                plain["export"] = json_from_exported(step)
            else:
                show_lowered(step, out)
                plain["to_ncnn"] = json_from_lowered(step)
    show_verified(report, bundle, out)
    out.json(plain | {"verify": json_from_report(report)})
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)
