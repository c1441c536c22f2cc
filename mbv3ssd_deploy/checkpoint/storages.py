"""Tensors as a pickle of torch.save describes them, and their values in the file.

While the pickle is read, a tensor is only a record: storage, offset, size, stride. Every number is
checked against the storage, and the storage against the file, before memory is allocated: a hostile
description costs nothing and reads nothing outside of what the file holds.
"""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch

from mbv3ssd_deploy.checkpoint.inert_pickle import Call, Global, Inert, InertUnpickler, key_of
from mbv3ssd_deploy.checkpoint.keymap import printable
from mbv3ssd_deploy.errors import CheckpointError

_DTYPES: Mapping[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    # the dtype follows with the tensor (`_rebuild_tensor_v3`); such a storage counts bytes
    "torch.storage.UntypedStorage": torch.uint8,
    # quantised integers, whose scale comes with the tensor
    "torch.QInt8Storage": torch.int8,
    "torch.QUInt8Storage": torch.uint8,
    "torch.QInt32Storage": torch.int32,
}
_DIMENSIONS = 64
"""PyTorch computes with no more."""
_LARGEST = 2**62
"""Sizes are int64 in PyTorch; a sum of two of them must not wrap around."""
_STORAGE_ID = 6
"""Parts of a storage's persistent id: word, type, key, location, count, view (legacy only)."""
_MODULE_ID = 4
"""Parts of a class's persistent id in legacy files: word, class, source file, source text."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredArray:
    """A storage that the file names: `count` elements of `dtype` under `key`.

    Attributes:
        first: where a view of the storage begins, in elements; 0 for the storage itself.
        length: how many elements the view has; `count` for the storage itself.
    """

    key: str
    dtype: torch.dtype
    count: int
    first: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor that the file describes; nothing in it has been checked but its types."""

    storage: StoredArray
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def overlaps(self) -> bool:
        """Whether elements share a place, so that it has more of them than the file holds."""
        reach = 0  # of the dimensions so far, from the finest to the coarsest
        for stride, size in sorted(zip(self.stride, self.size, strict=True)):
            if size > 1 and stride <= reach and 0 not in self.size:
                return True
            reach += max(size - 1, 0) * stride
        return False

    def check(self, name: str) -> None:
        """Check that the tensor lies within its storage.

        Raises:
            CheckpointError: it does not.
        """
        problem = self._problem()
        if problem:
            raise CheckpointError(f"tensor {printable(name)} is broken: it {problem}")

    def _problem(self) -> str:
        if len(self.size) != len(self.stride):
            return f"has {len(self.size)} dimensions and {len(self.stride)} strides"
        if min((self.offset, *self.size, *self.stride)) < 0:
            return "has a negative offset, size or stride"
        if max((self.offset, *self.size, *self.stride)) > _LARGEST:
            return "has an impossible offset, size or stride"
        reach = sum(
            (size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True)
        )
        needed = self.offset + (reach + 1 if 0 not in self.size else 0)
        if needed > self.storage.length:
            return f"needs {needed} elements of a storage of {self.storage.length}"
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class UnusableTensor:
    """A tensor of a kind that no network here can use; `why` follows its name."""

    why: str
    size: tuple[int, ...]


class TensorUnpickler(InertUnpickler):
    """Reads a pickle of torch.save; tensors become records.

    Attributes:
        arrays: the storages that the pickle named, by key.
    """

    def __init__(self) -> None:
        super().__init__(CALLS, self._persistent)
        self.arrays: dict[str, StoredArray] = {}

    def _persistent(self, identity: object) -> object:
        parts = identity if isinstance(identity, tuple) else ()
        if len(parts) == _MODULE_ID and parts[0] == "module":
            return parts[1]  # the class; its source text is not needed
        if len(parts) in (_STORAGE_ID - 1, _STORAGE_ID) and parts[0] == "storage":
            array = _stored_array(parts[1:])
            known = self.arrays.setdefault(array.key, array)
            if (known.dtype, known.count) != (array.dtype, array.count):
                raise CheckpointError(f"storage {printable(array.key)} has two descriptions")
            return array
        raise CheckpointError("the pickle has a persistent id that torch.save does not write")


def _stored_array(parts: tuple[object, ...]) -> StoredArray:
    type_, key, _, count, *views = parts
    dtype = _DTYPES.get(type_.name) if isinstance(type_, Global) else None
    first, length = _view(views[0] if views else None, count)
    if dtype is None or not isinstance(key, str) or not isinstance(count, int):
        raise CheckpointError("the pickle has a storage of an unknown type")
    if min(count, first, length, count - first - length) < 0:
        raise CheckpointError(f"storage {printable(key)} has an impossible length")
    return StoredArray(key, dtype, count, first, length)


def _view(view: object, count: object) -> tuple[int, int]:
    match (None, 0, count) if view is None else view:
        case (_, int(first), int(length)):
            return first, length
    raise CheckpointError("the pickle has a storage of unknown length")


def _tensor(arguments: tuple[object, ...]) -> StoredTensor | UnusableTensor:
    """Return the tensor of `torch._utils._rebuild_tensor` or, with more arguments, `..._v2`."""
    match arguments:
        case (StoredArray() as storage, int(offset), tuple(size), tuple(stride), *more):
            if _are_numbers(size) and _are_numbers(stride):
                if any(more[2:]):  # behind requires_grad and hooks: conjugated or negated views
                    return UnusableTensor("is a conjugated or negated view", size)
                return StoredTensor(storage, offset, size, stride)
    raise CheckpointError("the pickle has a tensor of an unknown form")


def _unusable(why: str) -> Call:
    return lambda arguments: UnusableTensor(why, _size_in(arguments))


def _size_in(arguments: tuple[object, ...]) -> tuple[int, ...]:
    """Return the first tuple of numbers among the arguments of a rebuild function."""
    nested = (part for one in arguments if isinstance(one, tuple) for part in one)
    for part in (*arguments, *nested):
        if isinstance(part, tuple) and part and _are_numbers(part) and max(part) < _LARGEST:
            return part
    return ()


def _untyped(arguments: tuple[object, ...]) -> UnusableTensor:
    """Return the tensor of `_rebuild_tensor_v3`, written for dtypes that have no storage type."""
    dtype = arguments[6] if len(arguments) > 6 else None
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else "of an unknown dtype"
    return UnusableTensor(f"is {name}, not a float", _size_in(arguments))


def _are_numbers(numbers: tuple[object, ...]) -> TypeGuard[tuple[int, ...]]:
    return len(numbers) <= _DIMENSIONS and all(type(number) is int for number in numbers)


def _parameter(arguments: tuple[object, ...]) -> StoredTensor | UnusableTensor:
    if arguments and isinstance(arguments[0], StoredTensor | UnusableTensor):
        return arguments[0]
    raise CheckpointError("the pickle has a parameter without a tensor")


def _subclass(arguments: tuple[object, ...]) -> object:
    """Return the tensor of `_rebuild_from_type_v2`: its function, type, arguments and state."""
    match arguments:
        case (Global(name), _, tuple(inner), *_) if name in CALLS:
            return CALLS[name](inner)
    raise CheckpointError("the pickle has a tensor of an unknown form")


def _dict(arguments: tuple[object, ...]) -> dict[object, object]:
    """Return an OrderedDict or dict: empty, or of the pairs that Python 2 wrote."""
    pairs = arguments[0] if arguments else []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise CheckpointError("the pickle has a dictionary of an unknown form")
    entries = {key_of(key): value for key, value in pairs}
    pairs.clear()  # moved, not copied: else a short file could make many of one
    return entries


def _size(arguments: tuple[object, ...]) -> object:
    return arguments[0] if arguments else ()


def _valueless(name: str) -> Call:
    """Return a call whose result is not needed: a number or device of a training script."""
    return lambda arguments: Inert(name, state=arguments)


def _set(arguments: tuple[object, ...]) -> Inert:
    elements = arguments[0] if arguments else []
    if not isinstance(elements, list):
        raise CheckpointError("the pickle has a set of an unknown form")
    return Inert("builtins.set", elements=elements)


CALLS: Mapping[str, Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _untyped,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch._utils._rebuild_qtensor": _unusable("is quantised"),
    "torch._utils._rebuild_sparse_tensor": _unusable("is sparse"),
    "torch._utils._rebuild_nested_tensor": _unusable("is nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unusable("has a shape but no values"),
    "torch._utils._rebuild_wrapper_subclass": _unusable("is a subclass without values"),
    "torch.serialization._get_layout": lambda _: None,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda _: {},
    "builtins.dict": _dict,
    "__builtin__.dict": _dict,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch.Size": _size,
} | {
    name: _valueless(name)
    for name in (
        "torch.device",
        "torch.per_tensor_affine",
        "collections.Counter",
        "_codecs.encode",
        "builtins.bytearray",
        "__builtin__.bytearray",
        "builtins.complex",
        "__builtin__.complex",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
    )
}
"""All that a pickle may call, with the answers given here; none of it is the original."""


class Storages(Protocol):
    """The storages of one file."""

    def read(self, array: StoredArray) -> torch.Tensor:
        """Return the whole storage, 1-D, as a copy.

        Raises:
            CheckpointError: it is not in the file, or has another length than the pickle says.
        """


class Values:
    """The values of tensors; each storage is read once, and no more than the file holds."""

    def __init__(self, storages: Storages, file_size: int) -> None:
        self._storages = storages
        self._left = file_size
        self._read: dict[str, torch.Tensor] = {}

    def of(self, tensor: StoredTensor, name: str) -> torch.Tensor:
        """Return `tensor`, found under `name`; tensors of one storage go on sharing it.

        Raises:
            CheckpointError: its numbers do not fit its storage, or the storage not the file.
        """
        tensor.check(name)
        array = tensor.storage
        if array.key not in self._read:
            self._left -= array.count * array.dtype.itemsize
            if self._left < 0:
                raise CheckpointError("its storages are larger than the file: they overlap")
            self._read[array.key] = self._storages.read(array)
        whole = self._read[array.key]
        return whole.as_strided(tensor.size, tensor.stride, array.first + tensor.offset)


@dataclass(frozen=True, slots=True)
class ZipStorages:
    """Storages of the container that torch.save writes since 1.6: one uncompressed entry each."""

    archive: zipfile.ZipFile
    folder: str
    file_size: int

    def read(self, array: StoredArray) -> torch.Tensor:
        """See `Storages`."""
        data = self.entry(f"data/{array.key}", array.count * array.dtype.itemsize)
        return _values(data, array.dtype)

    def entry(self, name: str, size: int | None = None) -> bytearray:
        """Return the bytes of an entry, which must be `size` long if that is given.

        Raises:
            CheckpointError: it is missing, compressed, encrypted, or of another length.
        """
        shown = printable(name)
        try:
            info = self.archive.getinfo(f"{self.folder}{name}")
        except KeyError:
            raise CheckpointError(f"the archive has no entry {shown}") from None
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointError(
                f"entry {shown} of the archive is compressed or encrypted",
                hint="torch.save does neither: unpack it, and zip it again with `zip -0 -r`",
            )
        if info.file_size > self.file_size:
            raise CheckpointError(f"entry {shown} of the archive is longer than the file")
        if size is not None and info.file_size != size:
            raise CheckpointError(f"entry {shown} has {info.file_size} bytes instead of {size}")
        data = bytearray(info.file_size)
        with self.archive.open(info) as file:
            view, done = memoryview(data), 0
            while done < len(data):
                count = file.readinto(view[done:])  # type: ignore[attr-defined]  # it is buffered
                if not count:
                    raise CheckpointError(f"entry {shown} of the archive ends too early")
                done += count
            file.read(1)  # at the end, zipfile compares the checksum
        return data


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
            raise CheckpointError(f"storage {printable(array.key)} is not in the file as described")
        return _values(bytearray(self.data[first : first + size]), array.dtype)


def legacy_storages(
    data: mmap.mmap, keys: object, arrays: Mapping[str, StoredArray]
) -> LegacyStorages:
    """Return the storages that follow the position of `data`, in the order of `keys`.

    Raises:
        CheckpointError: the file is truncated, or holds what the pickle does not describe.
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
                f"the file is truncated or damaged: storage {printable(array.key)} has "
                f"{array.count} elements in the pickle and {count} before its data"
            )
        places[array.key] = (first, size)
        first += size
    return LegacyStorages(data, places)


def _values(data: bytearray, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
