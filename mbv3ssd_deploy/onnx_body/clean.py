"""Taking out of an ONNX model what depends on who wrote it, where and when.

Exporters and simplifiers leave stack traces with source paths, their own names and versions, and
counters of their internal graphs. Without them equal networks give equal bytes.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
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

_DEFAULTS = frozenset({("Conv", "auto_pad", b"NOTSET"), ("HardSigmoid", "beta", 0.5)})
"""Attributes that say what holds without them, and that only the newer exporter writes. OpenCV 5.0
multiplies by a gate in the gate's shape when its `beta` is there."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHT = ".weight"

_COUNTER_PREFIXES = ("onnx::", "_v_", "val_")
"""How the TorchScript exporter, onnxsim and the newer exporter begin names that only count."""


def cleaned(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return a copy of `model` that holds the network, `metadata`, our name, and no more."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    _pool_instead_of_mean(out)
    _name_nodes_by_module(out.graph)
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


def _pool_instead_of_mean(model: onnx.ModelProto) -> None:
    """Turn the mean over all rows and columns of a map into GlobalAveragePool, its name in ONNX.

    The newer exporter writes ReduceMean, its axes an input. Runtimes know the other form better.
    """
    if not any(node.op_type == "ReduceMean" for node in model.graph.node):
        return
    known = onnx.shape_inference.infer_shapes(model).graph
    rank = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*known.input, *known.value_info, *known.output)
    }
    constants = _constants(model.graph)
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and rank.get(node.input[0]) == 4:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            axes = attributes.get("axes", ())
            if len(node.input) > 1 and node.input[1]:
                axes = constants.get(node.input[1], ())
            if {int(axis) % 4 for axis in axes} == {2, 3} and attributes.get("keepdims", 1):
                node.op_type = "GlobalAveragePool"
                del node.attribute[:], node.input[1:]
    _drop_unread_constants(model.graph)


def _constants(graph: onnx.GraphProto) -> dict[str, npt.NDArray[Any]]:
    """Return the value of every initializer and Constant node."""
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    return found


def _drop_unread_constants(graph: onnx.GraphProto) -> None:
    read = {tensor for node in graph.node for tensor in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [n for n in graph.node if n.op_type != "Constant" or read.intersection(n.output)]
    del graph.node[:]
    graph.node.extend(nodes)


def _name_nodes_by_module(graph: onnx.GraphProto) -> None:
    """Name the nodes of the newer exporter, and what they make, after modules, as the older does.

    It calls a node `node_conv2d_3` and notes beside it, as the text of a Python list, the scopes
    that it stands in: the modules from the outermost in, and at last the operation itself.
    """
    uses: Counter[str] = Counter()
    fixed = {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    for node in graph.node:
        module = _module_of(node)
        if module is not None:
            name = "/".join(("", module, node.op_type) if module else ("", node.op_type))
            node.name = f"{name}_{uses[name]}" if uses[name] else name
            uses[name] += 1
            made = [tensor for tensor in node.output if tensor and tensor not in fixed]
            renamed |= {t: f"{node.name}_output_{i}" for i, t in enumerate(made)}
    for node in graph.node:
        for tensors in (node.input, node.output):
            new = [renamed.get(tensor, tensor) for tensor in tensors]
            del tensors[:]
            tensors.extend(new)


def _module_of(node: onnx.NodeProto) -> str | None:
    """Return the module that the newer exporter notes for `node`; None where it notes none."""
    scopes = next((e.value for e in node.metadata_props if e.key == _SCOPES), "")
    if not scopes:
        return None
    # a convolution that took its BatchNorm in is noted under the BatchNorm
    if node.op_type == "Conv" and node.input[1].endswith(_WEIGHT):
        return str(node.input[1].removesuffix(_WEIGHT))
    return str(ast.literal_eval(scopes)[-2])


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
        said = [a for a in node.attribute if (node.op_type, a.name, a.s or a.f) not in _DEFAULTS]
        attributes = sorted(said, key=lambda attribute: attribute.name)
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
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        flag = next((a for a in node.attribute if a.name == "allowzero"), None)
        target = constants.get(node.input[1])
        if flag is not None and (flag.i == 0 or (target is not None and 0 not in target)):
            node.attribute.remove(flag)
