"""Where the C++ sources are: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mbv3ssd_deploy.errors import RuntimeUnavailableError

FOLDER = "cpp_postprocess"

_PACKAGE = Path(__file__).parent.parent
# What a board needs; tests and fuzzers stay behind.
_WANTED = ("CMakeLists.txt", "cmake", "examples", "include", "ncnn", "selftest", "src")
_LICENSE = "LICENSE"


def find_sources() -> Path:
    """Return the folder `cpp_postprocess`.

    Raises:
        RuntimeUnavailableError: it is neither in a checkout nor in the installed package.
    """
    for folder in (_PACKAGE.parent / FOLDER, _PACKAGE / FOLDER):
        if (folder / "selftest" / "CMakeLists.txt").is_file():
            return folder
    raise RuntimeUnavailableError(
        "the C++ sources (cpp_postprocess) are not installed with this package",
        hint="install the wheel of a release, or run this from a checkout of the repository",
    )


def device_sources(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every source file that a board needs, sorted by name."""
    for wanted in _WANTED:
        path = folder / wanted
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                yield f"{FOLDER}/{file.relative_to(folder).as_posix()}", file.read_bytes()


def license_text(folder: Path) -> bytes:
    """Return the text of our licence, which goes wherever the sources go."""
    beside, inside = folder.parent / _LICENSE, folder / _LICENSE
    return (inside if inside.is_file() else beside).read_bytes()


def package_file(folder: Path, name: str) -> str:
    """Return the text of one of the files that a package is made with."""
    return (folder / "package" / name).read_text(encoding="utf-8")
