"""A package: one zip that builds on a board and tests itself there: PASS or FAIL.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy import __version__
from mbv3ssd_deploy.bundle.bundle import BIN, MANIFEST, PARAM, Bundle
from mbv3ssd_deploy.checkpoint.shipped import shipped_images
from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.data.images import list_images, read_image
from mbv3ssd_deploy.device.contract import CONTRACT, render_contract
from mbv3ssd_deploy.device.golden import (
    DEFAULT_LIMITS,
    GOLDEN,
    Golden,
    GoldenFile,
    golden_images,
    render_golden,
)
from mbv3ssd_deploy.errors import BundleError, RuntimeUnavailableError
from mbv3ssd_deploy.io.files import sha256_of
from mbv3ssd_deploy.io.progress import Progress, silent

IMAGES = 3
"""The number of pictures in a package."""

FEW_BOXES = 20
"""The least number of boxes, over all pictures, that a verdict needs."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip; constant, so that bytes are the same
_SCRIPT = ".py"
_SOURCES = "cpp_postprocess"
_ROOT = Path(__file__).parent.parent
_DEVICE_SOURCES = ("CMakeLists.txt", "cmake", "examples", "include", "ncnn", "selftest", "src")
"""What a board needs; not the tests and fuzzers."""


class Target(enum.StrEnum):
    """The kind of board that the README of a package is for; all else is the same."""

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
        data: the bytes of the zip; the same for the same bundle and images.
        files: name within the zip and size, in order.
        images: number of pictures.
        boxes: number of boxes that the self-test compares, by the family's own rules and in
            float16: those with scores near their cut are not counted.
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
        target: the kind of board.
        images: a folder, of which the first three images are taken, or an image; by default
            the shipped scenes.
        progress: called after each run of a runtime.

    Raises:
        BundleError: the bundle has no ncnn files, or they are not those of body.onnx.
        DatasetError: an image cannot be read, or nothing is found on any.
        RuntimeUnavailableError: the C++ sources or ncnn are not installed.
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
    """Return the files of the folder `model` and the number of boxes that are compared."""
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
    boxes = sum(image.own.counted(DEFAULT_LIMITS.margin) for image in images)
    return files | {GOLDEN: render_golden(golden)}, boxes


def _ppm(pixels: U8) -> bytes:
    """Return a picture as binary PPM, which can be read without a library."""
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
            entry.create_system = 3  # Unix on every system, for the permissions
            entry.external_attr = (0o100755 if name.endswith(_SCRIPT) else 0o100644) << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def find_sources() -> Path:
    """Return the folder `cpp_postprocess`: of a checkout, or inside an installed package.

    Raises:
        RuntimeUnavailableError: it is neither in a checkout nor in the installed package.
    """
    for folder in (_ROOT.parent / _SOURCES, _ROOT / _SOURCES):
        if (folder / "selftest" / "CMakeLists.txt").is_file():
            return folder
    raise RuntimeUnavailableError(
        "the C++ sources (cpp_postprocess) are not installed with this package",
        hint="install the wheel of a release, or run this from a checkout of the repository",
    )


def device_sources(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every source file that a board needs, sorted by name."""
    for name in _DEVICE_SOURCES:
        path = folder / name
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                yield f"{_SOURCES}/{file.relative_to(folder).as_posix()}", file.read_bytes()


def license_text(folder: Path) -> bytes:
    """Return our licence, which accompanies the sources."""
    beside, inside = folder.parent / "LICENSE", folder / "LICENSE"
    return (inside if inside.is_file() else beside).read_bytes()


def package_file(folder: Path, name: str) -> str:
    """Return the text of a file of `cpp_postprocess/package/`."""
    return (folder / "package" / name).read_text(encoding="utf-8")
