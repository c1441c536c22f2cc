"""Editing an ncnn graph: who makes and who reads a blob, layers replaced, dead layers dropped.

The rule that every edit keeps: a blob name that survives still holds the same numbers in the same
order. (Its shape may lose axes of size 1, or all but one.)
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Final

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import build_layer

# ncnn takes 255 bytes; the rest is left for what `insert_splits` appends.
_LONGEST: Final = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9_./:\-]+")


class UniqueNames:
    """Makes names that ncnn and every tool around it can read: no blanks, not too long, unique."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)

    def take(self, wish: str) -> str:
        """Return `wish` made safe, with a number behind it where it is taken already."""
        base = _UNSAFE.sub("_", wish.strip("/"))[:_LONGEST] or "unnamed"
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


class GraphView:
    """Producers and readers of the blobs of a graph; `outputs` are read outside it as well."""

    def __init__(self, graph: NcnnGraph, outputs: Iterable[str]) -> None:
        self.graph = graph
        self.outputs = frozenset(outputs)
        self._producer = {blob: layer for layer in graph.layers for blob in layer.outputs}
        self._readers: dict[str, list[NcnnLayer]] = defaultdict(list)
        for layer in graph.layers:
            for blob in dict.fromkeys(layer.inputs):
                self._readers[blob].append(layer)

    def producer(self, blob: str) -> NcnnLayer:
        """Return the layer that makes `blob`."""
        return self._producer[blob]

    def readers(self, blob: str) -> tuple[NcnnLayer, ...]:
        """Return the layers that read `blob`, in running order."""
        return tuple(self._readers.get(blob, ()))

    def is_private(self, blob: str) -> bool:
        """Return whether `blob` is read by exactly one layer, and not outside the graph."""
        return blob not in self.outputs and len(self.readers(blob)) == 1

    def has_blob(self, blob: str) -> bool:
        """Return whether some layer makes `blob`."""
        return blob in self._producer

    def new_names(self, blob: str, layer: str) -> tuple[str, str]:
        """Return a name for a new blob and one for a new layer, near the two given."""
        blobs = UniqueNames(made for other in self.graph.layers for made in other.outputs)
        return blobs.take(blob), UniqueNames(other.name for other in self.graph.layers).take(layer)


Rewrite = Callable[[GraphView, NcnnLayer], tuple[NcnnLayer, ...] | None]
"""Returns the layers that replace one layer, or None where the rewrite does not apply to it."""

Pass = Callable[[NcnnGraph, frozenset[str]], NcnnGraph]
"""Rewrites a graph whose outputs are given; returns the same object when it changes nothing."""


def everywhere(rewrite: Rewrite) -> Pass:
    """Return the pass that applies `rewrite` until it applies nowhere.

    Layers whose result is no longer read are dropped after each application, so a rewrite replaces
    only the last layer of its pattern.
    """

    @functools.wraps(rewrite)
    def rewritten(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
        while True:
            view = GraphView(graph, outputs)
            matches = ((layer, rewrite(view, layer)) for layer in graph.layers)
            found = next(((layer, new) for layer, new in matches if new is not None), None)
            if found is None:
                return graph
            changed = with_layers_replaced(graph, {found[0].name: found[1]})
            graph = without_dead_layers(changed, outputs)

    return rewritten


def with_layers_replaced(
    graph: NcnnGraph, changes: Mapping[str, tuple[NcnnLayer, ...]]
) -> NcnnGraph:
    """Return `graph` with other layers in the places of those named in `changes`."""
    return NcnnGraph(
        tuple(new for layer in graph.layers for new in changes.get(layer.name, (layer,)))
    )


def with_inputs_rerouted(graph: NcnnGraph, routes: Mapping[str, str]) -> NcnnGraph:
    """Return `graph` with every reader of a key of `routes` reading its value instead."""

    def end_of(blob: str) -> str:
        while blob in routes:
            blob = routes[blob]
        return blob

    return NcnnGraph(
        tuple(replace(layer, inputs=tuple(map(end_of, layer.inputs))) for layer in graph.layers)
    )


def with_blobs_renamed(graph: NcnnGraph, names: Mapping[str, str]) -> NcnnGraph:
    """Return `graph` with the blobs that are keys of `names` renamed everywhere."""

    def new(blobs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(blob, blob) for blob in blobs)

    return NcnnGraph(
        tuple(
            replace(layer, inputs=new(layer.inputs), outputs=new(layer.outputs))
            for layer in graph.layers
        )
    )


def without_dead_layers(graph: NcnnGraph, outputs: Iterable[str]) -> NcnnGraph:
    """Return `graph` without the layers that none of `outputs` depends on; Inputs stay.

    The same object comes back when there are none.
    """
    needed = set(outputs)
    kept = []
    for layer in reversed(graph.layers):
        if layer.type == "Input" or needed.intersection(layer.outputs):
            kept.append(layer)
            needed.update(layer.inputs)
    return graph if len(kept) == len(graph.layers) else NcnnGraph(tuple(reversed(kept)))


def insert_splits(graph: NcnnGraph) -> NcnnGraph:
    """Return `graph` with a Split behind every blob that is read more than once.

    ncnn gives a blob away to its first reader, so each reader needs its own copy. Names follow
    ncnn's own tools. The blob itself keeps its name, so it can still be extracted. A graph that
    needs no Split comes back equal.

    Before: `Convolution c1 x -> y`, `ReLU r1 y -> a`, `ReLU r2 y -> b`
    After:  `Convolution c1 x -> y`, `Split splitncnn_0 y -> y_splitncnn_0 y_splitncnn_1`,
            `ReLU r1 y_splitncnn_0 -> a`, `ReLU r2 y_splitncnn_1 -> b`
    """
    uses = Counter(blob for layer in graph.layers for blob in layer.inputs)
    layer_names = _unused("splitncnn_", {layer.name for layer in graph.layers})
    blobs = {blob for layer in graph.layers for blob in layer.outputs}
    copies: dict[str, Iterator[str]] = {}
    layers: list[NcnnLayer] = []
    for layer in graph.layers:
        inputs = tuple(next(copies[b]) if b in copies else b for b in layer.inputs)
        layers.append(replace(layer, inputs=inputs))
        for blob in layer.outputs:
            if uses[blob] > 1:
                names = _unused(f"{blob}_splitncnn_", blobs)
                tops = tuple(next(names) for _ in range(uses[blob]))
                layers.append(build_layer("Split", next(layer_names), (blob,), tops))
                copies[blob] = iter(tops)
    return NcnnGraph(tuple(layers))


def _unused(prefix: str, taken: set[str]) -> Iterator[str]:
    return (name for name in (f"{prefix}{i}" for i in count()) if name not in taken)
