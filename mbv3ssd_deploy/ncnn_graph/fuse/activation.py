"""An activation moves into the convolution or inner product before it.

Before: `Convolution 1 1 x m ...`, `HardSwish 1 1 m y 0=1.66666672e-01 1=5.00000000e-01`
After:  `Convolution 1 1 x y ... 9=6 -23310=2,1.66666672e-01,5.00000000e-01`

Only where the convolution's result has no other reader and nobody outside wants it. Swish has
no fused form in ncnn (`layer/fused_activation.h`); how a HardSigmoid gets one says `gate.py`.

Why: a layer less, and on ARM one pass over the map less; on x86 the convolution makes that pass
itself at its end, and a whole net gains 0.5 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.ncnn_graph.codes import ActivationType
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, float_param, rewrite_all
from mbv3ssd_deploy.ncnn_graph.fuse.linear_layer import is_plain_linear
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Param
from mbv3ssd_deploy.ncnn_graph.layers import build_layer

_FUSED: Final[Mapping[str, tuple[ActivationType, tuple[str, ...]]]] = MappingProxyType(
    {
        "ReLU": (ActivationType.LEAKY_RELU, ("slope",)),
        "Clip": (ActivationType.CLIP, ("min", "max")),
        "Sigmoid": (ActivationType.SIGMOID, ()),
        "Mish": (ActivationType.MISH, ()),
        "HardSwish": (ActivationType.HARD_SWISH, ("alpha", "beta")),
    }
)


def fuse_activations(graph: NcnnGraph, outputs: frozenset[str]) -> NcnnGraph:
    """Return `graph` with them fused; the same object when there is none to fuse."""
    return rewrite_all(graph, outputs, _rewrite)


def _rewrite(view: GraphView, layer: NcnnLayer) -> tuple[NcnnLayer, ...] | None:
    if layer.type not in _FUSED:
        return None
    before = view.producer(layer.inputs[0])
    if not is_plain_linear(before) or not view.is_private(layer.inputs[0]):
        return None
    params = {**before.params, **_activation(layer)}
    fused = build_layer(before.type, before.name, before.inputs, layer.outputs, params)
    return (replace(fused, weights=before.weights),)


def _activation(layer: NcnnLayer) -> dict[str, Param]:
    kind, names = _FUSED[layer.type]
    numbers = tuple(float_param(layer, name) for name in names)
    if kind is ActivationType.LEAKY_RELU and numbers == (0.0,):
        return {"activation_type": int(ActivationType.RELU)}
    return {"activation_type": int(kind), "activation_params": numbers}
