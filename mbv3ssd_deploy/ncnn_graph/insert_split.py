"""Each consumer of a blob gets its own copy, because ncnn gives a blob away to its first reader.

Before                          After
    Conv  c1   x -> y               Conv   c1           x -> y
    ReLU  r1   y -> a               Split  splitncnn_0  y -> y_splitncnn_0 y_splitncnn_1
    ReLU  r2   y -> b               ReLU   r1           y_splitncnn_0 -> a
                                    ReLU   r2           y_splitncnn_1 -> b
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import build_layer


def insert_splits(graph: NcnnGraph) -> NcnnGraph:
    """Return `graph` with a Split behind every blob that is read more than once.

    Names follow ncnn's own tools. The blob itself keeps its name, so it can still be extracted. A
    graph that needs no Split comes back equal.
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
