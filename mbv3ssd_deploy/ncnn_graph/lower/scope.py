"""Scope: what a lowering may ask about the ONNX graph, and where it puts its ncnn layers.

The rule that every lowering keeps: an ncnn blob has exactly the shape of its ONNX tensor without
the batch axis, outermost axis first: [N, C, H, W] is (c, h, w), [N, P, 4] is (h, w), [N, C] is (w).
ONNX axis `a` is then ncnn axis `a - 1`. Fusions may change shapes afterwards; lowerings do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.graph import NcnnLayer, Param, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.lower.model import Array, OnnxFacts
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.names import UniqueNames

INPUT_BLOB = "input"
LOC_BLOB = "loc"
CONF_BLOB = "conf"
# What ssd_tail adds; no tensor of a body may be called so.
_TAIL_BLOBS = (
    "mbox_loc",
    "mbox_conf",
    "mbox_conf_softmax",
    "mbox_priorbox",
    "detection_out",
)


class Scope:
    """The state of one lowering walk: layers so far, and the blob of every ONNX tensor."""

    def __init__(self, facts: OnnxFacts, outputs: Mapping[str, str]) -> None:
        self.facts = facts
        self.layers: list[NcnnLayer] = []
        self.blob_of: dict[str, str] = {}
        fixed = (INPUT_BLOB, *outputs.values())
        self._blob_names = UniqueNames((*fixed, *_TAIL_BLOBS))
        self._layer_names = UniqueNames(("input",))
        self._wanted = dict(outputs)
        self._open_input()

    def _open_input(self) -> None:
        shape = self.facts.shapes[self.facts.input_name][1:]
        sizes = dict(zip("whc", reversed(shape), strict=False))
        self.blob_of[self.facts.input_name] = INPUT_BLOB
        self.layers.append(build_layer("Input", "input", (), (INPUT_BLOB,), sizes))

    def constant(self, tensor: str) -> Array | None:
        """Return the value of `tensor` if it depends on no input."""
        return self.facts.constants.get(tensor)

    def weight(self, node: OnnxNode, tensor: str, what: str) -> F32:
        """Return the constant `tensor` as float32.

        Raises:
            UnsupportedOpError: it is computed from the input.
        """
        value = self.constant(tensor)
        if value is None:
            raise node.refusal(f"its {what} {tensor!r} is not a constant")
        return np.asarray(value, dtype=np.float32)

    def dims(self, node: OnnxNode, tensor: str) -> tuple[int, ...]:
        """Return the shape of `tensor` without its batch axis, outermost first.

        Raises:
            UnsupportedOpError: the shape is open or empty, the first axis is not a batch of 1, or
                ncnn has no blob of so many axes.
        """
        shape = self.facts.shapes.get(tensor)
        if shape is None:
            hint = "export the body again with mbv3ssd-deploy export"
            raise node.refusal(f"the shape of {tensor!r} is not fixed", hint=hint)
        if len(shape) < 2 or shape[0] != 1:
            raise node.refusal(f"{tensor!r} of shape {list(shape)} has no batch axis of 1 in front")
        if 0 in shape:
            raise node.refusal(f"{tensor!r} of shape {list(shape)} holds no numbers")
        if len(shape) > 4:
            raise node.refusal(f"{tensor!r} has {len(shape)} axes; ncnn's take 4 with the batch")
        if self.facts.types[tensor] != onnx.TensorProto.FLOAT:
            kind = onnx.TensorProto.DataType.Name(self.facts.types[tensor])
            raise node.refusal(f"{tensor!r} holds {kind}; only FLOAT tensors run in ncnn")
        return shape[1:]

    def blob(self, tensor: str) -> str:
        """Return the blob that holds `tensor`."""
        return self.blob_of[tensor]

    def alias(self, node: OnnxNode) -> None:
        """Let the node's first output be the very blob of its first input."""
        self.blob_of[node.outputs[0]] = self.blob_of[node.inputs[0]]

    def emit(
        self,
        type_: str,
        node: OnnxNode,
        inputs: tuple[str, ...],
        params: Mapping[str, Param] | None = None,
        weights: tuple[Weight, ...] = (),
    ) -> None:
        """Add the layer that makes the node's first output."""
        self.emit_all(type_, node, inputs, params, weights, tensors=node.outputs[:1])

    def emit_all(  # noqa: PLR0913 -- the columns of a .param line
        self,
        type_: str,
        node: OnnxNode,
        inputs: tuple[str, ...],
        params: Mapping[str, Param] | None,
        weights: tuple[Weight, ...],
        *,
        tensors: tuple[str, ...],
    ) -> None:
        """Add the layer that makes `tensors`."""
        outputs = tuple(self._blob_for(tensor) for tensor in tensors)
        self.blob_of.update(zip(tensors, outputs, strict=True))
        name = self._layer_names.take(node.name)
        self._append(node, build_layer(type_, name, inputs, outputs, params, weights=weights))

    def emit_between(
        self,
        type_: str,
        node: OnnxNode,
        inputs: tuple[str, ...],
        params: Mapping[str, Param] | None = None,
        weights: tuple[Weight, ...] = (),
    ) -> str:
        """Add a layer whose result no ONNX tensor holds; return its blob."""
        wish = f"{node.name}/{type_}"
        blob, name = self._blob_names.take(wish), self._layer_names.take(wish)
        self._append(node, build_layer(type_, name, inputs, (blob,), params, weights=weights))
        return blob

    def _append(self, node: OnnxNode, layer: NcnnLayer) -> None:
        for weight in layer.weights:
            if not np.isfinite(weight.data).all():
                raise node.refusal(f"its {weight.role} holds numbers that are NaN or infinite")
        self.layers.append(layer)

    def _blob_for(self, tensor: str) -> str:
        return self._wanted.get(tensor) or self._blob_names.take(tensor)


def checked_axis(node: OnnxNode, axis: int, rank: int) -> int:
    """Return ncnn's number of the ONNX `axis` of a tensor with `rank` axes, the batch counted.

    Raises:
        UnsupportedOpError: it is the batch axis.
    """
    positive = axis % rank
    if positive == 0:
        raise node.refusal("it works along the batch axis, which ncnn does not have")
    return positive - 1
