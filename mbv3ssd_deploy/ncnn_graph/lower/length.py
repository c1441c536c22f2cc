"""A pixel divided by its length over the channels, three ONNX nodes that are one ncnn layer."""

from __future__ import annotations

from typing import Final

import numpy as np

from mbv3ssd_deploy.ncnn_graph.codes import EpsMode
from mbv3ssd_deploy.ncnn_graph.graph import Weight
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope, checked_axis

TINY: Final = 1e-6
"""Up to this a number added to a length only keeps an all-zero pixel from being divided by 0."""


def lower_reduce_l2(node: OnnxNode, scope: Scope) -> None:
    """The lengths that a tensor is divided by -> Normalize, for the division too.

    The nodes in between get no blob, so the walk passes them over. Normalize divides by the larger
    of length and epsilon, where ONNX adds the two: the same number but for lengths near epsilon.

    Before: `ReduceL2(x [1,8,4,5], axes=[1], keepdims=1)`, `Add(length, 1e-10)`, `Div(x, sum)`
    After: `Normalize 1 1 x y 0=0 4=1 1=1 2=1e-10 9=1 3=1`
    """
    _check_axes(node, scope)
    add = _only_reader(node, scope, "Add")
    epsilon = _epsilon(add, scope)
    div = _only_reader(add, scope, "Div")
    if div.inputs != (node.inputs[0], add.outputs[0]):
        raise node.refusal("it divides something else than what it measures")
    params = {
        "across_spatial": 0,
        "across_channel": 1,
        "channel_shared": 1,
        "eps": epsilon,
        "eps_mode": int(EpsMode.LEAST_LENGTH),
        "scale_data_size": 1,
    }
    one = Weight("scale", np.ones(1, np.float32))
    source = (scope.blob(node.inputs[0]),)
    scope.emit_all("Normalize", div, source, params, (one,), tensors=div.outputs)


def _check_axes(node: OnnxNode, scope: Scope) -> None:
    axes = node.integers("axes", ())
    if node.optional_input(1):
        axes = tuple(int(axis) for axis in scope.weight(node, node.inputs[1], "axes").ravel())
    dims = scope.dims(node, node.inputs[0])
    channels = [checked_axis(node, axis, len(dims) + 1) for axis in axes] == [0]
    if len(dims) != 3 or not channels or not node.integer("keepdims", 1):
        raise node.refusal(f"it measures along axes {list(axes)}; a map's channels are lowered")


def _only_reader(node: OnnxNode, scope: Scope, op_type: str) -> OnnxNode:
    made = node.outputs[0]
    readers = [other for other in scope.facts.nodes if made in other.inputs]
    if len(readers) != 1 or readers[0].op_type != op_type or made in scope.facts.output_names:
        raise node.refusal("a length is lowered where a tensor is divided by it, epsilon added")
    return readers[0]


def _epsilon(add: OnnxNode, scope: Scope) -> float:
    constants = [v for v in map(scope.constant, add.inputs) if v is not None and v.size == 1]
    if len(constants) != 1 or not 0 < float(constants[0].item()) <= TINY:
        raise add.refusal(f"what it adds to a length is no epsilon of at most {TINY:g}")
    return float(constants[0].item())
