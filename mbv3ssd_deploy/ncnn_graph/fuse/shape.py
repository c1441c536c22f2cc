"""Joins and reshapes: numbers are moved as seldom as possible."""

from __future__ import annotations

from dataclasses import replace

from mbv3ssd_deploy.ncnn_graph.edit import GraphView, everywhere, with_layers_replaced
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import build_layer, int_param
from mbv3ssd_deploy.ncnn_graph.shapes import Shape, infer_shapes


def join_flat(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Join rows as plain numbers: one Reshape behind the Concat instead of one before each part.

    Before: `Reshape 1 1 a r 0=4 1=2400`, `Reshape 1 1 b s 0=4 1=600`, `Concat 2 1 r s loc`
    After:  `Flatten 1 1 a r`, `Flatten 1 1 b s`, `Concat 2 1 r s m`, `Reshape 1 1 m loc 0=4 1=3000`

    Joined along their outermost axis, arrays lie one behind the other, whatever their inner shape.

    Why: ncnn lays a blob of rows out by fours, eights or sixteens of rows where their number
    allows, which moves every number twice more; a blob without rows it leaves alone
    (`layer/x86/reshape_x86.cpp`).
    """
    for layer in graph.layers:
        if layer.type == "Concat":
            view = GraphView(graph, outputs)
            shape = infer_shapes(graph).blobs.get(layer.outputs[0], ())
            if len(shape) in {2, 3} and _joins_reshapes(view, layer, len(shape)):
                graph = with_layers_replaced(graph, _flat(view, layer, shape))
    return graph


def _joins_reshapes(view: GraphView, concat: NcnnLayer, rank: int) -> bool:
    makers = [view.producer(blob) for blob in concat.inputs]
    return int_param(concat, "axis") in {0, -rank} and all(
        maker.type == "Reshape" and view.is_private(maker.outputs[0]) for maker in makers
    )


def _flat(view: GraphView, concat: NcnnLayer, shape: Shape) -> dict[str, tuple[NcnnLayer, ...]]:
    blob, name = view.new_names(f"{concat.outputs[0]}/flat", f"{concat.name}/rows")
    sizes = dict(zip("whc", reversed(shape), strict=False))
    makers = [view.producer(part) for part in concat.inputs]
    changes: dict[str, tuple[NcnnLayer, ...]] = {
        m.name: (build_layer("Flatten", m.name, m.inputs, m.outputs),) for m in makers
    }
    changes[concat.name] = (
        build_layer("Concat", concat.name, concat.inputs, (blob,)),
        build_layer("Reshape", name, (blob,), concat.outputs, sizes),
    )
    return changes


@everywhere
def merge_reshapes(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    """Cut a Reshape of a Reshape down to the last.

    Before: `Reshape 1 1 x m 0=4 1=6 2=400`, `Reshape 1 1 m y 0=4 1=2400`
    After:  `Reshape 1 1 x y 0=4 1=2400`

    Only where the last one names every size: 0 and -1 refer to the shape before.

    Why: each may move every number once more.
    """
    is_absolute = layer.type == "Flatten" or (
        layer.type == "Reshape" and not {0, -1} & {int_param(layer, n) for n in "whdc"}
    )
    before = view.producer(layer.inputs[0]) if is_absolute else None
    if before is None or before.type not in {"Reshape", "Flatten"}:
        return None
    return (replace(layer, inputs=before.inputs),)
