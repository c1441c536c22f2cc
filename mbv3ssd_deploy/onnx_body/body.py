"""OnnxBody: the network without its post-processing, as an ONNX model that carries its own spec.

`cleaned` takes out of a model what depends on who wrote it, where and when: exporters and
simplifiers leave stack traces with source paths, their own names and versions, and counters of
their internal graphs. Without them equal networks give equal bytes.
"""

from __future__ import annotations

import ast
import enum
import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import FormatError, first_few
from mbv3ssd_deploy.io.records import json_from_record, parse_json, record_from_json

INPUT: Final = "input"
LOC: Final = "loc"
CONF: Final = "conf"
SPEC_KEY: Final = "mbv3ssd_deploy.spec"
EXPORTER_KEY: Final = "mbv3ssd_deploy.exporter"
PRODUCER: Final = "mbv3ssd-deploy"
GRAPH_NAME: Final = "mbv3ssd_body"

DEFAULT_DOMAINS: Final = ("", "ai.onnx")
"""Two spellings of one operator set (ONNX IR specification, "Operator Sets")."""

POST_PROCESSING: Final = frozenset(
    {"Exp", "LogSoftmax", "NonMaxSuppression", "NonZero", "Softmax", "TopK"}
    | {"BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "EfficientNMS_TRT"}
)
"""Ops of score activation, box decoding and selection; a body has none of them."""

_EXPORT_HINT = (
    "export the checkpoint with `mbv3ssd-deploy export CHECKPOINT`: "
    "it writes the raw heads, and the detector's description into the file"
)

_TENSOR_ROLES: Mapping[str, tuple[str, ...]] = {
    "Conv": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "Reshape": ("", "shape"),
    "Clip": ("", "min", "max"),
    "ReduceMean": ("", "axes"),
}
"""What the inputs of a node are called, by position."""

_DEFAULTS = frozenset({("Conv", "auto_pad", b"NOTSET"), ("HardSigmoid", "beta", 0.5)})
"""Attributes that repeat the default, and that only the newer exporter writes. OpenCV 5.0
multiplies by a gate in the gate's shape when its `beta` is there."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHT = ".weight"

_COUNTER_PREFIXES = ("onnx::", "_v_", "val_")
"""How the TorchScript exporter, onnxsim and the newer exporter begin names that only count."""


class ExporterChoice(enum.StrEnum):
    """Which of PyTorch's exporters may make a model."""

    AUTO = "auto"
    """The first that gives a sound body; the TorchScript exporter is tried first."""
    TORCHSCRIPT = "torchscript"
    DYNAMO = "dynamo"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxBody:
    """A checked model: `input` [N,3,H,W] -> `loc` [N,P,4] raw offsets, `conf` [N,P,C] logits.

    All is float32, all sizes are fixed. P and the order of the priors are `spec.priors`'; class 0
    is the background. The model is never changed in place; edit a copy.
    """

    model: onnx.ModelProto
    spec: DetectorSpec

    @property
    def output_names(self) -> tuple[str, str]:
        """The names of the outputs: box offsets, class logits."""
        return (LOC, CONF)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """N, 3, H, W."""
        return (self.batch, 3, self.spec.input.height, self.spec.input.width)

    @property
    def batch(self) -> int:
        """N: how many images the model takes at once."""
        return int(self.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)

    @property
    def opset(self) -> int:
        """The version of ONNX's operator set that the model was written for."""
        return opset_of(self.model)

    @property
    def exporter(self) -> str:
        """Which of PyTorch's exporters made the model; "unknown" where it does not say."""
        return metadata_of(self.model).get(EXPORTER_KEY, "unknown")


def read_body(path: Path) -> OnnxBody:
    """Read an ONNX body that `mbv3ssd-deploy export` wrote; the spec comes from its metadata.

    Raises:
        FormatError: not an ONNX file, a damaged one, or not a body of ours; the message holds
            everything that is wrong with it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return body_from_model(parse_model(data, source=str(path)), source=str(path))


def parse_model(data: bytes, *, source: str = "<bytes>") -> onnx.ModelProto:
    """Return any ONNX model from its bytes, without a look at what it computes.

    Raises:
        FormatError: `data` is empty, truncated, or something else.
    """
    _raise_all([] if data else ["the file is empty"], source)
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        message = "not an ONNX file, or a truncated one"
        raise FormatError(message, where=source, hint=_EXPORT_HINT) from error
    if not model.graph.node:
        _raise_all(["not an ONNX file: there is no graph in it"], source)
    if not _is_text(model):
        _raise_all(["a damaged ONNX file: a name in it is not UTF-8"], source)
    return model


def _is_text(message: Message) -> bool:
    """Return whether every string is UTF-8; protobuf gives one that is not as bytes."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == field.TYPE_MESSAGE and not all(map(_is_text, values)):
            return False
        if field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in values):
            return False
    return True


def body_from_model(model: onnx.ModelProto, *, source: str = "<model>") -> OnnxBody:
    """Check `model` and return it as a body with the spec of its metadata.

    Raises:
        FormatError: with all problems at once.
    """
    _raise_all(_foreign_problems(model), source)
    where = f"{source}: metadata {SPEC_KEY}"
    text = metadata_of(model)[SPEC_KEY]
    data = parse_json(text, where=where, error=FormatError, hint=_EXPORT_HINT)
    spec = record_from_json(DetectorSpec, data, where=where, error=FormatError)
    _raise_all((*_shape_problems(model, spec), *_checker_problems(model)), source)
    return OnnxBody(model, spec)


def bytes_from_body(body: OnnxBody) -> bytes:
    """Return the file's content: the same body gives the same bytes, always and everywhere."""
    return bytes(body.model.SerializeToString(deterministic=True))


def metadata_from_spec(spec: DetectorSpec) -> str:
    """Return `spec` for the metadata: JSON, keys sorted, no spaces."""
    return json.dumps(
        json_from_record(spec), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return the model's metadata as a dict."""
    return {entry.key: entry.value for entry in model.metadata_props}


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operator set that `model` imports; 0 where it names none."""
    versions = [o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS]
    return max(versions, default=0)


def _raise_all(problems: Iterable[str], source: str) -> None:
    message = "; ".join(problems)
    if message:
        raise FormatError(message, where=source, hint=_EXPORT_HINT)


def _foreign_problems(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the signs of a model of another origin, whatever its spec says."""
    graph = model.graph
    if SPEC_KEY not in metadata_of(model):
        yield "not written by mbv3ssd-deploy: there is no detector description in its metadata"
    names = [output.name for output in graph.output]
    missing = [name for name in (LOC, CONF) if name not in names]
    if missing:
        yield f"no output {' or '.join(missing)}; it has {', '.join(names) or 'none'}"
    post = [f"{n.op_type} {n.name!r}" for n in graph.node if n.op_type in POST_PROCESSING]
    if post:
        yield f"it still holds post-processing: {first_few(post)}"
    custom = [f"{n.domain}::{n.op_type}" for n in graph.node if n.domain not in DEFAULT_DOMAINS]
    if custom:
        yield f"it has ops that are not ONNX's own: {first_few(sorted(set(custom)))}"
    attributes = (a for node in graph.node for a in node.attribute)
    tensors = [*graph.initializer, *(a.t for a in attributes if a.type == a.TENSOR)]
    outside = [t.name for t in tensors if onnx.external_data_helper.uses_external_data(t)]
    if outside:
        yield f"it keeps weights in other files, which is not supported: {first_few(outside)}"


def _shape_problems(model: onnx.ModelProto, spec: DetectorSpec) -> Iterator[str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if [value.name for value in inputs] != [INPUT]:
        found = ", ".join(value.name for value in inputs) or "none"
        yield f"its only input must be called {INPUT!r}; it has {found}"
        return
    batch, count = (_fixed_shape(inputs[0]) or (0,))[0], spec.priors.count
    expected = {
        INPUT: (batch, 3, spec.input.height, spec.input.width),
        LOC: (batch, count, 4),
        CONF: (batch, count, spec.num_classes),
    }
    values = {value.name: value for value in (*inputs, *model.graph.output)}
    more = sorted(set(values) - set(expected))
    if more:
        yield f"it has outputs besides {LOC} and {CONF}: {first_few(more)}"
    for name, shape in expected.items():
        if _fixed_shape(values[name]) != shape or batch < 1:
            dims = values[name].type.tensor_type.shape.dim
            has = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
            needs = f"{batch or 'N'}, {', '.join(map(str, shape[1:]))}"
            yield f"{name} is [{has}], where its description needs [{needs}]"
        if values[name].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            yield f"{name} is not float32"


def _checker_problems(model: onnx.ModelProto) -> Iterator[str]:
    try:
        onnx.checker.check_model(model, full_check=True)
        _constants(model.graph)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"ONNX's checker refuses it: {str(error).strip().splitlines()[0]}"
    except (LookupError, TypeError, ValueError) as error:
        yield f"the numbers of a constant in it do not fill its shape: {error}"


def _fixed_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the sizes; () where one of them is not a fixed number."""
    sizes = tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
    return sizes if all(size > 0 for size in sizes) else ()


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
    nodes = (n for n in graph.node if n.op_type == "Constant" and n.attribute[0].name == "value")
    tensors = {node.output[0]: node.attribute[0].t for node in nodes}
    tensors |= {tensor.name: tensor for tensor in graph.initializer}
    return {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


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
    that it is in: the modules from the outermost in, and at last the operation itself.
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
    _rename_tensors(graph, renamed)


def _rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(tensor, tensor) for tensor in tensors]
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)


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
        kept = [a for a in node.attribute if (node.op_type, a.name, a.s or a.f) not in _DEFAULTS]
        kept.sort(key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(kept)


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
    _rename_tensors(graph, names)


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
