"""fuse_graph: every rewrite, in the one order in which they are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mbv3ssd_deploy.ncnn_graph.edit import Pass, without_dead_layers
from mbv3ssd_deploy.ncnn_graph.fuse import activations, linear, shape
from mbv3ssd_deploy.ncnn_graph.graph import CONF, LOC, NcnnGraph

PASSES: Final[tuple[Pass, ...]] = (
    without_dead_layers,  # first, so that dead readers hold nothing back
    activations.fold_scalar_operands,  # the recognisers below look for scalars in BinaryOps
    activations.merge_clips,  # max, min and ReLU spelt as the Clip that HardSigmoid is made of
    activations.recognise_hard_sigmoids,
    activations.recognise_hard_swishes,  # made of a HardSigmoid
    linear.fold_batch_norms,
    linear.fold_channel_affines,  # after HardSigmoid has taken the constants that are its own
    linear.flatten_pooled_branches,  # on bare 1x1 convolutions, before they carry activations
    linear.fold_leading_norms,  # those that found no layer in front of them
    activations.fuse_activations,
    activations.fuse_gates,
    shape.join_flat,
    shape.merge_reshapes,  # also those that flat joins have brought together
)


def fuse_graph(graph: NcnnGraph, outputs: Iterable[str] = (LOC, CONF)) -> NcnnGraph:
    """Return `graph` rewritten by every pass; `outputs` are the blobs that must stay.

    Every blob name that is still there holds the same numbers as before, up to rounding.

    Raises:
        ValueError: the graph has no such blob.
    """
    wanted = frozenset(outputs)
    made = {blob for layer in graph.layers for blob in layer.outputs}
    if not wanted <= made:
        raise ValueError(f"the graph makes no blob {', '.join(sorted(wanted - made))}")
    for rewrite in PASSES:
        graph = rewrite(graph, wanted)
    return graph
