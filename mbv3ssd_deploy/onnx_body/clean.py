"""Taking out of an ONNX model what depends on who wrote it, where and when.

Exporters and simplifiers leave stack traces with source paths, their own names and versions, and
counters of their internal graphs. Without them equal networks give equal bytes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

import onnx

from mbv3ssd_deploy.onnx_body.body import DEFAULT_DOMAINS, opset_of

PRODUCER = "mbv3ssd-deploy"
GRAPH_NAME = "mbv3ssd_body"

_TENSOR_ROLES: Mapping[str, tuple[str, ...]] = {
    "Conv": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "Reshape": ("", "shape"),
    "Clip": ("", "min", "max"),
    "ReduceMean": ("", "axes"),
}
"""What the inputs of a node are called, by position."""

_COUNTER_PREFIXES = ("onnx::", "_v_", "val_")
"""How the TorchScript exporter, onnxsim and the newer exporter begin names that only count."""


def cleaned(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return a copy of `model` that holds the network, `metadata`, our name, and no more."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    _strip_notes(out)
    out.producer_name, out.producer_version = PRODUCER, importlib.metadata.version(PRODUCER)
    out.domain, out.model_version = "", 0
    out.graph.name = GRAPH_NAME
    opset = opset_of(out)
    del out.opset_import[:]
    out.opset_import.append(onnx.helper.make_opsetid("", opset))
    del out.metadata_props[:]
    for key in sorted(metadata):
        out.metadata_props.add(key=key, value=metadata[key])
    _name_tensors_by_use(out.graph)
    _drop_allowzero(out.graph)
    return out


def _strip_notes(model: onnx.ModelProto) -> None:
    graph = model.graph
    del graph.value_info[:]  # intermediate shapes: who needs them infers them
    noted = (*graph.node, *graph.input, *graph.output, *graph.initializer, graph)
    for item in noted:
        item.ClearField("metadata_props")
    for item in (model, *noted):
        item.ClearField("doc_string")
    del graph.quantization_annotation[:]
    for node in graph.node:
        if node.domain in DEFAULT_DOMAINS:
            node.domain = ""
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)


def _name_tensors_by_use(graph: onnx.GraphProto) -> None:
    """Rename weights whose name is a counter to their node and role: `/stem/Conv.weight`."""
    taken = {tensor.name for tensor in graph.initializer}
    names: dict[str, str] = {}
    for node in graph.node:
        roles = _TENSOR_ROLES.get(node.op_type, ())
        for role, tensor in zip(roles, node.input, strict=False):
            is_counter = tensor in taken and tensor.startswith(_COUNTER_PREFIXES)
            wish = f"{node.name}.{role}"
            if is_counter and tensor not in names and wish not in taken:
                names[tensor] = wish
    for node in graph.node:
        renamed = [names.get(tensor, tensor) for tensor in node.input]
        del node.input[:]
        node.input.extend(renamed)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _drop_allowzero(graph: onnx.GraphProto) -> None:
    """Remove `allowzero` from every Reshape whose target has no 0, where it changes nothing.

    Its presence alone makes OpenCV's importer refuse the model when the target holds a -1.
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        flag = next((a for a in node.attribute if a.name == "allowzero"), None)
        target = constants.get(node.input[1])
        if flag is not None and (flag.i == 0 or (target is not None and 0 not in target)):
            node.attribute.remove(flag)
