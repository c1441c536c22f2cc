"""NcnnGraph: an ncnn network in memory, layer by layer, in running order."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from mbv3ssd_deploy.errors import FormatError

Param = int | float | tuple[int, ...] | tuple[float, ...]

# Blobs of the networks that we make: the body's, and those of the SSD tail (`ssd_tail`).
INPUT: Final = "input"
LOC: Final = "loc"
CONF: Final = "conf"
MBOX_LOC: Final = "mbox_loc"
MBOX_CONF: Final = "mbox_conf"
MBOX_CONF_SOFTMAX: Final = "mbox_conf_softmax"
MBOX_PRIORBOX: Final = "mbox_priorbox"
DETECTION_OUT: Final = "detection_out"
TAIL_BLOBS: Final = (MBOX_LOC, MBOX_CONF, MBOX_CONF_SOFTMAX, MBOX_PRIORBOX, DETECTION_OUT)


class Storage(enum.StrEnum):
    """How a weight is stored in the .bin file; whether a tag precedes it is in the layer table."""

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

    @property
    def title(self) -> str:
        """The layer's type and name, as messages show it."""
        return f"{self.type} {self.name!r}"


@dataclass(frozen=True, slots=True)
class NcnnGraph:
    """A whole network.

    While it is being edited, a blob may have several consumers; `edit.insert_splits` then gives
    each its own copy, which ncnn requires.
    """

    layers: tuple[NcnnLayer, ...]

    @property
    def blob_count(self) -> int:
        """The number of blobs that the layers make; the second number of a .param file."""
        return len({blob for layer in self.layers for blob in layer.outputs})


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault, and the index of the layer that has it."""

    layer: int
    message: str


def raise_problems(problems: Sequence[str], where: str = "") -> None:
    """Raise FormatError with the problems as one sentence, or as a counted list; none is fine."""
    if problems:
        counted = (f"{len(problems)} problems:", *problems)
        raise FormatError(problems[0] if len(problems) == 1 else "\n  ".join(counted), where=where)
