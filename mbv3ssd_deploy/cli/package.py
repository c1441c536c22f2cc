"""`package`: a bundle as a zip that builds on a board and tests itself there."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.cli.output import Output, output_options

TARGETS = ("src", "linux-aarch64", "rpi")


@click.command(name="package", short_help="Pack a bundle with a self-test for the board.")
@click.argument("bundle", type=click.Path(path_type=Path), default=Path("deploy"))
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="src",
    show_default=True,
    help="src: built where it runs. linux-aarch64: cross-built. rpi: built on a Raspberry Pi.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder from which three images are taken, or one image.  [default: three shipped scenes]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The zip.  [default: package-TARGET.zip in the bundle]",
)
@output_options
def command(
    *, bundle: Path, target: str, images: Path | None, output: Path | None, out: Output
) -> None:
    """Pack BUNDLE (default: deploy) with a self-test that compares a board's results with ours.

    The zip holds the ncnn files, the contract, the C++ sources with CMake files, and three images
    with their input tensors, raw heads and boxes. Built on the board, its `selftest` prints PASS or
    FAIL and writes a result for `verify --device-result`.

    \b
        mbv3ssd-deploy package
        mbv3ssd-deploy package deploy --target rpi --images photos/ -o detector-rpi.zip
    """
    from mbv3ssd_deploy.bundle.bundle import read_bundle
    from mbv3ssd_deploy.device.package import FEW_BOXES, Target, build_package
    from mbv3ssd_deploy.io.files import write_file

    opened = read_bundle(bundle)
    with out.progress() as progress:
        package = build_package(opened, Target(target), images, progress=progress)
    path = output or opened.directory / f"package-{target}.zip"
    write_file(path, package.data)
    files = [{"name": name, "bytes": size} for name, size in package.files]
    out.json({"path": str(path), "target": target, "boxes": package.boxes, "files": files})
    out.result(
        f"{opened.spec.name} for {target}: {len(package.files)} files in {package.name}/, "
        f"{package.images} images with {package.boxes} boxes to compare"
    )
    if package.boxes < FEW_BOXES:
        out.note(f"fewer than {FEW_BOXES} boxes prove little: give --images with known objects")
    out.written((path,))
    out.result(f"next: unzip it on the board; {package.name}/README.md lists the commands")
