"""What a convolution or inner product becomes when each of its output channels is scaled, shifted.

For y = W x + b, s y + t = (s W) x + (s b + t), s and t by output channel. Computed in float64.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.ncnn_graph.edit import int_param
from mbv3ssd_deploy.ncnn_graph.graph import NcnnLayer, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer

LINEAR_TYPES: Final = frozenset({"Convolution", "ConvolutionDepthWise", "InnerProduct"})


def is_plain_linear(layer: NcnnLayer) -> bool:
    """Return whether `layer` is linear and nothing but that: no activation, no int8 terms."""
    if layer.type not in LINEAR_TYPES:
        return False
    return not int_param(layer, "activation_type") and not int_param(layer, "int8_scale_term")


def scaled_and_shifted(layer: NcnnLayer, scale: F64, shift: F64, output: str) -> NcnnLayer:
    """Return a layer that makes blob `output` = scale * (what `layer` makes) + shift.

    `scale` and `shift` have one number an output channel, or one for all.
    """
    roles = {weight.role: weight for weight in layer.weights}
    count = int_param(layer, "num_output")
    scales = np.broadcast_to(scale, (count,))
    old_weight = roles["weight"].data.astype(np.float64)
    weight = old_weight.reshape(count, -1) * scales[:, None]
    old_bias = roles["bias"].data.astype(np.float64) if "bias" in roles else np.zeros(count)
    bias = old_bias.reshape(-1) * scales + shift
    weights = (
        Weight("weight", weight.reshape(old_weight.shape).astype(np.float32)),
        Weight("bias", bias.astype(np.float32)),
    )
    params = {**layer.params, "bias_term": 1}
    return build_layer(layer.type, layer.name, layer.inputs, (output,), params, weights=weights)
