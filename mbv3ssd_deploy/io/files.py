"""Writing files all or nothing, so that a failed or interrupted command loses nothing.

Every file is first written whole beside its target, flushed to the disk, and only then renamed
into place (POSIX rename(2) replaces atomically). Several files that belong together are all staged
before the first is renamed; Ctrl-C waits for the few renames.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbv3ssd_deploy.errors import OutputError
from mbv3ssd_deploy.io.interrupts import interrupts_deferred

_STAGED_SUFFIX = ".partial"


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of the file at `path` in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; folders on the way are made.

    Raises:
        OutputError: no space, no permission, or `path` is a folder.
    """
    publish_files(path.parent, {path.name: data})


def publish_files(
    directory: Path, files: Mapping[str, bytes], *, remove: Sequence[str] = ()
) -> None:
    """Put all `files` (name -> bytes) into `directory` together, and take `remove` away.

    The last file of `files` is renamed last: let it be the one that vouches for the others.

    Raises:
        OutputError: no space, no permission, or a name is that of a folder. Nothing has changed,
            unless the disk fails between two renames; then the message says so.
    """
    staged: dict[Path, Path] = {}
    published: list[str] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for target in (directory / name for name in (*files, *remove)):
            if target.is_dir():
                raise IsADirectoryError(f"{target} is a folder")
        for name, data in files.items():
            staged[directory / name] = _stage(directory / name, data)
        with interrupts_deferred():
            for target, partial in list(staged.items()):
                partial.replace(target)
                del staged[target]
                published.append(target.name)
            for name in remove:
                (directory / name).unlink(missing_ok=True)
            _flush(directory)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write: {reason}",
            where=str(directory),
            hint=f"already replaced: {', '.join(published)}; run the command again"
            if published
            else "the previous files are untouched; free some space or choose another folder",
        ) from error
    finally:
        for partial in staged.values():
            partial.unlink(missing_ok=True)


def _stage(target: Path, data: bytes) -> Path:
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=_STAGED_SUFFIX, dir=target.parent
    )
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())  # mkstemp makes it private; a result is not
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _flush(directory: Path) -> None:
    """Make the renames themselves last through a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
