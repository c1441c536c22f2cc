"""`demo`: a checkpoint and images to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.cli.talk import Talk, talking


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
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many images to render.",
)
@talking
def command(folder: Path, count: int, talk: Talk) -> None:
    """Write a demo checkpoint and rendered images, to try the three commands on.

    The checkpoint is a seeded MobileNetV3-Small SSD, scaled so that it finds things; it was never
    trained, so what it finds means nothing. That the deployed model finds the very same is the
    point.
    """
    from mbv3ssd_deploy.checkpoint.demo import write_demo_checkpoint
    from mbv3ssd_deploy.data.scenes import write_scenes

    checkpoint = folder / "model.pth"
    with talk.progress() as progress:
        images = write_scenes(folder / "images", count)
        write_demo_checkpoint(checkpoint, progress=progress)
    talk.json({"checkpoint": str(checkpoint), "images": [str(path) for path in images]})
    talk.note("the demo checkpoint is seeded, not trained: its boxes mean nothing by themselves")
    talk.written([checkpoint])
    talk.result(f"wrote {len(images)} images to {folder / 'images'}")
    talk.next_step("export", checkpoint, "-o", folder / "deploy")
