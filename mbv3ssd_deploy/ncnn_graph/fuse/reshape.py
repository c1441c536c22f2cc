"""A Reshape of a Reshape needs only the last.

Before: `Reshape 1 1 x m 0=4 1=6 2=400`, `Reshape 1 1 m y 0=4 1=2400`
After:  `Reshape 1 1 x y 0=4 1=2400`

Only where the last one names every size: 0 and -1 speak of the shape before.

Why: each may move every number once more.
"""

from __future__ import annotations

from dataclasses import replace

from mbv3ssd_deploy.ncnn_graph.edit import GraphView, int_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer


def merge_reshapes(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with chains of Reshape cut short; the same object when there is none."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    if not _is_absolute(layer):
        return None
    before = view.producer(layer.inputs[0])
    if before.type not in {"Reshape", "Flatten"}:
        return None
    return (replace(layer, inputs=before.inputs),)


def _is_absolute(layer: NcnnLayer) -> bool:
    if layer.type == "Flatten":
        return True
    return layer.type == "Reshape" and not {0, -1} & {int_param(layer, n) for n in "whdc"}
