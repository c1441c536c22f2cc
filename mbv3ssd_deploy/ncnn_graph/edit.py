"""Editing an ncnn graph: who makes and who reads a blob, layers replaced, dead layers dropped.

The rule that every edit keeps: a blob name that survives still holds the same numbers in the same
order. (Its shape may lose axes of size 1, or all but one.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import param_of


class GraphView:
    """Questions about a graph whose `outputs` are wanted by somebody outside it."""

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
        """Return whether one layer alone reads `blob`, and nobody outside the graph."""
        return blob not in self.outputs and len(self.readers(blob)) == 1

    def has_blob(self, blob: str) -> bool:
        """Return whether some layer makes `blob`."""
        return blob in self._producer


Rewrite = Callable[[GraphView, NcnnLayer], tuple[NcnnLayer, ...] | None]
"""A rewrite looks at one layer and returns what stands there instead, or None."""


def rewrite_all(graph: NcnnGraph, outputs: Iterable[str], rewrite: Rewrite) -> NcnnGraph:
    """Return `graph` with `rewrite` applied until it applies nowhere; the same object if nowhere.

    Layers whose result nobody reads any more are dropped after each application, so a rewrite
    replaces only the last layer of its pattern.
    """
    wanted = frozenset(outputs)
    while True:
        view = GraphView(graph, wanted)
        matches = ((layer, rewrite(view, layer)) for layer in graph.layers)
        found = next(((layer, new) for layer, new in matches if new is not None), None)
        if found is None:
            return graph
        graph = without_dead_layers(with_layers_replaced(graph, {found[0].name: found[1]}), wanted)


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
    """Return `graph` with the blobs that are keys of `names` called otherwise everywhere."""

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

    The same object comes back when there is none.
    """
    needed = set(outputs)
    kept = []
    for layer in reversed(graph.layers):
        if layer.type == "Input" or needed.intersection(layer.outputs):
            kept.append(layer)
            needed.update(layer.inputs)
    return graph if len(kept) == len(graph.layers) else NcnnGraph(tuple(reversed(kept)))


def int_param(layer: NcnnLayer, name: str) -> int:
    """Return an integer parameter of `layer`, its default included."""
    value = param_of(layer, name)
    if not isinstance(value, int):
        raise TypeError(f"{layer.type}.{name} is not an integer")
    return value


def float_param(layer: NcnnLayer, name: str) -> float:
    """Return a float parameter of `layer`, its default included."""
    value = param_of(layer, name)
    if not isinstance(value, float):
        raise TypeError(f"{layer.type}.{name} is not a float")
    return value
