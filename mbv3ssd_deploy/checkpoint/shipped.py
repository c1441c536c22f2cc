"""The trained checkpoint that is shipped: beside the package, or inside an installed one."""

from __future__ import annotations

from pathlib import Path

from mbv3ssd_deploy.errors import RuntimeUnavailableError

MODEL = "model.pth"
CARD = "README.md"
SCENES = "scenes"

_FOLDER = "models"
_NAME = "scenes-small"
_PACKAGE = Path(__file__).parent.parent


def shipped_files() -> dict[str, bytes]:
    """Return the shipped detector's checkpoint, card and annotated scenes, by relative path.

    Raises:
        RuntimeUnavailableError: they are neither in a checkout nor in the installed package.
    """
    for folder in (_PACKAGE.parent / _FOLDER / _NAME, _PACKAGE / _FOLDER / _NAME):
        if (folder / MODEL).is_file():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    raise RuntimeUnavailableError(
        f"the trained detector ({_FOLDER}/{_NAME}) is not installed with this package",
        hint="run this from a checkout of the repository, or take `demo --untrained`",
    )
