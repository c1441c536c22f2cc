"""`to-ncnn`: lower the ONNX body to an ncnn network with its SSD tail."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.cli.flags import ncnn_flags
from mbv3ssd_deploy.cli.output import Output, command_line, named, output_options


@click.command(name="to-ncnn", short_help="Lower the body to an ncnn network with its SSD tail.")
@click.argument("source", type=click.Path(path_type=Path), default=Path("deploy"))
@ncnn_flags
@output_options
def command(source: Path, out: Output, **ncnn: object) -> None:
    """Lower an exported body to ncnn, and inject PriorBox and DetectionOutput.

    SOURCE is a bundle (default: deploy) or a lone body.onnx that `export` wrote. Writes
    model.ncnn.param and model.ncnn.bin beside it, once the priors that ncnn computes equal the
    checkpoint's.

    \b
        mbv3ssd-deploy to-ncnn
        mbv3ssd-deploy to-ncnn my-bundle --conf 0.3 --fp32
        mbv3ssd-deploy to-ncnn --raw-heads
    """
    from mbv3ssd_deploy.cli.flags import request_from_flags
    from mbv3ssd_deploy.cli.render import json_from_lowered, show_lowered
    from mbv3ssd_deploy.pipeline import lower_to_ncnn

    request = request_from_flags(**ncnn)  # type: ignore[arg-type]
    with out.progress() as progress:
        lowered = lower_to_ncnn(source, request, command=command_line(), progress=progress)
    show_lowered(lowered, out)
    out.json(json_from_lowered(lowered))
    out.next_step("verify", *named(lowered.bundle.directory), "--images", "PHOTOS/")
