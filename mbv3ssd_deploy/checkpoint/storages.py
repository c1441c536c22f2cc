"""The values of the tensors that a pickle describes, once the description is found sound.

Every number is held against the storage, and the storage against the file, before a byte is read or
allocated: a hostile description costs neither memory nor a read outside of what the file holds.
"""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from mbv3ssd_deploy.checkpoint.pickled_tensors import StoredArray, StoredTensor
from mbv3ssd_deploy.errors import CheckpointError


class Storages(Protocol):
    """The storages of one file."""

    def read(self, array: StoredArray) -> torch.Tensor:
        """Return the whole storage, 1-D, as a copy.

        Raises:
            CheckpointError: it is not in the file, or not in the length that the pickle says.
        """


class Values:
    """The values of tensors, each storage read once."""

    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._read: dict[str, torch.Tensor] = {}

    def of(self, tensor: StoredTensor, name: str) -> torch.Tensor:
        """Return `tensor`, found under `name`; tensors that share a storage go on sharing it.

        Raises:
            CheckpointError: its numbers do not fit its storage, or the storage not the file.
        """
        tensor.check(name)
        array = tensor.storage
        if array.key not in self._read:
            self._read[array.key] = self._storages.read(array)
        whole = self._read[array.key]
        return whole.as_strided(tensor.size, tensor.stride, array.first + tensor.offset)


@dataclass(frozen=True, slots=True)
class ZipStorages:
    """Storages of the container that torch.save writes since 1.6: one stored entry each."""

    archive: zipfile.ZipFile
    folder: str
    file_size: int

    def read(self, array: StoredArray) -> torch.Tensor:
        """See `Storages`."""
        data = self.entry(f"data/{array.key}", array.count * array.dtype.itemsize)
        return _values(bytearray(data), array.dtype)

    def entry(self, name: str, size: int | None = None) -> bytes:
        """Return the bytes of an entry, which must be `size` long where that is given."""
        try:
            info = self.archive.getinfo(f"{self.folder}{name}")
        except KeyError:
            raise CheckpointError(f"the archive has no entry {name!r}") from None
        # without this, a few bytes that unpack to gigabytes would be unpacked
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self.file_size:
            raise CheckpointError(f"entry {name!r} is compressed, or longer than the file")
        if size is not None and info.file_size != size:
            raise CheckpointError(f"entry {name!r} has {info.file_size} bytes instead of {size}")
        return self.archive.read(info)


@dataclass(frozen=True, slots=True)
class LegacyStorages:
    """Storages of the older container: behind the pickles, each a count and its raw elements."""

    data: mmap.mmap
    places: Mapping[str, tuple[int, int]]
    """Key -> (first byte, bytes)."""

    def read(self, array: StoredArray) -> torch.Tensor:
        """See `Storages`."""
        first, size = self.places.get(array.key, (0, -1))
        if size != array.count * array.dtype.itemsize:
            raise CheckpointError(f"storage {array.key!r} is not in the file as described")
        return _values(bytearray(self.data[first : first + size]), array.dtype)


def legacy_storages(
    data: mmap.mmap, keys: object, arrays: Mapping[str, StoredArray]
) -> LegacyStorages:
    """Return the storages that follow where `data` stands, in the order of `keys`.

    Raises:
        CheckpointError: the file is cut off, or holds what the pickle does not describe.
    """
    places: dict[str, tuple[int, int]] = {}
    first = data.tell()
    for key in keys if isinstance(keys, list) else ():
        array = arrays.get(key) if isinstance(key, str) else None
        if array is None:
            raise CheckpointError("the list of storages names one that no tensor uses")
        count = int.from_bytes(data[first : first + 8], "little", signed=True)
        size = array.count * array.dtype.itemsize
        first += 8
        if count != array.count or first + size > len(data):
            raise CheckpointError(
                f"the file is cut off or damaged: storage {key!r} has {array.count} elements "
                f"in the pickle and {count} in front of its data"
            )
        places[array.key] = (first, size)
        first += size
    return LegacyStorages(data, places)


def _values(data: bytearray, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
