"""The trained detector that is shipped: beside the package, or inside an installed one."""

from __future__ import annotations

from pathlib import Path

from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import RuntimeUnavailableError

MODEL = "model.pth"
CARD = "README.md"
SCENES = "scenes"

_FOLDER = Path("models", "scenes-small")
_PACKAGE = Path(__file__).parent.parent


def shipped_files() -> dict[str, bytes]:
    """Return the shipped detector's checkpoint, card and annotated scenes, by relative path.

    Raises:
        RuntimeUnavailableError: they are missing from the package.
    """
    folder = _shipped_folder()
    files = [folder / MODEL, folder / CARD, *sorted((folder / SCENES).rglob("*.*"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def shipped_images(count: int) -> list[U8]:
    """Return the first shipped scenes, RGB uint8 (H, W, 3).

    Raises:
        RuntimeUnavailableError: they are missing from the package.
    """
    paths = sorted((_shipped_folder() / SCENES).rglob("*.jpg"))
    return [read_image(path) for path in paths[:count]]


def _shipped_folder() -> Path:
    for root in (_PACKAGE.parent, _PACKAGE):
        if (root / _FOLDER / MODEL).is_file():
            return root / _FOLDER
    raise RuntimeUnavailableError(
        f"the trained detector ({_FOLDER.as_posix()}) is not installed with this package",
        hint="install it again, or run this from a checkout of the repository",
    )
