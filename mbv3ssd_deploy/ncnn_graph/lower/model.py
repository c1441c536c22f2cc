"""What a lowering must know of an ONNX model: nodes, shapes, constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from mbv3ssd_deploy.errors import SpecError, UnsupportedOpError
from mbv3ssd_deploy.onnx_body.body import DEFAULT_DOMAINS, opset_of

Array = npt.NDArray[Any]

LARGEST_CONSTANT: Final = 64 * 2**20
"""Bytes. The largest weight of a MobileNetV3-SSD takes less than a tenth of it."""

_RANDOM: Final = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"})
"""They give other numbers each time, whatever their input."""


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node, its attributes as plain Python values.

    Attributes:
        name: the node's own name, or, where it has none, its op type and first output.
        op_type: the operator; one of a foreign domain carries it, `domain::Op`.
        inputs: tensor names; an input that was left out is "".
        outputs: tensor names.
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


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """A model whose constants have been computed.

    Attributes:
        nodes: those that depend on the input, in running order.
        shapes: of every tensor whose shape is known and fixed, the batch axis included.
        types: element types of those tensors (`onnx.TensorProto.FLOAT`, ...).
        constants: by tensor name, initializers and all that follows from them alone.
        opset: of the default domain.
        input_name: the one input.
        output_names: in the model's order.
    """

    nodes: tuple[OnnxNode, ...]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]
    constants: Mapping[str, Array]
    opset: int
    input_name: str
    output_names: tuple[str, ...]


def facts_of_model(model: onnx.ModelProto) -> OnnxFacts:
    """Return what the lowerings need to know of `model`.

    Raises:
        SpecError: not exactly one input, or an input whose shape is open or whose batch is not 1.
        UnsupportedOpError: a constant cannot be computed, or is larger than `LARGEST_CONSTANT`.
    """
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise SpecError(f"a detector's body has one input; this one has {names}")
    _check_input(inputs[0])
    inferred = _inferred(model).graph
    shapes, types = _shapes_and_types([*inferred.input, *inferred.value_info, *inferred.output])
    opset = opset_of(model)
    nodes = _fold_constants(model, opset, constants)
    return OnnxFacts(
        nodes=nodes,
        shapes=MappingProxyType(shapes),
        types=MappingProxyType(types),
        constants=MappingProxyType(constants),
        opset=opset,
        input_name=inputs[0].name,
        output_names=tuple(value.name for value in model.graph.output),
    )


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


def _check_input(value: onnx.ValueInfoProto) -> None:
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


def _shapes_and_types(
    values: list[onnx.ValueInfoProto],
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
    shapes, types = _shapes_and_types([*inferred.output])
    for name, shape in shapes.items():
        size = math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(types[name]).itemsize
        if size > LARGEST_CONSTANT:
            raise _node_of(proto).refusal(
                f"the constant {name!r} {list(shape)} would take {size / 2**20:.0f} MiB;"
                f" at most {LARGEST_CONSTANT / 2**20:.0f} are computed"
            )
