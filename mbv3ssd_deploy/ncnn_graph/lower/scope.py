"""Scope: what a lowering reads of the ONNX graph, and where it puts its ncnn layers.

The rule that every lowering keeps: an ncnn blob has exactly the shape of its ONNX tensor without
the batch axis, outermost axis first: [N, C, H, W] is (c, h, w), [N, P, 4] is (h, w), [N, C] is (w).
ONNX axis `a` is then ncnn axis `a - 1`. Fusions may change shapes afterwards; lowerings do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.check import layer_problems
from mbv3ssd_deploy.ncnn_graph.edit import UniqueNames
from mbv3ssd_deploy.ncnn_graph.graph import INPUT, TAIL_BLOBS, NcnnLayer, Param, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.lower.model import Array, OnnxFacts, OnnxNode


class Scope:
    """The state of one lowering walk: layers so far, and the blob of every ONNX tensor.

    What ncnn cannot follow raises UnsupportedOpError, here as in every lowering.
    """

    def __init__(self, facts: OnnxFacts, outputs: Mapping[str, str]) -> None:
        self.facts = facts
        self.blob_of: dict[str, str] = {facts.input_name: INPUT}
        shape = facts.shapes[facts.input_name][1:]
        self.layers = [build_layer("Input", INPUT, (), (INPUT,), sizes_of(shape))]
        # no tensor of a body may have the name of a blob of the tail
        self._blob_names = UniqueNames((INPUT, *outputs.values(), *TAIL_BLOBS))
        self._layer_names = UniqueNames((INPUT,))
        self.outputs = outputs

    def computed_inputs(self, node: OnnxNode) -> list[str]:
        """Return the inputs of `node` that depend on the model's input."""
        return [t for t in node.inputs if t and t not in self.facts.constants]

    def constant(self, tensor: str) -> Array | None:
        """Return the value of `tensor` if it depends on no input."""
        return self.facts.constants.get(tensor)

    def weight(self, node: OnnxNode, tensor: str, what: str) -> F32:
        """Return the tensor as float32; one that is computed from the input is refused."""
        value = self.constant(tensor)
        if value is None:
            raise node.refusal(f"its {what} {tensor!r} is not a constant")
        return np.asarray(value, dtype=np.float32)

    def integers(self, node: OnnxNode, index: int, name: str) -> tuple[int, ...]:
        """Return the constant input at `index`, in older opsets the attribute; () when absent."""
        tensor = node.optional_input(index)
        if not tensor:
            return node.integers(name, ())
        value = self.constant(tensor)
        if value is None:
            raise node.refusal(f"its {name} are computed from the input")
        return tuple(int(number) for number in value.ravel())

    def dims(self, node: OnnxNode, tensor: str) -> tuple[int, ...]:
        """Return the shape of `tensor` without its batch axis of 1, outermost first."""
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

    def alias(self, node: OnnxNode) -> None:
        """Let the node's first output be the very blob of its first input."""
        self.blob_of[node.outputs[0]] = self.blob_of[node.inputs[0]]

    def emit(  # noqa: PLR0913 -- the columns of a .param line
        self,
        node: OnnxNode,
        type_: str,
        params: Mapping[str, Param] | None = None,
        weights: tuple[Weight, ...] = (),
        *,
        blobs: tuple[str, ...] | None = None,
        tensors: tuple[str, ...] | None = None,
    ) -> None:
        """Add the layer from `blobs` (the node's first input) to `tensors` (its first output)."""
        inputs = (self.blob_of[node.inputs[0]],) if blobs is None else blobs
        made = node.outputs[:1] if tensors is None else tensors
        outputs = tuple(self.outputs.get(t) or self._blob_names.take(t) for t in made)
        self.blob_of.update(zip(made, outputs, strict=True))
        name = self._layer_names.take(node.name)
        self._append(node, build_layer(type_, name, inputs, outputs, params, weights=weights))

    def emit_between(
        self,
        node: OnnxNode,
        type_: str,
        params: Mapping[str, Param],
        weights: tuple[Weight, ...] = (),
        *,
        blobs: tuple[str, ...],
    ) -> str:
        """Add a layer whose result is not an ONNX tensor; return its blob."""
        wish = f"{node.name}/{type_}"
        blob, name = self._blob_names.take(wish), self._layer_names.take(wish)
        self._append(node, build_layer(type_, name, blobs, (blob,), params, weights=weights))
        return blob

    def _append(self, node: OnnxNode, layer: NcnnLayer) -> None:
        problems = layer_problems(layer)
        if problems:
            raise node.refusal(f"as ncnn's {layer.type} its numbers are wrong: {problems[0]}")
        for weight in layer.weights:
            if not np.isfinite(weight.data).all():
                raise node.refusal(f"its {weight.role} holds numbers that are NaN or infinite")
        self.layers.append(layer)


def sizes_of(dims: tuple[int, ...]) -> dict[str, Param]:
    """Return the parameters w, h, c of a blob of shape `dims`."""
    return dict(zip("whc", reversed(dims), strict=False))


def checked_axis(node: OnnxNode, axis: int, rank: int) -> int:
    """Return ncnn's number of the ONNX `axis` of a tensor with `rank` axes, the batch counted."""
    positive = axis % rank
    if positive == 0:
        raise node.refusal("it works along the batch axis, which ncnn does not have")
    return positive - 1
