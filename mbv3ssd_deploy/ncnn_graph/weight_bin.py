"""The .bin weight format, both ways. docs/formats/ncnn-bin.md describes it in prose.

Layer by layer, in the order of the .param lines, each layer's weights one after the other as the
layer table lists them. A flagged weight begins with a word that tells its storage; a raw one is
float32. Every weight is padded with zeros to a multiple of four bytes. Little-endian. There is no
header and no index: without the parameters the file cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.check import weight_problems
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.problems import one_message, title
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


def render_bin(graph: NcnnGraph) -> bytes:
    """Return the .bin bytes of `graph`.

    Raises:
        FormatError: weights that are missing, too long, not finite, or stored as they cannot be;
            all of them are named.
    """
    problems = tuple(f"{title(graph.layers[p.layer])}: {p.message}" for p in weight_problems(graph))
    if problems:
        raise FormatError(one_message(problems))
    return b"".join(_render_weight(field, weight) for field, weight in _blobs(graph))


def _blobs(graph: NcnnGraph) -> Iterator[tuple[WeightField, Weight]]:
    for layer in graph.layers:
        fields = (field for field, _ in LAYERS[layer.type].weights_of(layer.params))
        yield from zip(fields, layer.weights, strict=True)


def _render_weight(field: WeightField, weight: Weight) -> bytes:
    payload = weight.data.astype(_DTYPES[weight.storage]).tobytes()
    flag = FLAGS[weight.storage].to_bytes(WORD, "little") if field.flagged else b""
    return flag + payload + bytes(-len(payload) % WORD)


def parse_bin(graph: NcnnGraph, data: bytes, *, source: str = "<bytes>") -> NcnnGraph:
    """Return `graph` with the weights that `data` holds for it; weights come out one-dimensional.

    Float16 numbers are widened to float32, which is exact.

    Args:
        graph: the network, whose parameters decide how `data` is cut.
        data: the whole .bin file.
        source: what messages call the file.

    Raises:
        FormatError: `data` is shorter or longer than the parameters say, a weight is stored in a
            way we do not read, or its numbers are not finite.
    """
    cursor = _Cursor(data, source)
    layers = tuple(_layer_with_weights(layer, cursor) for layer in graph.layers)
    if cursor.offset != len(data):
        raise FormatError(
            f"{len(data) - cursor.offset} bytes follow the last weight, at byte {cursor.offset}",
            where=source,
            hint="the .param and the .bin do not belong to the same network",
        )
    full = NcnnGraph(layers)
    problems = tuple(f"{title(layers[p.layer])}: {p.message}" for p in weight_problems(full))
    if problems:
        raise FormatError(one_message(problems), where=source)
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
        _parse_weight(field, length, f"{field.role} of {title(layer)}", cursor)
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
