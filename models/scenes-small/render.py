"""Render data sets to train on, or make the untrained demo checkpoint.

python models/scenes-small/render.py scenes FOLDER
python models/scenes-small/render.py untrained FOLDER
"""

from __future__ import annotations

import re
from pathlib import Path

import click
from renderer.scene_sets import SceneSetSpec, write_voc_scenes
from renderer.scenes import write_scenes
from renderer.untrained import write_untrained_checkpoint

from mbv3ssd_deploy.cli.main import Commands
from mbv3ssd_deploy.cli.output import Output, output_options, size_format
from mbv3ssd_deploy.io.records import json_from_record


def _size_from(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if not found:
        raise click.BadParameter(f"{value!r} is not a size like 480x360")
    width, height = int(found[1]), int(found[2])
    if min(width, height) < 64:
        raise click.BadParameter(f"{value} is too small: scenes need 64x64 pixels")
    return width, height


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Render scenes, or make the untrained demo checkpoint."""


@cli.command(name="scenes", short_help="Render a data set to train on.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--count",
    type=click.IntRange(min=3),
    default=1000,
    show_default=True,
    help="Number of images; of ten, 7 are for training, 1 for validation, 2 for the test.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."
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
    help="Number of processes.  [default: one per core]",
)
@output_options
def scenes(
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
        python models/scenes-small/render.py scenes shapes --count 2000
        mbv3ssd-deploy train --data voc:shapes
    """
    spec = SceneSetSpec(count, seed, *size, style)
    with out.progress() as progress:
        report = write_voc_scenes(folder, spec, workers=workers, progress=progress)
    out.json(json_from_record(report))
    rows = [(name, str(number)) for name, number in report.objects.items()]
    out.table("", ("class", "objects"), rows)
    parts = ", ".join(f"{report.images[split]} {split}" for split in ("train", "val", "test"))
    out.result(f"wrote {count} images ({size_format(report.size_bytes)}) to {folder}: {parts}")
    out.next_step("train", "--data", f"voc:{folder}")


@cli.command(name="untrained", short_help="Make the untrained demo checkpoint.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--images", "count", type=click.IntRange(min=1), default=8, show_default=True)
@output_options
def untrained(*, folder: Path, count: int, out: Output) -> None:
    """Write a checkpoint of seeded random weights, and scenes to try it on, into FOLDER.

    What it detects means nothing; a deployed copy must detect the very same.
    """
    checkpoint = folder / "model.pth"
    with out.progress() as progress:
        images = write_scenes(folder / "images", count)
        write_untrained_checkpoint(checkpoint, progress=progress)
    out.json({"checkpoint": str(checkpoint), "images": [str(path) for path in images]})
    out.written([checkpoint])
    out.result(f"wrote {len(images)} images to {folder / 'images'}")
    out.next_step("export", checkpoint, "-o", folder / "deploy")


if __name__ == "__main__":
    cli()
