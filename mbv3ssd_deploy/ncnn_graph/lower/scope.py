"""Scope: an ONNX model as the lowerings read it, and the ncnn layers made of it so far.

The rule that every lowering keeps: an ncnn blob has exactly the shape of its ONNX tensor without
the batch axis, outermost axis first: [N, C, H, W] is (c, h, w), [N, P, 4] is (h, w), [N, C] is (w).
ONNX axis `a` is then ncnn axis `a - 1`. Fusions may change shapes afterwards; lowerings do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import SpecError, UnsupportedOpError
from mbv3ssd_deploy.ncnn_graph.check import layer_problems, weight_problems
from mbv3ssd_deploy.ncnn_graph.edit import UniqueNames
from mbv3ssd_deploy.ncnn_graph.graph import INPUT, TAIL_BLOBS, NcnnLayer, Param, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.onnx_body.body import DEFAULT_DOMAINS, opset_of

Array = npt.NDArray[Any]

LARGEST_CONSTANT: Final = 64 * 2**20
"""Bytes. The largest weight of a MobileNetV3-SSD takes less than a tenth of it."""

_RANDOM: Final = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"})
"""They give other numbers each time, whatever their input."""


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node; an input that was left out is "".

    Attributes:
        name: the node's own name, or, where it has none, its op type and first output.
        op_type: the operator; one of a foreign domain carries it, `domain::Op`.
        attributes: as plain values: int, float, str, tuples of them, or a protobuf for the rest.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def integer(self, name: str, default: int) -> int:
        """Return the integer attribute `name`, or `default`."""
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """Return the float attribute `name`, or `default`."""
        return float(self.attributes.get(name, default))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return the list-of-integers attribute `name`, or `default`."""
        return tuple(int(value) for value in self.attributes.get(name, default))

    def optional_input(self, index: int) -> str:
        """Return the input at `index`, or "" where the node leaves it out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def refusal(self, reason: str, *, hint: str = "") -> UnsupportedOpError:
        """Return the error that says why this node has no ncnn form."""
        return UnsupportedOpError(self.name, self.op_type, reason, hint=hint)


class Scope:
    """The state of one lowering walk.

    What ncnn cannot follow raises UnsupportedOpError, here as in every lowering.

    Attributes:
        nodes: those that depend on the input, in running order.
        constants: by tensor name, initializers and all that follows from them alone.
        shapes: of every tensor whose shape is known and fixed, the batch axis included.
        opset: of the default domain.
        outputs: the output tensors, and the name of the blob of each.
        layers: made so far.
        blob_of: tensor -> blob.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Mapping[str, str]) -> None:
        constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        source = _checked_input(model, constants)
        inferred = _inferred(model).graph
        self.shapes, self._types = _shapes_and_types(
            (*inferred.input, *inferred.value_info, *inferred.output)
        )
        self.opset = opset_of(model)
        self.nodes = _fold_constants(model, self.opset, constants)
        self.constants: Mapping[str, Array] = constants
        self.output_names = [value.name for value in model.graph.output]
        self.outputs = outputs
        self.blob_of = {source: INPUT}
        self.layers = [build_layer("Input", INPUT, (), (INPUT,), sizes_of(self.shapes[source][1:]))]
        # no tensor of a body may have the name of a blob of the tail
        self._blob_names = UniqueNames((INPUT, *outputs.values(), *TAIL_BLOBS))
        self._layer_names = UniqueNames((INPUT,))

    def computed_inputs(self, node: OnnxNode) -> list[str]:
        """Return the inputs of `node` that depend on the model's input."""
        return [t for t in node.inputs if t and t not in self.constants]

    def weight(self, node: OnnxNode, tensor: str, what: str) -> F32:
        """Return the tensor as float32; one that is computed from the input is refused."""
        value = self.constants.get(tensor)
        if value is None:
            raise node.refusal(f"its {what} {tensor!r} is not a constant")
        return np.asarray(value, dtype=np.float32)

    def integers(self, node: OnnxNode, index: int, name: str) -> tuple[int, ...]:
        """Return the constant input at `index`, in older opsets the attribute; () when absent."""
        tensor = node.optional_input(index)
        if not tensor:
            return node.integers(name, ())
        value = self.constants.get(tensor)
        if value is None:
            raise node.refusal(f"its {name} are computed from the input")
        return tuple(int(number) for number in value.ravel())

    def dims(self, node: OnnxNode, tensor: str) -> tuple[int, ...]:
        """Return the shape of `tensor` without its batch axis of 1, outermost first."""
        shape = self.shapes.get(tensor)
        if shape is None:
            hint = "export the body again with mbv3ssd-deploy export"
            raise node.refusal(f"the shape of {tensor!r} is not fixed", hint=hint)
        if len(shape) < 2 or shape[0] != 1:
            raise node.refusal(f"{tensor!r} of shape {list(shape)} has no batch axis of 1 in front")
        if 0 in shape:
            raise node.refusal(f"{tensor!r} of shape {list(shape)} holds no numbers")
        if len(shape) > 4:
            raise node.refusal(f"{tensor!r} has {len(shape)} axes; ncnn's take 4 with the batch")
        if self._types[tensor] != onnx.TensorProto.FLOAT:
            kind = onnx.TensorProto.DataType.Name(self._types[tensor])
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
        problems = layer_problems(layer) or weight_problems(layer)
        if problems:
            raise node.refusal(f"as ncnn's {layer.type} its numbers are wrong: {problems[0]}")
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


def _node_of(proto: onnx.NodeProto) -> OnnxNode:
    foreign = proto.domain not in DEFAULT_DOMAINS
    attributes = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in proto.attribute}
    return OnnxNode(
        name=proto.name or f"{proto.op_type}_{proto.output[0]}",
        op_type=f"{proto.domain}::{proto.op_type}" if foreign else proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=MappingProxyType(attributes),
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 -- whatever an ONNX attribute may hold
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tuple(value) if isinstance(value, list) else value


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise SpecError(f"ONNX finds no shapes in the model: {error}") from error


def _checked_input(model: onnx.ModelProto, constants: Mapping[str, Array]) -> str:
    """Return the name of the only input, whose shape is fixed and whose batch is 1."""
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise SpecError(f"a detector's body has one input; this one has {names}")
    value = inputs[0]
    dims = value.type.tensor_type.shape.dim
    open_axes = [d.dim_param or "?" for d in dims if not d.HasField("dim_value")]
    if not dims or open_axes:
        raise SpecError(
            f"the input's shape is open ({', '.join(open_axes) or 'unknown'}); ncnn needs numbers",
            where=value.name,
            hint="export the body again with mbv3ssd-deploy export",
        )
    if dims[0].dim_value != 1:
        raise SpecError(
            f"the body was exported for a batch of {dims[0].dim_value}; ncnn has no batch axis",
            where=value.name,
            hint="export it again with --batch 1",
        )
    return str(value.name)


def _shapes_and_types(
    values: Iterable[onnx.ValueInfoProto],
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    shapes, types = {}, {}
    for value in values:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
            types[value.name] = tensor.elem_type
    return shapes, types


def _fold_constants(
    model: onnx.ModelProto, opset: int, constants: dict[str, Array]
) -> tuple[OnnxNode, ...]:
    """Compute what depends on constants alone, into `constants`; return the other nodes."""
    rest = []
    for proto in model.graph.node:
        given = [name for name in proto.input if name]
        if _is_constant(proto, constants):
            values = _computed(proto, opset, {name: constants[name] for name in given})
            constants.update(zip(proto.output, values, strict=False))
        else:
            rest.append(_node_of(proto))
    return tuple(rest)


def _is_constant(proto: onnx.NodeProto, constants: Mapping[str, Array]) -> bool:
    """Return whether `proto` follows from `constants`; one with a graph inside may run for long."""
    given = [name for name in proto.input if name]
    if proto.domain or any(a.type in {a.GRAPH, a.GRAPHS} for a in proto.attribute):
        return False
    mode = proto.input[2] if proto.op_type == "Dropout" and len(proto.input) > 2 else ""
    is_training = mode in constants and bool(constants[mode].any())
    if proto.op_type in _RANDOM or is_training:
        return False
    return proto.op_type == "Constant" or (bool(given) and all(n in constants for n in given))


def _computed(proto: onnx.NodeProto, opset: int, given: Mapping[str, Array]) -> list[Array]:
    if proto.op_type == "Constant" and proto.attribute[0].name == "value":
        return [numpy_helper.to_array(proto.attribute[0].t)]
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 -- loads every operator there is

    _refuse_huge(proto, opset, given)
    try:
        evaluator = ReferenceEvaluator(proto, opsets={"": opset})
        return [np.asarray(value) for value in evaluator.run(None, dict(given))]
    except Exception as error:
        reason = f"its value cannot be computed: {str(error) or type(error).__name__}"
        raise _node_of(proto).refusal(reason) from error


def _refuse_huge(proto: onnx.NodeProto, opset: int, given: Mapping[str, Array]) -> None:
    """Raise before a few bytes of file become gigabytes of memory, as ConstantOfShape can."""
    tensors = [numpy_helper.from_array(value, name) for name, value in given.items()]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "constant", [], outputs, tensors)
    imports = [onnx.helper.make_opsetid("", opset)]
    inferred = _inferred(onnx.helper.make_model(graph, opset_imports=imports)).graph
    shapes, types = _shapes_and_types(inferred.output)
    for name, shape in shapes.items():
        size = math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(types[name]).itemsize
        if size > LARGEST_CONSTANT:
            raise _node_of(proto).refusal(
                f"the constant {name!r} {list(shape)} would take {size / 2**20:.0f} MiB;"
                f" at most {LARGEST_CONSTANT / 2**20:.0f} are computed"
            )
