"""Weights for a .param that has come without its .bin: seeded, of a scale that keeps numbers sane.

Speed does not depend on the weights as long as activations stay finite and away from denormals, so
a stranger's network can be measured by its structure alone. (DetectionOutput is the exception: its
time depends on how many scores pass the threshold.)
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, param_of

_NEAR_ONE: Final = frozenset({"slope", "var", "scale", "data"})
"""Factors, variances and constants: a constant may well be a divisor."""


def with_random_weights(graph: NcnnGraph, *, seed: int = 0, source: str = "") -> NcnnGraph:
    """Return `graph` with seeded float32 weights wherever a layer needs some.

    Kernels are uniform with He's deviation sqrt(2 / fan in) (arXiv 1502.01852, section 2.2), biases
    within 0.1 of 0, everything else within 0.5 of 1.

    Raises:
        FormatError: layer types whose weights we do not know; all are named.
    """
    strangers = sorted({layer.type for layer in graph.layers} - set(LAYERS))
    if strangers:
        raise FormatError(
            f"no weights can be made for layers of type {', '.join(strangers)}: they are unknown",
            where=source,
            hint="put the .bin beside the .param, with the same name",
        )
    return NcnnGraph(tuple(_filled(layer, i, seed) for i, layer in enumerate(graph.layers)))


def _filled(layer: NcnnLayer, index: int, seed: int) -> NcnnLayer:
    random = np.random.default_rng((seed, index))
    weights = tuple(
        Weight(field.role, _numbers(layer, field.role, length, random))
        for field, length in LAYERS[layer.type].weights_of(layer.params)
    )
    return replace(layer, weights=weights)


def _numbers(layer: NcnnLayer, role: str, length: int, random: np.random.Generator) -> F32:
    share = random.random(length, dtype=np.float32)
    if role in _NEAR_ONE:
        return (share + np.float32(0.5)).astype(np.float32)
    if role != "weight":
        return (np.float32(0.2) * share - np.float32(0.1)).astype(np.float32)
    outputs = param_of(layer, "num_output")
    fan_in = length / outputs if isinstance(outputs, int) and outputs > 0 else 1
    reach = math.sqrt(6 / fan_in)  # a uniform number within +-reach has variance reach^2 / 3
    return ((2 * share - 1) * np.float32(reach)).astype(np.float32)
