"""`demo`: a checkpoint and images to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.cli.output import Output, output_options


@click.command(name="demo", short_help="Write a demo checkpoint and images to try it on.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for the checkpoint and the images.",
)
@output_options
def command(folder: Path, out: Output) -> None:
    """Write a demo checkpoint and images, to try the other commands on.

    The checkpoint is a small MobileNetV3-Small SSD, trained on rendered scenes (see model.md beside
    it); the images are scenes that it was not trained on, with their annotations.
    """
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
    out.next_step("export", folder / MODEL, "-o", folder / "deploy")
