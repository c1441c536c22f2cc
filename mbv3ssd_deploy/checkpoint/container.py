"""What a file is, by its content and never by its name."""

from __future__ import annotations

import codecs
import enum
import itertools
import mmap
import re
import struct
import zipfile
from pathlib import Path

from mbv3ssd_deploy.errors import CheckpointError


class Container(enum.StrEnum):
    """The containers that a checkpoint may come in."""

    TORCH_ZIP = "torch zip"
    PICKLE = "torch legacy"
    """Pickles and raw storages in a row: what torch.save wrote before version 1.6."""
    SAFETENSORS = "safetensors"


MOST_ENTRIES = 65_000
"""Of a zip archive: one for each storage."""
_HEAD = 4096
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # the limit that the safetensors library sets itself
# (first bytes, what the file is, what to do)
_KNOWN = (
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself: git lfs pull"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?)", "this project reads PyTorch checkpoints"),
    (b"\x93NUMPY", "a NumPy array", "this project reads PyTorch checkpoints"),
    (b"7767517", "an ncnn .param file", "give the PyTorch checkpoint that it was made from"),
    (b"\xff\xd8\xff", "a JPEG image", "give the checkpoint first, images with --images"),
    (b"\x89PNG", "a PNG image", "give the checkpoint first, images with --images"),
)


def container_of(path: Path) -> Container:
    """Return the container of the file at `path`.

    Raises:
        CheckpointError: no such file, or it is not a checkpoint; the message names what it is.
    """
    head = _read_head(path)
    if head.startswith(b"PK\x03\x04"):
        return _check_zip(path)
    if _is_safetensors(head):
        return Container.SAFETENSORS
    if head[:1] == b"\x80":
        return Container.PICKLE
    what, hint = _describe(head)
    raise CheckpointError(f"this is {what}, not a checkpoint", where=str(path), hint=hint)


_AGAIN = "copy or download it again"


def _read_head(path: Path) -> bytes:
    where = str(path)
    if path.is_dir():
        raise CheckpointError(
            "this is a folder, not a checkpoint file",
            where=where,
            hint="give the .pth, .pt, .tar or .safetensors file in it",
        )
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", where=where) from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=where) from error
    if not head:
        raise CheckpointError("the file is empty", where=where, hint=_AGAIN)
    return head


def _check_zip(path: Path) -> Container:
    try:
        _check_entries(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise CheckpointError(
            "the file is a zip archive that is cut off or damaged", where=str(path), hint=_AGAIN
        ) from error
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in leaves:
        what = "a TorchScript archive (code and weights), not a state_dict"
        hint = "save the module's state_dict() instead"
    elif "data.pkl" in leaves:
        return Container.TORCH_ZIP
    elif names and all(name.endswith(".npy") for name in names):
        what, hint = "a NumPy .npz archive, not a checkpoint", ""
    else:
        what = f"a zip archive of {len(names)} files, none of which torch.save wrote"
        hint = "unpack it and give the checkpoint inside"
    raise CheckpointError(f"this is {what}", where=str(path), hint=hint)


def _check_entries(path: Path) -> None:
    """Count the entries by their signature: zipfile would first make an object of each."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = itertools.islice(re.finditer(rb"PK\x01\x02", data), MOST_ENTRIES + 1)
        count = sum(1 for _ in found)
        del found  # the map closes only without it
    if count > MOST_ENTRIES:
        raise CheckpointError(f"the archive has more than {MOST_ENTRIES} entries", where=str(path))


def _is_safetensors(head: bytes) -> bool:
    header = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and header < _SAFETENSORS_HEADER_LIMIT


def _describe(head: bytes) -> tuple[str, str]:
    for start, what, hint in _KNOWN:
        if head.startswith(start):
            return what, hint
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it and give the checkpoint inside"
    if _is_onnx(head):
        return "an ONNX model", "give the PyTorch checkpoint; to-ncnn reads ONNX"
    if head.lstrip()[:1] == b"<":
        return "a web page or XML text", "the download went wrong; fetch the file itself"
    if _is_text(head):
        return "a text file", "give the file that torch.save or safetensors wrote"
    return f"a file that starts with the bytes {head[:8].hex(' ')}", _AGAIN


def _is_onnx(head: bytes) -> bool:
    """An ONNX file is a protobuf message: field 1 (IR version), then a producer or the graph."""
    return (
        head[0] == 0x08
        and head[1:2] < b"\x40"
        and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42")
    )


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the end may be cut off
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)
