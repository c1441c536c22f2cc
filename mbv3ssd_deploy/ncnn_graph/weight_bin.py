"""The .bin weight format, both ways. docs/formats/ncnn-bin.md describes it in prose.

Layer by layer, in the order of the .param lines, each layer's weights one after the other as the
layer table lists them. A flagged weight begins with a word that gives its storage; a raw one is
float32. Every weight is padded with zeros to a multiple of four bytes. Little-endian. There is no
header and no index: without the parameters the file cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.check import FLOAT16_MAX, find_weight_problems
from mbv3ssd_deploy.ncnn_graph.graph import (
    NcnnGraph,
    NcnnLayer,
    Storage,
    Weight,
    raise_problems,
)
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, LINEAR_TYPES
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param, text_of_param
from mbv3ssd_deploy.ncnn_graph.schema import WeightField

WORD: Final = 4
FLAGS: Final[Mapping[Storage, int]] = MappingProxyType(
    {Storage.FLOAT32: 0, Storage.FLOAT16: 0x01306B47, Storage.INT8: 0x000D4B38}
)
_DTYPES: Final[Mapping[Storage, np.dtype[np.generic]]] = MappingProxyType(
    {
        Storage.FLOAT32: np.dtype("<f4"),
        Storage.FLOAT16: np.dtype("<f2"),
        Storage.INT8: np.dtype("<i1"),
    }
)
_STORAGES: Final[Mapping[int, Storage]] = MappingProxyType(
    # The second word for float32 is ncnn's own; its tools write 0.
    {flag: storage for storage, flag in FLAGS.items()} | {0x0002C056: Storage.FLOAT32}
)
BFLOAT16_FLAG: Final = 0x01348B83

# ncnn's own tools write smaller weights as 0: denormal numbers slow arithmetic down.
SMALLEST_WEIGHT: Final = 1e-30
FLOAT16_SMALLEST_NORMAL: Final = 2.0**-14


def with_storage(graph: NcnnGraph, storage: Storage) -> NcnnGraph:
    """Return `graph` with the weights of convolutions and inner products stored as `storage`.

    Biases, scales and constants have no storage word in the file and stay float32. Weights below
    1e-30 become 0. A blob with a number that float16 cannot hold (beyond 65504) stays float32, and
    so does one whose numbers are all below 6.1e-5, where float16 loses digits and then everything;
    int8 weights are left as they are.

    Raises:
        ValueError: for INT8, which needs the scales of a calibration.
    """
    if storage is Storage.INT8:
        raise ValueError("int8 weights come from calibration, with their scales")
    layers = []
    for layer in graph.layers:
        if layer.type in LINEAR_TYPES and layer.weights:  # the first is flagged, and no other
            weight, *others = layer.weights
            layer = replace(layer, weights=(_weight_with(weight, storage), *others))  # noqa: PLW2901
        layers.append(layer)
    return NcnnGraph(tuple(layers))


def _weight_with(weight: Weight, storage: Storage) -> Weight:
    if weight.storage is Storage.INT8:
        return weight
    small = np.abs(weight.data) < SMALLEST_WEIGHT
    data = np.where(small, np.float32(0), weight.data).astype(np.float32)
    largest = float(np.abs(data).max(initial=0))
    fits = largest == 0 or FLOAT16_SMALLEST_NORMAL <= largest <= FLOAT16_MAX
    if storage is Storage.FLOAT16 and not fits:
        storage = Storage.FLOAT32
    return Weight(weight.role, data, storage)


def render_bin(graph: NcnnGraph) -> bytes:
    """Return the .bin bytes of `graph`.

    Raises:
        FormatError: weights are missing, too long, not finite, or stored as they cannot be; all of
            them are named.
    """
    raise_problems(find_weight_problems(graph))
    parts: list[bytes] = []
    for layer in graph.layers:
        fields = LAYERS[layer.type].weights_of(layer.params)
        for (field, _), weight in zip(fields, layer.weights, strict=True):
            payload = weight.data.astype(_DTYPES[weight.storage]).tobytes()
            flag = FLAGS[weight.storage].to_bytes(WORD, "little") if field.flagged else b""
            parts += [flag, payload, bytes(-len(payload) % WORD)]
    return b"".join(parts)


def read_ncnn(param_path: Path, bin_path: Path) -> NcnnGraph:
    """Read a .param and its .bin, strictly: exact counts, exact length, nothing unknown.

    Raises:
        FormatError: a file is missing or broken; `where` gives the file and the line.
    """
    graph = parse_param(text_of_param(param_path), source=str(param_path))
    try:
        data = bin_path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=str(bin_path)) from error
    return parse_bin(graph, data, source=str(bin_path))


def parse_bin(graph: NcnnGraph, data: bytes, *, source: str = "<bytes>") -> NcnnGraph:
    """Return `graph` with its weights from `data`; they come out one-dimensional.

    The parameters of `graph` decide how `data`, a whole .bin file, is cut. Float16 numbers are
    widened to float32, which is exact.

    Raises:
        FormatError: `data` is shorter or longer than the parameters say, a weight is stored in a
            way we do not read, or its numbers are not finite.
    """
    cursor = _Cursor(data, source)
    full = NcnnGraph(tuple(_layer_with_weights(layer, cursor) for layer in graph.layers))
    if cursor.offset != len(data):
        raise FormatError(
            f"{len(data) - cursor.offset} bytes follow the last weight, at byte {cursor.offset}",
            where=source,
            hint="the .param and the .bin do not belong to the same network",
        )
    raise_problems(find_weight_problems(full), source)
    return full


@dataclass(slots=True)
class _Cursor:
    """Where in the file the next weight begins."""

    data: bytes
    source: str
    offset: int = 0

    def take(self, count: int, what: str) -> bytes:
        """Return the next `count` bytes, and step over them and their padding."""
        end = self.offset + count
        if end > len(self.data):
            raise FormatError(
                f"the file ends at byte {len(self.data)}, within {what}, "
                f"which needs {count} bytes from byte {self.offset}",
                where=self.source,
                hint="the file is cut off, or the .param belongs to another network",
            )
        chunk = self.data[self.offset : end]
        self.offset = end + -end % WORD
        return chunk


def _layer_with_weights(layer: NcnnLayer, cursor: _Cursor) -> NcnnLayer:
    weights = tuple(
        _parse_weight(field, length, f"{field.role} of {layer.title}", cursor)
        for field, length in LAYERS[layer.type].weights_of(layer.params)
    )
    return replace(layer, weights=weights)


def _parse_weight(field: WeightField, length: int, what: str, cursor: _Cursor) -> Weight:
    storage = _parse_flag(what, cursor) if field.flagged else Storage.FLOAT32
    dtype = _DTYPES[storage]
    numbers = np.frombuffer(cursor.take(length * dtype.itemsize, what), dtype=dtype)
    if storage is Storage.INT8:
        return Weight(field.role, numbers.astype(np.int8), storage)
    return Weight(field.role, numbers.astype(np.float32), storage)


def _parse_flag(what: str, cursor: _Cursor) -> Storage:
    start = cursor.offset
    word = int.from_bytes(cursor.take(WORD, f"the storage word of {what}"), "little")
    if word in _STORAGES:
        return _STORAGES[word]
    kind = "bfloat16" if word == BFLOAT16_FLAG else "of an unknown storage (a table, perhaps)"
    raise FormatError(
        f"{what} is {kind}: the word at byte {start} is 0x{word:08X}",
        where=cursor.source,
        hint="the .bin may belong to another .param; float32, float16 and int8 are read",
    )
