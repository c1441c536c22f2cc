"""NcnnGraph: an ncnn network in memory, layer by layer, in running order."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Param = int | float | tuple[int, ...] | tuple[float, ...]


class Storage(enum.StrEnum):
    """How a weight lies in the .bin file. Whether a tag precedes it is the layer table's matter."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """One weight blob of a layer: its role in the layer table, its numbers, its storage.

    `data` is float32 (int8 for INT8 storage) of any shape, in C order, and read-only. With FLOAT16
    storage it holds the float32 numbers before rounding in a graph that we make, and the rounded
    ones in a graph that was read from a file.
    """

    role: str
    data: npt.NDArray[np.float32] | npt.NDArray[np.int8]
    storage: Storage = Storage.FLOAT32

    def __post_init__(self) -> None:
        data = np.ascontiguousarray(self.data)
        if data is self.data or data.base is not None:
            data = data.copy()
        data.setflags(write=False)
        object.__setattr__(self, "data", data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Weight):
            return NotImplemented
        same_kind = (self.role, self.storage) == (other.role, other.storage)
        return same_kind and np.array_equal(self.data.ravel(), other.data.ravel(), equal_nan=True)

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


@dataclass(frozen=True, slots=True)
class NcnnLayer:
    """One line of a .param file, and its blobs in the .bin file.

    Parameters are kept by name, never by number; `ncnn_graph.layers` knows the numbers. A parameter
    that equals ncnn's default is left out.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, Param] = field(default_factory=lambda: MappingProxyType({}))
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True, slots=True)
class NcnnGraph:
    """A whole network.

    While it is being edited, a blob may have several consumers; `insert_split` then gives each its
    own copy, which ncnn requires.
    """

    layers: tuple[NcnnLayer, ...]

    @property
    def blob_count(self) -> int:
        """How many blobs the layers produce; the second number of a .param file."""
        return len({blob for layer in self.layers for blob in layer.outputs})
