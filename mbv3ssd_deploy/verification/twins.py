"""The shipped ncnn weights against body.onnx's, and the shipped graph without rounding.

A .bin file with half precision proves little about the graph beside it: heads a hundredth away may
be rounding or a mistake. So the two are told apart. Every stored weight must be what body.onnx
gives, rounded once; and the shipped graph is run with the unrounded weights put back, where heads
must agree closely. A weight that does not correspond stays as shipped, mistake and all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Storage, Weight
from mbv3ssd_deploy.verification.reasons import Code, Reason

_NAMED = 5
"""How many layers are named; a file of another model would name them all."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A shipped graph with the weights of body.onnx at full precision.

    Attributes:
        graph: the shipped layers, in float32.
        weights: how many weight blobs the shipped file has.
        numbers: how many numbers are in them.
        reasons: the blobs that are not those of body.onnx.
    """

    graph: NcnnGraph
    weights: int
    numbers: int
    reasons: tuple[Reason, ...]


def with_full_precision(shipped: NcnnGraph, again: NcnnGraph) -> Twin:
    """Return the twin of `shipped`.

    Args:
        shipped: read from the bundle's files.
        again: what lowering body.onnx gives today, weights at full precision.
    """
    sources = {layer.name: layer for layer in again.layers}
    layers, found = [], []
    for layer in shipped.layers:
        twin, reasons = _layer_twin(layer, sources.get(layer.name))
        layers.append(twin)
        found += reasons
    blobs = [weight for layer in shipped.layers for weight in layer.weights]
    return Twin(
        graph=NcnnGraph(tuple(layers)),
        weights=len(blobs),
        numbers=sum(weight.data.size for weight in blobs),
        reasons=_first(found),
    )


def _layer_twin(layer: NcnnLayer, source: NcnnLayer | None) -> tuple[NcnnLayer, list[Reason]]:
    if not layer.weights:
        return layer, []
    given = {weight.role: weight for weight in source.weights} if source is not None else {}
    weights, found = [], []
    for weight in layer.weights:
        full = given.get(weight.role)
        reason = next(_objections(layer, weight, full), None)
        if reason is None and full is not None:
            weights.append(Weight(weight.role, full.data, Storage.FLOAT32))
        else:
            weights.append(weight)
        found += [] if reason is None else [reason]
    return replace(layer, weights=tuple(weights)), found


def _objections(layer: NcnnLayer, weight: Weight, full: Weight | None) -> Iterator[Reason]:
    """Yield why `weight` is not `full` as stored; the first says it best."""
    title = f"{layer.type} {layer.name!r}, {weight.role}"
    if full is None or full.data.size != weight.data.size:
        lack = "nothing" if full is None else f"{full.data.size} numbers"
        text = f"{title}: {weight.data.size} numbers, {lack} in what body.onnx gives"
        yield Reason(Code.WEIGHTS_DIFFER, text)
        return
    stored, expected = weight.data.ravel(), _as_stored(full, weight.storage)
    if np.array_equal(stored, expected):
        return
    odd = int(np.count_nonzero(~np.isfinite(stored)))
    if odd:
        yield Reason(Code.NOT_FINITE, f"{title}: {odd} of {stored.size} numbers are NaN or Inf")
    if _is_reversed(layer, stored, expected):
        text = f"{title}: its three input channels stand in reverse order, as for BGR and RGB"
        yield Reason(Code.CHANNELS_REVERSED, text)
    wrong = np.flatnonzero(stored != expected)
    first = int(wrong[0])
    text = (
        f"{title}: {wrong.size} of {stored.size} stored numbers are not body.onnx's, the first at "
        f"{first}: {stored[first]:.6g} instead of {expected[first]:.6g}"
    )
    yield Reason(Code.WEIGHTS_DIFFER, text)


def _as_stored(full: Weight, storage: Storage) -> F32:
    data = full.data.ravel().astype(np.float32)
    if storage is Storage.FLOAT16:
        with np.errstate(over="ignore"):
            return data.astype(np.float16).astype(np.float32)
    return data


def _is_reversed(layer: NcnnLayer, stored: np.ndarray, expected: F32) -> bool:
    """Tell a first convolution whose weights were made for the opposite channel order."""
    outputs = layer.params.get("num_output")
    if layer.type != "Convolution" or not isinstance(outputs, int) or stored.size % (3 * outputs):
        return False
    by_channel = expected.reshape(outputs, 3, -1)
    return np.array_equal(stored, by_channel[:, ::-1].ravel())


def _first(found: list[Reason]) -> tuple[Reason, ...]:
    if len(found) <= _NAMED:
        return tuple(found)
    text = f"and {len(found) - _NAMED} more weight blobs are not body.onnx's"
    return (*found[:_NAMED], Reason(Code.WEIGHTS_DIFFER, text))
