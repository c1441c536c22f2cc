"""Read a checkpoint file without running anything in it.

One inert reader serves every file: `inert_pickle` gives the pickle's opcodes a meaning without
classes, `storages` takes the tensors from the file, `state_dict` finds the weights among what was
saved. `torch.load` never reads a user's file. Whatever a parser raises becomes a CheckpointError.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import safetensors
import torch

from mbv3ssd_deploy.checkpoint.container import Container, container_of
from mbv3ssd_deploy.checkpoint.keymap import printable
from mbv3ssd_deploy.checkpoint.native_file import (
    CLASSIFIER_FORMAT,
    entries_from_metadata,
    spec_json_from_mapping,
)
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint, class_names_in, find_state_dict
from mbv3ssd_deploy.checkpoint.storages import (
    StoredTensor,
    TensorUnpickler,
    UnusableTensor,
    Values,
    ZipStorages,
    legacy_storages,
)
from mbv3ssd_deploy.errors import CheckpointError, DeployError
from mbv3ssd_deploy.io.files import sha256_of_file

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LARGEST_PICKLE = 64_000_000
"""Bytes of `data.pkl`, which holds no weights."""
_MOST_NODES = 1_000_000
_DEPTH = 64
_AGAIN = "copy or download it again"


def read_checkpoint(path: Path, *, averaged: bool = False) -> RawCheckpoint:
    """Return the weights in the file at `path`, under its own keys.

    Args:
        path: the file.
        averaged: take the averaged (EMA) weights, not the plain ones.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no weights.
        UnsafeCheckpointError: it would run code; nothing was run.
    """
    container = container_of(path)
    with _errors_of(path):
        if container is Container.SAFETENSORS:
            return _raw(path, container, _read_safetensors(path), None, averaged=averaged)
        with _opened(path, container) as (saved, values):
            return _raw(path, container, saved, values, averaged=averaged)


def read_saved(path: Path) -> object:
    """Return all that torch.save wrote to the file at `path`: plain containers and tensors.

    Objects of other classes stay inert. Tensors of one storage go on sharing it.

    Raises:
        CheckpointError: the file is missing or damaged, or nests without end.
        UnsafeCheckpointError: it would run code; nothing was run.
    """
    container = container_of(path)
    with _errors_of(path):
        if container is Container.SAFETENSORS:
            return _read_safetensors(path)
        with _opened(path, container) as (saved, values):
            return _Filler(values).filled(saved)


def _raw(
    path: Path, container: Container, saved: object, values: Values | None, *, averaged: bool
) -> RawCheckpoint:
    entries = saved if isinstance(saved, dict) else {}
    found = find_state_dict(saved, averaged=averaged)
    wrapping = found.wrapping
    if container is Container.SAFETENSORS:  # it holds tensors only, without wrappers
        wrapping = tuple(text for text in wrapping if text.startswith("prefix"))
    tensors: dict[str, torch.Tensor] = {}
    unusable: dict[str, str] = {}
    for key, entry in found.tensors.items():
        if isinstance(entry, UnusableTensor):
            unusable[key], tensors[key] = entry.why, torch.empty(entry.size, device="meta")
        elif isinstance(entry, StoredTensor):
            if values is None:
                raise CheckpointError("the file describes tensors that it does not hold")
            tensors[key] = values.of(entry, key)
            if entry.overlaps:
                unusable[key] = "has more elements than the file holds"
        else:
            tensors[key] = entry
    return RawCheckpoint(
        path=path,
        sha256=sha256_of_file(path),
        container=container,
        wrapping=wrapping,
        tensors=tensors,
        spec_json=spec_json_from_mapping(entries),
        notices=found.notices,
        class_names=class_names_in(saved),
        classifier_json=spec_json_from_mapping(entries, CLASSIFIER_FORMAT),
        unusable=unusable,
        module=found.module,
    )


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes a parser raise into a CheckpointError of `path`."""
    try:
        yield
    except CheckpointError as error:
        error.where = error.where or str(path)
        raise
    except DeployError:
        raise
    except MemoryError as error:
        raise CheckpointError(
            "there is not enough memory to read the file", where=str(path)
        ) from error
    except Exception as error:
        raise CheckpointError(
            "the file is damaged or not a checkpoint", where=str(path), hint=_AGAIN
        ) from error


@contextlib.contextmanager
def _opened(path: Path, container: Container) -> Iterator[tuple[object, Values]]:
    """Yield what was saved, its tensors as records, and their values."""
    if container is Container.TORCH_ZIP:
        with zipfile.ZipFile(path) as archive:
            yield _read_zip(archive, path.stat().st_size)
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        yield _read_legacy(data)


def _read_zip(archive: zipfile.ZipFile, file_size: int) -> tuple[object, Values]:
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise CheckpointError("the archive has two entries of one name")
    pickled = next(n for n in names if n.rsplit("/", 1)[-1] == "data.pkl")
    storages = ZipStorages(archive, pickled.removesuffix("data.pkl"), file_size)
    if f"{storages.folder}byteorder" in names:
        _check_byte_order(is_little=storages.entry("byteorder") == b"little")
    if archive.getinfo(pickled).file_size > _LARGEST_PICKLE:
        raise CheckpointError(f"its data.pkl is larger than {_LARGEST_PICKLE // 1_000_000} MB")
    saved = TensorUnpickler().load(io.BytesIO(storages.entry("data.pkl")))
    return saved, Values(storages, file_size)


def _read_legacy(data: mmap.mmap) -> tuple[object, Values]:
    # a memory map reads as BinaryIO does
    magic, protocol, system = (TensorUnpickler().load(data) for _ in range(3))  # type: ignore[arg-type]
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise CheckpointError("the file is a pickle, but not one of torch.save")
    is_little = isinstance(system, dict) and system.get("little_endian") is True
    _check_byte_order(is_little=is_little)
    unpickler = TensorUnpickler()
    saved = unpickler.load(data)  # type: ignore[arg-type]
    keys = TensorUnpickler().load(data)  # type: ignore[arg-type]
    return saved, Values(legacy_storages(data, keys, unpickler.arrays), len(data))


def _check_byte_order(*, is_little: bool) -> None:
    if not is_little:
        raise CheckpointError("its numbers are big-endian, which only PyTorch itself reads")


class _Filler:
    """Copies what was saved, with the values of its tensors."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._nodes = 0

    def filled(self, saved: object, name: str = "of the file", depth: int = 0) -> object:
        """Return `saved`, found under `name`, with its tensors read.

        Raises:
            CheckpointError: too many parts, which short files with shared parts can have.
        """
        self._nodes += 1
        if self._nodes > _MOST_NODES or depth > _DEPTH:
            raise CheckpointError(
                f"the file nests more than {_DEPTH} deep, or has more than {_MOST_NODES} parts"
            )
        if isinstance(saved, StoredTensor):
            return self._values.of(saved, name)
        if isinstance(saved, dict):
            # printable, not str: an inert object as a key could show as endless text
            return {k: self.filled(v, printable(k), depth + 1) for k, v in saved.items()}
        if isinstance(saved, list):
            return [self.filled(value, name, depth + 1) for value in saved]
        if isinstance(saved, tuple):
            return tuple(self.filled(value, name, depth + 1) for value in saved)
        return saved


def _read_safetensors(path: Path) -> dict[str, object]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the safetensors file is damaged: {printable(str(error), 200)}",
            where=str(path),
            hint=_AGAIN,
        ) from error
    entries = entries_from_metadata(metadata)
    return {**entries, "state_dict": tensors} if entries else {**tensors}
