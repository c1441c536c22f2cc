"""A package: one zip that builds on a board and says PASS or FAIL.

NAME/README.md, LICENSE, CMakeLists.txt, CMakePresets.json
NAME/model/       the ncnn files, contract, golden.mbv3g, the pictures
NAME/cpp_postprocess/
"""

from __future__ import annotations

import enum
import io
import re
import string
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy import __version__
from mbv3ssd_deploy.bundle.bundle import BIN, MANIFEST, PARAM, Bundle
from mbv3ssd_deploy.checkpoint.shipped import shipped_images
from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.data.images import list_images, read_image
from mbv3ssd_deploy.device.contract import CONTRACT, render_contract
from mbv3ssd_deploy.device.golden import GOLDEN, USUAL, Golden, GoldenFile, render_golden
from mbv3ssd_deploy.device.golden_run import golden_images
from mbv3ssd_deploy.device.sources import (
    device_sources,
    find_sources,
    license_text,
    package_file,
)
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.files import sha256_of
from mbv3ssd_deploy.io.progress import Progress, silent

IMAGES = 3
"""How many pictures a package carries."""

FEW_BOXES = 20
"""Fewer boxes, over all pictures, prove little; `verify` calls them no evidence."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name: the same bytes every day
_SCRIPT = ".py"


class Target(enum.StrEnum):
    """For whom the README of a package is written; the rest is the same."""

    SRC = "src"
    """Any machine with a compiler: built where it runs."""
    LINUX_AARCH64 = "linux-aarch64"
    """Cross-built on a desktop, for any 64-bit ARM board with Linux."""
    RPI = "rpi"
    """A Raspberry Pi with a 64-bit system: built on it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A finished package.

    Attributes:
        name: of its only folder.
        data: the bytes of the zip; the same whenever it is made of the same bundle and images.
        files: name within the zip and size, in order.
        images: how many pictures it carries.
        boxes: how many boxes the self-test looks for, by the family's own rules and in float16:
            those whose scores lie near their cut do not count.
    """

    name: str
    data: bytes
    files: tuple[tuple[str, int], ...]
    images: int
    boxes: int


def build_package(
    bundle: Bundle, target: Target, images: Path | None = None, *, progress: Progress = silent
) -> Package:
    """Return the package of `bundle` for `target`.

    Args:
        bundle: with ncnn files.
        target: for whom.
        images: a folder or an image, of which the first three are taken; None renders scenes.
        progress: told how far it is.

    Raises:
        BundleError: there are no ncnn files, or they are not those of body.onnx.
        DatasetError: an image cannot be read, or nothing is found on any.
        RuntimeUnavailableError: the C++ sources or ncnn are not here.
    """
    sources = find_sources()
    pictures = _pictures(images)
    model, boxes = _model(bundle, pictures, progress)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", bundle.spec.name).strip(".") or "model"
    files = {
        "README.md": _readme(sources, bundle, target, name, tuple(model)),
        "LICENSE": license_text(sources),
        "CMakeLists.txt": package_file(sources, "CMakeLists.txt").encode(),
        "CMakePresets.json": package_file(sources, "CMakePresets.json").encode(),
        **{f"model/{file}": data for file, data in model.items()},
        **dict(device_sources(sources)),
    }
    inside = {f"{name}/{file}": data for file, data in files.items()}
    sizes = tuple((file, len(data)) for file, data in inside.items())
    return Package(name, _zipped(inside), sizes, len(pictures), boxes)


def _pictures(images: Path | None) -> list[tuple[str, U8]]:
    if images is None:
        pixels = shipped_images(IMAGES)
    else:
        pixels = [read_image(path) for path in list_images(images)[:IMAGES]]
    return [(f"image_{index}.ppm", picture) for index, picture in enumerate(pixels)]


def _model(
    bundle: Bundle, pictures: Sequence[tuple[str, U8]], progress: Progress
) -> tuple[dict[str, bytes], int]:
    """The files of the folder `model`, the golden one last, and the boxes that it expects."""
    record = bundle.manifest.ncnn
    if record is None:
        raise BundleError(
            "this bundle has no ncnn files yet",
            where=str(bundle.directory),
            hint="run `mbv3ssd-deploy to-ncnn`",
        )
    files = {
        PARAM: bundle.param_path.read_bytes(),
        BIN: bundle.bin_path.read_bytes(),
        CONTRACT: render_contract(bundle.spec),
        MANIFEST: (bundle.directory / MANIFEST).read_bytes(),
        **{name: _ppm(pixels) for name, pixels in pictures},
    }
    images = golden_images(bundle, record, pictures, progress)
    golden = Golden(
        spec=bundle.spec,
        made_by=f"mbv3ssd-deploy {__version__}",
        outputs=record.outputs,
        param=PARAM,
        bin=BIN,
        contract=CONTRACT,
        files=tuple(GoldenFile(name, len(data), sha256_of(data)) for name, data in files.items()),
        images=images,
    )
    boxes = sum(image.own.counted(USUAL.margin) for image in images)
    return files | {GOLDEN: render_golden(golden)}, boxes


def _ppm(pixels: U8) -> bytes:
    """A picture as binary PPM, which needs no library to be read."""
    height, width = pixels.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def _readme(
    sources: Path, bundle: Bundle, target: Target, name: str, model: tuple[str, ...]
) -> bytes:
    spec = bundle.spec
    facts = {
        "name": name,
        "model": spec.name,
        "version": __version__,
        "input": f"{spec.input.width} x {spec.input.height}",
        "classes": str(spec.num_classes - 1),
        "priors": str(spec.priors.count),
        "files": ", ".join(f"`{file}`" for file in model),
    }
    page = string.Template(package_file(sources, "README.md"))
    build = string.Template(package_file(sources, f"build-{target}.md")).substitute(facts)
    return page.substitute(facts, build=build.strip()).encode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whoever writes it: permissions count
            entry.external_attr = (0o100755 if name.endswith(_SCRIPT) else 0o100644) << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
