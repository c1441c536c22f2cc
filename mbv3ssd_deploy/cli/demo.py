"""`demo`: a checkpoint and images to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.cli.output import Output, output_options

UNTRAINED_IMAGES = 8


@click.command(name="demo", short_help="Write a demo checkpoint and images to try it on.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where the checkpoint and the images go.",
)
@click.option("--untrained", is_flag=True, help="A checkpoint of seeded random numbers instead.")
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1),
    help=f"How many images to render, with --untrained.  [default: {UNTRAINED_IMAGES}]",
)
@output_options
def command(folder: Path, untrained: bool, count: int | None, out: Output) -> None:
    """Write a demo checkpoint and images, to try the other commands on.

    The checkpoint is a small MobileNetV3-Small SSD, trained on rendered scenes (model.md beside it
    tells how); the images are scenes that it has never seen, with their annotations.

    With --untrained, its weights are seeded random numbers, scaled so that it finds things, and
    what it finds means nothing: a deployed copy must find the very same all the more.
    """
    if count is not None and not untrained:
        raise click.UsageError("--images goes with --untrained; the trained one has its own.")
    if untrained:
        _write_untrained(folder, count or UNTRAINED_IMAGES, out)
    else:
        _write_trained(folder, out)
    out.next_step("export", folder / "model.pth", "-o", folder / "deploy")


def _write_trained(folder: Path, out: Output) -> None:
    from mbv3ssd_deploy.checkpoint.shipped import CARD, MODEL, SCENES, shipped_files
    from mbv3ssd_deploy.io.files import write_file

    files = shipped_files()
    files["model.md"] = files.pop(CARD)  # the folder may have a README.md of its own
    for name, data in files.items():
        write_file(folder / name, data)
    images = [folder / name for name in files if name.endswith(".jpg")]
    out.json({"checkpoint": str(folder / MODEL), "images": [str(path) for path in images]})
    out.written([folder / MODEL, folder / "model.md"])
    out.result(f"wrote {len(images)} annotated scenes to {folder / SCENES}")


def _write_untrained(folder: Path, count: int, out: Output) -> None:
    from mbv3ssd_deploy.checkpoint.demo import write_demo_checkpoint
    from mbv3ssd_deploy.data.scenes import write_scenes

    checkpoint = folder / "model.pth"
    with out.progress() as progress:
        images = write_scenes(folder / "images", count)
        write_demo_checkpoint(checkpoint, progress=progress)
    out.json({"checkpoint": str(checkpoint), "images": [str(path) for path in images]})
    out.note("the demo checkpoint is seeded, not trained: its boxes mean nothing by themselves")
    out.written([checkpoint])
    out.result(f"wrote {len(images)} images to {folder / 'images'}")
