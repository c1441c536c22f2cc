"""`scenes`: a rendered data set to train on."""

from __future__ import annotations

import re
from pathlib import Path

import click

from mbv3ssd_deploy.cli.output import Output, output_options, size_format


def _size_from(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if not found:
        raise click.BadParameter(f"{value!r} is not a size like 480x360")
    width, height = int(found[1]), int(found[2])
    if min(width, height) < 64:
        raise click.BadParameter(f"{value} is too small: scenes need 64x64 pixels")
    return width, height


@click.command(name="scenes", short_help="Render a data set to train on.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--count",
    type=click.IntRange(min=3),
    default=1000,
    show_default=True,
    help="How many images: of ten, 7 are for training, 1 for validation, 2 for the test.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which series."
)
@click.option(
    "--size",
    callback=_size_from,
    metavar="WxH",
    default="480x360",
    show_default=True,
    help="Width and height in pixels.",
)
@click.option(
    "--style",
    type=click.Choice(["crowded", "clear"]),
    default="crowded",
    show_default=True,
    help="crowded: small, half-hidden, blurred and dark objects of 8 classes, among things of "
    "none. clear: the 5 classes of the demo, in clear sight.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    help="How many processes render.  [default: one for each core]",
)
@output_options
def command(
    *,
    folder: Path,
    count: int,
    seed: int,
    size: tuple[int, int],
    style: str,
    workers: int | None,
    out: Output,
) -> None:
    """Render a data set in VOC layout into FOLDER, to train and to measure on.

    The same seed, size and style give the same files, and a larger set begins with the smaller one.
    Nothing in it was photographed: it may be copied and published freely.

    \b
        mbv3ssd-deploy scenes shapes --count 2000
        mbv3ssd-deploy train --data voc:shapes
    """
    from mbv3ssd_deploy.data.scene_sets import SceneSetSpec, write_voc_scenes
    from mbv3ssd_deploy.io.records import json_from_record

    spec = SceneSetSpec(count, seed, *size, style)
    with out.progress() as progress:
        report = write_voc_scenes(folder, spec, workers=workers, progress=progress)
    out.json(json_from_record(report))
    rows = [(name, str(number)) for name, number in report.objects.items()]
    out.table("", ("class", "objects"), rows)
    parts = ", ".join(f"{report.images[split]} {split}" for split in ("train", "val", "test"))
    out.result(f"wrote {count} images ({size_format(report.size_bytes)}) to {folder}: {parts}")
    out.next_step("train", "--data", f"voc:{folder}")
