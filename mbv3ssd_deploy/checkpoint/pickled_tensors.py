"""Tensors as a pickle of torch.save describes them, and the table of all that it may call.

While the pickle is read, a tensor is only a record: storage, offset, size, stride. `storages` takes
its values from the file when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch

from mbv3ssd_deploy.checkpoint.inert_objects import Global, Inert, key_of
from mbv3ssd_deploy.checkpoint.inert_pickle import Call, InertUnpickler
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
}
_DIMENSIONS = 64
"""PyTorch computes with no more."""
_LARGEST = 2**62
"""Sizes are int64 in PyTorch; sums of two of them shall not wrap around."""
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

    def check(self, name: str) -> None:
        """Raise CheckpointError unless the tensor lies within its storage, each element once."""
        problem = self._problem()
        if problem:
            raise CheckpointError(f"tensor {name} is broken: it {problem}")

    def _problem(self) -> str:
        if len(self.size) != len(self.stride):
            return f"has {len(self.size)} dimensions and {len(self.stride)} strides"
        if min((self.offset, *self.size, *self.stride)) < 0:
            return "has a negative offset, size or stride"
        if max((self.offset, *self.size, *self.stride)) > _LARGEST:
            return "has an impossible offset, size or stride"
        reach = 0  # of the dimensions so far, from the finest to the coarsest
        for stride, size in sorted(zip(self.stride, self.size, strict=True)):
            if size > 1 and stride <= reach and 0 not in self.size:
                return "has elements that overlap"
            reach += max(size - 1, 0) * stride
        needed = self.offset + (reach + 1 if 0 not in self.size else 0)
        if needed > self.storage.length:
            return f"needs {needed} elements of a storage of {self.storage.length}"
        return ""


class TensorUnpickler(InertUnpickler):
    """Reads a pickle of torch.save; tensors come out as records.

    Attributes:
        arrays: the storages that the pickle named, by key.
    """

    def __init__(self) -> None:
        super().__init__(CALLS, self._persistent)
        self.arrays: dict[str, StoredArray] = {}

    def _persistent(self, identity: object) -> object:
        parts = identity if isinstance(identity, tuple) else ()
        if len(parts) == _MODULE_ID and parts[0] == "module":
            return parts[1]  # the class; its source text is of no use to us
        if len(parts) in (_STORAGE_ID - 1, _STORAGE_ID) and parts[0] == "storage":
            array = _stored_array(parts[1:])
            known = self.arrays.setdefault(array.key, array)
            if (known.dtype, known.count) != (array.dtype, array.count):
                raise CheckpointError(f"storage {array.key!r} is described in two ways")
            return array
        raise CheckpointError("the pickle has a persistent id that torch.save does not write")


def _stored_array(parts: tuple[object, ...]) -> StoredArray:
    type_, key, _, count, *views = parts
    dtype = _DTYPES.get(type_.name) if isinstance(type_, Global) else None
    first, length = _view(views[0] if views else None, count)
    if dtype is None or not isinstance(key, str) or not isinstance(count, int):
        raise CheckpointError("the pickle has a storage of no known type")
    if min(count, first, length, count - first - length) < 0:
        raise CheckpointError(f"storage {key!r} has an impossible length")
    return StoredArray(key, dtype, count, first, length)


def _view(view: object, count: object) -> tuple[int, int]:
    match (None, 0, count) if view is None else view:
        case (_, int(first), int(length)):
            return first, length
    raise CheckpointError("the pickle has a storage of no known length")


def _tensor(arguments: tuple[object, ...]) -> StoredTensor:
    """Return the tensor of `torch._utils._rebuild_tensor` or, with more arguments, `..._v2`."""
    match arguments:
        case (StoredArray() as storage, int(offset), tuple(size), tuple(stride), *more):
            metadata = more[2:]  # behind requires_grad and hooks; conjugated or negated views
            if _are_numbers(size) and _are_numbers(stride) and not any(metadata):
                return StoredTensor(storage, offset, size, stride)
    raise CheckpointError("the pickle has a tensor of no known form")


def _are_numbers(numbers: tuple[object, ...]) -> TypeGuard[tuple[int, ...]]:
    return len(numbers) <= _DIMENSIONS and all(type(number) is int for number in numbers)


def _parameter(arguments: tuple[object, ...]) -> StoredTensor:
    if arguments and isinstance(arguments[0], StoredTensor):
        return arguments[0]
    raise CheckpointError("the pickle has a parameter without a tensor")


def _dict(arguments: tuple[object, ...]) -> dict[object, object]:
    """Return an OrderedDict or dict: empty, or from the pairs that Python 2 gave it."""
    pairs = arguments[0] if arguments else []
    if not isinstance(pairs, list) or not all(isinstance(p, list | tuple) for p in pairs):
        raise CheckpointError("the pickle has a dictionary of no known form")
    entries = {key_of(key): value for key, value in pairs}
    pairs.clear()  # moved, not copied: else a short file could make many of one
    return entries


def _size(arguments: tuple[object, ...]) -> object:
    return arguments[0] if arguments else ()


def _valueless(name: str) -> Call:
    """Return the call whose result nobody here needs: a number or device of a training script."""
    return lambda arguments: Inert(name, state=arguments)


def _set(arguments: tuple[object, ...]) -> Inert:
    elements = arguments[0] if arguments else []
    if not isinstance(elements, list):
        raise CheckpointError("the pickle has a set of no known form")
    return Inert("builtins.set", elements=elements)


CALLS: Mapping[str, Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
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
        "collections.Counter",
        "_codecs.encode",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
    )
}
"""All that a pickle may call, as it is answered here; none of it is the original."""
