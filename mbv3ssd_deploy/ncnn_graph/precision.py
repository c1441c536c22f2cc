"""Which layers are kept out of 16-bit modes that would make their results wrong.

A layer's `featmask` is what ncnn's options may not switch on for it (since 2022-10; older releases
ignore it). Two places need one; docs/formats/ncnn-param.md has the measurements:

* 3x3 depthwise convolutions of stride 2 in float16 arithmetic: ncnn's aarch64 kernel (20261020 and
  before) computes whole columns wrongly where the output's width leaves 2 or 3 over 4.
* The Concat of several levels' priors, which is stored in 16 bits when the option says so: a prior
  is then more than a pixel off. A single PriorBox or MemoryData goes unrounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.ncnn_graph.check import layer_problems
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import FeatMask, int_param
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes

_UNSAFE_REMAINDERS: Final = frozenset({2, 3})
"""What the output width leaves over 4 where the kernel's remainder loop runs for two columns."""


@dataclass(frozen=True, slots=True)
class PrecisionMasks:
    """Against which 16-bit modes a network is masked; off is for an ncnn that has been fixed."""

    fp16: bool = True
    bf16: bool = True


ALL_MASKS: Final = PrecisionMasks()


def with_precision_masks(graph: NcnnGraph, masks: PrecisionMasks) -> NcnnGraph:
    """Return `graph` with the masks that `masks` switches on, and no other."""
    unsafe = fp16_unsafe_layers(graph) if masks.fp16 else frozenset()
    prior_mask = FeatMask.NO_FP16_STORAGE if masks.fp16 else FeatMask(0)
    if masks.bf16:
        prior_mask |= FeatMask.NO_BF16_STORAGE
    by_name = dict.fromkeys(unsafe, FeatMask.NO_FP16_ARITHMETIC)
    by_name |= dict.fromkeys(_prior_joins(graph), prior_mask)
    return NcnnGraph(tuple(_masked(layer, by_name.get(layer.name, 0)) for layer in graph.layers))


def fp16_unsafe_layers(graph: NcnnGraph) -> frozenset[str]:
    """Return the names of the layers that the faulty aarch64 kernel would compute wrongly.

    A layer whose width is unknown counts as one: the mask costs little, wrong columns a detection.
    A layer whose own parameters contradict each other, in a file of another tool, is left out.
    """
    unsound = {i for i, layer in enumerate(graph.layers) if layer_problems(layer)}
    shapes = infer_shapes(graph, unsound).blobs
    return frozenset(
        layer.name
        for index, layer in enumerate(graph.layers)
        if index not in unsound
        and _is_stride_2_depthwise(layer)
        and shapes.get(layer.outputs[0], (2,))[-1] % 4 in _UNSAFE_REMAINDERS
    )


def masked_and_unmasked(graph: NcnnGraph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the unsafe layers with a mask against float16 arithmetic, and without."""
    unsafe = fp16_unsafe_layers(graph)
    masked: dict[str, bool] = {
        layer.name: bool(int_param(layer, "featmask") & FeatMask.NO_FP16_ARITHMETIC)
        for layer in graph.layers
        if layer.name in unsafe
    }
    return tuple(n for n in masked if masked[n]), tuple(n for n in masked if not masked[n])


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
