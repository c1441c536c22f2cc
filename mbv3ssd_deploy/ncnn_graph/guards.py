"""Which layers are kept out of 16-bit modes that would make their results wrong.

A layer's `featmask` says what ncnn's options may not switch on for it (since 2022-10; older
releases ignore it). Two places need one:

* ncnn's aarch64 kernel for a 3x3 depthwise convolution of stride 2 in float16 arithmetic computes
  the last two or three columns of a row two at a time or alone, and takes their right-hand
  neighbours of the second and third row from the first (20261020 and before). Where the output's
  width leaves 2 or 3 over 4, whole columns are wrong. Measured: the error of box offsets falls
  from 7.8e-2 to 6.3e-3 with the mask (docs/formats/ncnn-param.md).
* The Concat of several levels' priors is stored in 16 bits when the option says so, and a prior is
  then more than a pixel off. A single PriorBox or MemoryData goes into DetectionOutput unrounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.ncnn_graph.codes import FeatMask
from mbv3ssd_deploy.ncnn_graph.edit import int_param
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes

_MISREAD: Final = frozenset({2, 3})
"""What the output width leaves over 4 where the kernel's remainder loop runs for two columns."""


@dataclass(frozen=True, slots=True)
class Guards:
    """From which modes the network is guarded; off is for an ncnn that has been mended."""

    fp16: bool = True
    bf16: bool = True


ALL_GUARDS: Final = Guards()


def with_guards(graph: NcnnGraph, guards: Guards) -> NcnnGraph:
    """Return `graph` with the masks that `guards` ask for, and no other."""
    misread = misread_layers(graph) if guards.fp16 else frozenset()
    joined = _prior_joins(graph)
    prior_mask = FeatMask(0)
    if guards.fp16:
        prior_mask |= FeatMask.NO_FP16_STORAGE
    if guards.bf16:
        prior_mask |= FeatMask.NO_BF16_STORAGE
    masks = dict.fromkeys(misread, FeatMask.NO_FP16_ARITHMETIC) | dict.fromkeys(joined, prior_mask)
    return NcnnGraph(tuple(_masked(layer, masks.get(layer.name, 0)) for layer in graph.layers))


def misread_layers(graph: NcnnGraph) -> frozenset[str]:
    """Return the names of the layers that the faulty aarch64 kernel would compute wrongly.

    A layer whose width is unknown counts as one: the mask costs little, wrong columns a detection.
    """
    shapes = infer_shapes(graph).blobs
    return frozenset(
        layer.name
        for layer in graph.layers
        if _is_stride_2_depthwise(layer) and shapes.get(layer.outputs[0], (2,))[-1] % 4 in _MISREAD
    )


def guarded_layers(graph: NcnnGraph) -> tuple[str, ...]:
    """Return the names of those among them that a mask keeps out of float16 arithmetic."""
    return tuple(name for name, is_masked in _misread_and_masked(graph) if is_masked)


def unguarded_layers(graph: NcnnGraph) -> tuple[str, ...]:
    """Return the names of those among them that nothing keeps out of float16 arithmetic."""
    return tuple(name for name, is_masked in _misread_and_masked(graph) if not is_masked)


def _misread_and_masked(graph: NcnnGraph) -> Iterator[tuple[str, bool]]:
    misread = misread_layers(graph)
    for layer in graph.layers:
        if layer.name in misread:
            mask = int_param(layer, "featmask")
            yield layer.name, bool(mask & FeatMask.NO_FP16_ARITHMETIC)


def _is_stride_2_depthwise(layer: NcnnLayer) -> bool:
    if layer.type != "ConvolutionDepthWise":
        return False
    if int_param(layer, "group") != int_param(layer, "num_output"):
        return False
    wanted = {"kernel": 3, "stride": 2, "dilation": 1}
    return all(int_param(layer, f"{k}_{side}") == n for k, n in wanted.items() for side in "wh")


def _prior_joins(graph: NcnnGraph) -> frozenset[str]:
    made = {blob for layer in graph.layers if layer.type == "PriorBox" for blob in layer.outputs}
    return frozenset(
        layer.name
        for layer in graph.layers
        if layer.type == "Concat" and made.intersection(layer.inputs)
    )


def _masked(layer: NcnnLayer, mask: int) -> NcnnLayer:
    params = {name: value for name, value in layer.params.items() if name != "featmask"}
    if mask:
        params["featmask"] = int(mask)
    return layer if params == layer.params else replace(layer, params=MappingProxyType(params))
