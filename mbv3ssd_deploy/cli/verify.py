"""`verify`: compare the deployed model with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mbv3ssd_deploy.cli.output import Output, output_options

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--images",
        type=click.Path(path_type=Path),
        required=True,
        help="Folder of images, or one image, to verify on.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where PyTorch and ONNX Runtime run in addition to the CPU.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Use the first N images only."),
    click.option(
        "--device-result",
        "device_results",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        help="Result of `selftest --json` on a board; may be repeated.",
    ),
)


def verify_flags(function: Command) -> Command:
    """Add the options of `verify` that `convert` shares."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(name="verify", short_help="Compare every runtime with PyTorch on real images.")
@click.argument("bundle", type=click.Path(path_type=Path), default=Path("deploy"))
@verify_flags
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="The checkpoint, if it was moved."
)
@output_options
def command(
    *,
    bundle: Path,
    images: Path,
    checkpoint: Path | None,
    device: str,
    limit: int | None,
    device_results: tuple[Path, ...],
    out: Output,
) -> None:
    """Compare every runtime of BUNDLE (default: deploy) with PyTorch on real images.

    Compares raw heads, detections and priors of ONNX Runtime and ncnn with those of the checkpoint
    in PyTorch, on the same tensors. Writes BUNDLE/verify.json. Exit code 1 when a check fails.

    \b
        mbv3ssd-deploy verify --images photos/
        mbv3ssd-deploy verify my-bundle --images photos/ --json
        mbv3ssd-deploy verify --images photos/ --device-result result.json
    """
    from mbv3ssd_deploy.cli.render import show_verified
    from mbv3ssd_deploy.pipeline import verify
    from mbv3ssd_deploy.verification.report import json_from_report

    with out.progress() as progress:
        report = verify(
            bundle,
            images,
            checkpoint=checkpoint,
            device=device,
            limit=limit,
            device_results=device_results,
            progress=progress,
        )
    show_verified(report, bundle, out)
    out.json(json_from_report(report))
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)
