"""OnnxBody: the network without its post-processing, as an ONNX model that carries its own spec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.io.records import json_from_record, parse_json, record_from_json

INPUT = "input"
LOC = "loc"
CONF = "conf"
SPEC_KEY = "mbv3ssd_deploy.spec"
EXPORTER_KEY = "mbv3ssd_deploy.exporter"

DEFAULT_DOMAINS = ("", "ai.onnx")
"""Two spellings of one operator set (ONNX IR specification, "Operator Sets")."""

POST_PROCESSING = frozenset(
    {"Exp", "LogSoftmax", "NonMaxSuppression", "NonZero", "Softmax", "TopK"}
    | {"BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "EfficientNMS_TRT"}
)
"""Ops of score activation, box decoding and selection; a body has none of them."""

_EXPORT_HINT = (
    "export the checkpoint with `mbv3ssd-deploy export CHECKPOINT`: "
    "it writes the raw heads, and the detector's description into the file"
)


@dataclass(frozen=True, slots=True, eq=False)
class OnnxBody:
    """A checked model: `input` [N,3,H,W] -> `loc` [N,P,4] raw offsets, `conf` [N,P,C] logits.

    All is float32, all sizes are fixed. P and the order of the priors are `spec.priors`'; class 0
    is the background. The model is never changed in place: who edits it, edits a copy.
    """

    model: onnx.ModelProto
    spec: DetectorSpec

    @property
    def input_name(self) -> str:
        """The name of the only input."""
        return INPUT

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
        FormatError: no ONNX file, a damaged one, or one that is not a body of ours; the message
            holds everything that is wrong with it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FormatError(f"cannot be read: {reason}", where=str(path)) from error
    return body_from_bytes(data, source=str(path))


def body_from_bytes(data: bytes, *, source: str = "<bytes>") -> OnnxBody:
    """Parse what `bytes_from_body` gave.

    Raises:
        FormatError: as `read_body` does.
    """
    return body_from_model(parse_model(data, source=source), source=source)


def parse_model(data: bytes, *, source: str = "<bytes>") -> onnx.ModelProto:
    """Return any ONNX model from its bytes; what it computes is not looked at.

    Raises:
        FormatError: `data` is empty, truncated, or something else.
    """
    if not data:
        raise FormatError("the file is empty", where=source, hint=_EXPORT_HINT)
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise FormatError(
            "not an ONNX file, or a truncated one", where=source, hint=_EXPORT_HINT
        ) from error
    if not model.graph.node:
        raise FormatError(
            "not an ONNX file: there is no graph in it", where=source, hint=_EXPORT_HINT
        )
    return model


def body_from_model(model: onnx.ModelProto, *, source: str = "<model>") -> OnnxBody:
    """Check `model` and return it as a body with the spec of its metadata.

    Raises:
        FormatError: with all problems at once.
    """
    problems = [*_foreign_problems(model)]
    if problems:
        raise FormatError("; ".join(problems), where=source, hint=_EXPORT_HINT)
    spec = _spec_of(model, source)
    problems = [*_shape_problems(model, spec), *_checker_problems(model)]
    if problems:
        raise FormatError("; ".join(problems), where=source, hint=_EXPORT_HINT)
    return OnnxBody(model, spec)


def bytes_from_body(body: OnnxBody) -> bytes:
    """Return the file's content: the same body gives the same bytes, always and everywhere."""
    return bytes(body.model.SerializeToString(deterministic=True))


def metadata_from_spec(spec: DetectorSpec) -> str:
    """Return `spec` as it stands in the metadata: JSON, keys sorted, no spaces."""
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


def _spec_of(model: onnx.ModelProto, source: str) -> DetectorSpec:
    where = f"{source}: metadata {SPEC_KEY}"
    text = metadata_of(model)[SPEC_KEY]
    data = parse_json(text, where=where, error=FormatError, hint=_EXPORT_HINT)
    return record_from_json(DetectorSpec, data, where=where, error=FormatError)


def _foreign_problems(model: onnx.ModelProto) -> Iterator[str]:
    """What tells a model of another origin; each of it holds whatever the spec says."""
    graph = model.graph
    if SPEC_KEY not in metadata_of(model):
        yield "not written by mbv3ssd-deploy: there is no detector description in its metadata"
    names = [output.name for output in graph.output]
    missing = [name for name in (LOC, CONF) if name not in names]
    if missing:
        yield f"no output {' or '.join(missing)}; it has {', '.join(names) or 'none'}"
    post = [f"{n.op_type} {n.name!r}" for n in graph.node if n.op_type in POST_PROCESSING]
    if post:
        yield f"it still holds post-processing: {_some(post)}"
    custom = [f"{n.domain}::{n.op_type}" for n in graph.node if n.domain not in DEFAULT_DOMAINS]
    if custom:
        yield f"it has ops that are not ONNX's own: {_some(sorted(set(custom)))}"
    attributes = (a for node in graph.node for a in node.attribute)
    tensors = [*graph.initializer, *(a.t for a in attributes if a.type == a.TENSOR)]
    outside = [t.name for t in tensors if onnx.external_data_helper.uses_external_data(t)]
    if outside:
        yield f"it keeps weights in other files, which is not supported: {_some(outside)}"


def _shape_problems(model: onnx.ModelProto, spec: DetectorSpec) -> Iterator[str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if [value.name for value in inputs] != [INPUT]:
        found = ", ".join(value.name for value in inputs) or "none"
        yield f"its only input must be called {INPUT!r}; it has {found}"
        return
    batch = _fixed_shape(inputs[0])[0] if _fixed_shape(inputs[0]) else 0
    count, classes = spec.priors.count, spec.num_classes
    expected = {
        INPUT: (batch, 3, spec.input.height, spec.input.width),
        LOC: (batch, count, 4),
        CONF: (batch, count, classes),
    }
    found_values = {value.name: value for value in (*inputs, *model.graph.output)}
    more = sorted(set(found_values) - set(expected))
    if more:
        yield f"it has outputs besides {LOC} and {CONF}: {_some(more)}"
    for name, shape in expected.items():
        if _fixed_shape(found_values[name]) != shape or batch < 1:
            yield (
                f"{name} is {_shape_text(found_values[name])}, "
                f"where its description wants [{batch or 'N'}, {', '.join(map(str, shape[1:]))}]"
            )
        if found_values[name].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            yield f"{name} is not float32"


def _checker_problems(model: onnx.ModelProto) -> Iterator[str]:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"ONNX's checker refuses it: {str(error).strip().splitlines()[0]}"


def _fixed_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sizes; empty where one of them is not a fixed number."""
    sizes = tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
    return sizes if all(size > 0 for size in sizes) else ()


def _shape_text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return f"[{', '.join(str(dim.dim_value or dim.dim_param or '?') for dim in dims)}]"


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
