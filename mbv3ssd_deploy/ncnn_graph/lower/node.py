"""OnnxNode: one node of an ONNX graph, its attributes as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx

from mbv3ssd_deploy.errors import UnsupportedOpError


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node.

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

    def text(self, name: str, default: str) -> str:
        """Return the string attribute `name`, or `default`."""
        return str(self.attributes.get(name, default))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return the list-of-integers attribute `name`, or `default`."""
        return tuple(int(value) for value in self.attributes.get(name, default))

    def optional_input(self, index: int) -> str:
        """Return the input at `index`, or "" where the node leaves it out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def refusal(self, reason: str, *, hint: str = "") -> UnsupportedOpError:
        """Return the error that says why this node has no ncnn form."""
        return UnsupportedOpError(self.name, self.op_type, reason, hint=hint)


def node_from_proto(proto: onnx.NodeProto) -> OnnxNode:
    """Return `proto` as an OnnxNode."""
    foreign = proto.domain not in {"", "ai.onnx"}
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
