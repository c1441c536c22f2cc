"""Conv and BatchNormalization."""

from __future__ import annotations

import numpy as np

from mbv3ssd_deploy.ncnn_graph.graph import Param, Weight
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope
from mbv3ssd_deploy.ncnn_graph.lower.window import window_of


def lower_conv(node: OnnxNode, scope: Scope) -> None:
    """Conv -> Convolution, or ConvolutionDepthWise when it has groups.

    The weights lie alike in both: [out, in / group, rows, columns].

    Before: `Conv(x, weight [16,3,3,3], bias [16], strides=[2,2], pads=[1,1,1,1])`
    After: `Convolution 1 1 x y 0=16 1=3 3=2 4=1 5=1 6=432`
    """
    weight = scope.weight(node, node.inputs[1], "weight")
    window = window_of(node, weight.shape[2:], scope.dims(node, node.inputs[0]))
    group = node.integer("group", 1)
    bias = node.optional_input(2)
    params: dict[str, Param] = {
        "num_output": weight.shape[0],
        "dilation_w": window.dilation[1],
        "dilation_h": window.dilation[0],
        "bias_term": int(bool(bias)),
        "weight_data_size": weight.size,
        **window.params(),
    }
    weights = [Weight("weight", weight)]
    if bias:
        weights.append(Weight("bias", scope.weight(node, bias, "bias")))
    type_ = "Convolution" if group == 1 else "ConvolutionDepthWise"
    if group != 1:
        params["group"] = group
    scope.emit(type_, node, (scope.blob(node.inputs[0]),), params, tuple(weights))


def lower_batch_normalization(node: OnnxNode, scope: Scope) -> None:
    """BatchNormalization -> BatchNorm; a fusion folds it into the convolution before it.

    Before: `BatchNormalization(x, scale, shift, mean, var, epsilon=1e-3)`
    After: `BatchNorm 1 1 x y 0=16 1=1.00000000e-03`
    """
    if node.integer("training_mode", 0):
        raise node.refusal("it is in training mode", hint="export the net in eval mode")
    scope.dims(node, node.inputs[0])
    names = ("scale", "shift", "mean", "variance")
    slope, bias, mean, var = (
        scope.weight(node, tensor, what)
        for tensor, what in zip(node.inputs[1:5], names, strict=True)
    )
    params: dict[str, Param] = {"channels": slope.size, "eps": node.number("epsilon", 1e-5)}
    roles = {"slope": slope, "mean": mean, "var": var, "bias": bias}
    weights = tuple(Weight(role, np.ravel(data)) for role, data in roles.items())
    scope.emit("BatchNorm", node, (scope.blob(node.inputs[0]),), params, weights)
