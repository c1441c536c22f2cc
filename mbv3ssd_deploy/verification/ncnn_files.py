"""The shipped ncnn weights against body.onnx's, and the shipped graph without rounding.

A .bin file with half precision proves little about the graph beside it: heads a hundredth away may
be rounding or a mistake. So both are checked: every stored weight must be that of body.onnx,
rounded once; and the shipped graph is run with the unrounded weights put back, where heads
must agree closely. A weight that does not correspond stays as shipped, mistake and all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bundle.bundle import BIN, MANIFEST, PARAM, Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord, request_from_record
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import DeployError, FormatError, first_few
from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn, build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import (
    CONF,
    LOC,
    TAIL_BLOBS,
    NcnnGraph,
    NcnnLayer,
    Param,
    Storage,
    Weight,
)
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param, render_param
from mbv3ssd_deploy.ncnn_graph.priors import PriorPlan
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.ncnn_graph.weight_bin import read_ncnn, render_bin, with_storage
from mbv3ssd_deploy.onnx_body.body import OnnxBody
from mbv3ssd_deploy.verification.contract import compare_detection_output
from mbv3ssd_deploy.verification.rules import Code, Reason

_NAMED = 5
"""Number of layers that are named; in a file of another model, all of them differ."""


@dataclass(frozen=True, slots=True)
class FullPrecisionGraph:
    """A shipped graph with the weights of body.onnx at full precision.

    Attributes:
        graph: the shipped layers, in float32.
        weights: how many weight blobs the shipped file has.
        numbers: how many numbers are in them.
        reasons: the blobs that are not those of body.onnx.
    """

    graph: NcnnGraph
    weights: int
    numbers: int
    reasons: tuple[Reason, ...]


def full_precision_graph(shipped: NcnnGraph, again: NcnnGraph) -> FullPrecisionGraph:
    """Return `shipped` with the weights of body.onnx at full precision.

    Args:
        shipped: read from the bundle's files.
        again: body.onnx lowered again, weights at full precision.
    """
    sources = {layer.name: layer for layer in again.layers}
    layers, found = [], []
    for layer in shipped.layers:
        full, reasons = _full_layer(layer, sources.get(layer.name))
        layers.append(full)
        found += reasons
    blobs = [weight for layer in shipped.layers for weight in layer.weights]
    return FullPrecisionGraph(
        graph=NcnnGraph(tuple(layers)),
        weights=len(blobs),
        numbers=sum(weight.data.size for weight in blobs),
        reasons=_first(found),
    )


def _full_layer(layer: NcnnLayer, source: NcnnLayer | None) -> tuple[NcnnLayer, list[Reason]]:
    if not layer.weights:
        return layer, []
    given = {weight.role: weight for weight in source.weights} if source is not None else {}
    weights, found = [], []
    for weight in layer.weights:
        full = given.get(weight.role)
        reason = next(_objections(layer, weight, full), None)
        if reason is None and full is not None:
            weights.append(Weight(weight.role, full.data, Storage.FLOAT32))
        else:
            weights.append(weight)
        found += [] if reason is None else [reason]
    return replace(layer, weights=tuple(weights)), found


def _objections(layer: NcnnLayer, weight: Weight, full: Weight | None) -> Iterator[Reason]:
    """Yield why `weight` is not `full` as stored, most specific reason first."""
    title = f"{layer.type} {layer.name!r}, {weight.role}"
    if full is None or full.data.size != weight.data.size:
        lack = "nothing" if full is None else f"{full.data.size} numbers"
        text = f"{title}: {weight.data.size} numbers, {lack} in body.onnx"
        yield Reason(Code.WEIGHTS_DIFFER, text)
        return
    stored, expected = weight.data.ravel(), _as_stored(full, weight.storage)
    if np.array_equal(stored, expected):
        return
    odd = int(np.count_nonzero(~np.isfinite(stored)))
    if odd:
        yield Reason(Code.NOT_FINITE, f"{title}: {odd} of {stored.size} numbers are NaN or Inf")
    if _is_reversed(layer, stored, expected):
        text = f"{title}: its three input channels are in reverse order, as for BGR and RGB"
        yield Reason(Code.CHANNELS_REVERSED, text)
    wrong = np.flatnonzero(stored != expected)
    first = int(wrong[0])
    text = (
        f"{title}: {wrong.size} of {stored.size} stored numbers are not body.onnx's, the first at "
        f"{first}: {stored[first]:.6g} instead of {expected[first]:.6g}"
    )
    yield Reason(Code.WEIGHTS_DIFFER, text)


def _as_stored(full: Weight, storage: Storage) -> F32:
    data = full.data.ravel().astype(np.float32)
    if storage is Storage.FLOAT16:
        with np.errstate(over="ignore"):
            return data.astype(np.float16).astype(np.float32)
    return data


def _is_reversed(layer: NcnnLayer, stored: np.ndarray, expected: F32) -> bool:
    """Return whether the first convolution expects the opposite channel order."""
    outputs = layer.params.get("num_output")
    if layer.type != "Convolution" or not isinstance(outputs, int) or stored.size % (3 * outputs):
        return False
    by_channel = expected.reshape(outputs, 3, -1)
    return np.array_equal(stored, by_channel[:, ::-1].ravel())


def _first(found: list[Reason]) -> tuple[Reason, ...]:
    if len(found) <= _NAMED:
        return tuple(found)
    text = f"and {len(found) - _NAMED} more weight blobs differ from body.onnx"
    return (*found[:_NAMED], Reason(Code.WEIGHTS_DIFFER, text))


_DIFFERENCES_NAMED = 3
"""How many differences are named; a file of another model would name them all."""


def graph_reasons(shipped: NcnnGraph, again: NcnnGraph) -> tuple[Reason, ...]:
    """Return a reason with the first layers of `shipped` that differ from `again`.

    Types, wiring, parameters and order are compared; weights are by `full_precision_graph`.

    Args:
        shipped: read from the bundle's files.
        again: body.onnx lowered again, as read from a file.
    """
    found = tuple(_differences(shipped, again))
    if not found:
        return ()
    text = (
        f"not the graph of body.onnx: {_listed(found)}; if another version of this tool "
        "made it, run `mbv3ssd-deploy to-ncnn` again"
    )
    return (Reason(Code.GRAPH_DIFFERS, text),)


def storage_reasons(shipped: NcnnGraph, again: NcnnGraph, record: NcnnRecord) -> tuple[Reason, ...]:
    """Return a reason if weights of `shipped` have another storage than in `record`.

    Args:
        shipped: read from the bundle's files.
        again: body.onnx lowered again, weights at full precision.
        record: of detector.json.
    """
    if record.storage not in (Storage.FLOAT32, Storage.FLOAT16):
        text = f"storage is {record.storage!r} in {MANIFEST}; this tool writes float32 or float16"
        return (Reason(Code.RECORD_DIFFERS, text),)
    # not every blob of a float16 file is float16: biases are not, nor numbers beyond 65504
    expected = _storages(with_storage(again, Storage(record.storage)))
    found = [
        f"the {role} of {name!r} is stored as {storage}"
        for (name, role), storage in _storages(shipped).items()
        if expected.get((name, role), storage) is not storage
    ]
    if not found:
        return ()
    text = f"storage is {record.storage} in {MANIFEST}, but {_listed(found)}"
    return (Reason(Code.RECORD_DIFFERS, text),)


def carrier_reasons(record: NcnnRecord, plan: PriorPlan | None) -> tuple[Reason, ...]:
    """Return a reason if a level's priors are not stored as in `record`.

    Args:
        record: of detector.json.
        plan: of body.onnx lowered again, which `graph_reasons` compares with the shipped graph.
    """
    recorded = [level.layer for level in record.priors]
    planned = [] if plan is None else [level.layer for level in plan.levels]
    found = [
        f"level {index} is {ours or 'absent'} in {MANIFEST} and {theirs or 'absent'} in the graph"
        for index, (ours, theirs) in enumerate(zip_longest(recorded, planned))
        if ours != theirs
    ]
    if not found:
        return ()
    text = f"what carries the priors is recorded wrongly: {_listed(found)}"
    return (Reason(Code.RECORD_DIFFERS, text),)


def _differences(shipped: NcnnGraph, again: NcnnGraph) -> Iterator[str]:
    ours = {layer.name: layer for layer in shipped.layers}
    theirs = {layer.name: layer for layer in again.layers}
    for layer in shipped.layers:
        if layer.name in theirs:
            yield from _layer_differences(layer, theirs[layer.name])
        else:
            yield f"{_called(layer)} is not in that graph"
    yield from (
        f"{_called(layer)} is missing" for name, layer in theirs.items() if name not in ours
    )
    if ours.keys() == theirs.keys() and list(ours) != list(theirs):
        yield "its layers are in another order"


def _layer_differences(layer: NcnnLayer, expected: NcnnLayer) -> Iterator[str]:
    """Yield what is different in `layer`; the parameters of another type cannot be compared."""
    if layer.type != expected.type:
        yield f"{_called(layer)} should be a {expected.type}"
        return
    schema = LAYERS[layer.type]
    ours, theirs = schema.resolved(layer.params), schema.resolved(expected.params)
    sides: tuple[tuple[str, str | tuple[str, ...], str | tuple[str, ...]], ...] = (
        ("inputs", layer.inputs, expected.inputs),
        ("outputs", layer.outputs, expected.outputs),
        *((name, _value_text(ours[name]), _value_text(theirs[name])) for name in ours),
    )
    for what, own, other in sides:
        if own != other:
            yield f"{what} of {_called(layer)} is {_text(own)}, not {_text(other)}"


def _called(layer: NcnnLayer) -> str:
    return f"{layer.type} {layer.name!r}"


def _value_text(value: Param) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value_text, value)) + ")"
    # nine digits distinguish any two float32
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _text(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else " ".join(value) or "nothing"


def _listed(found: Sequence[str]) -> str:
    return first_few(found, _DIFFERENCES_NAMED, separator="; ")


def _storages(graph: NcnnGraph) -> dict[tuple[str, str], Storage]:
    return {(layer.name, w.role): w.storage for layer in graph.layers for w in layer.weights}


@dataclass(frozen=True, slots=True)
class NcnnFiles:
    """The shipped ncnn files, compared with body.onnx.

    Attributes:
        graph: None if the strict reader refused the files; ncnn itself may still run them.
        full_precision: the graph at full precision; None if body.onnx cannot be used.
        missing: required blobs that do not exist.
        reasons: why the files could not be read, or how their weights differ from body.onnx.
        layout: where the layers differ from body.onnx or from detector.json.
    """

    graph: NcnnGraph | None
    full_precision: FullPrecisionGraph | None
    missing: tuple[str, ...]
    reasons: tuple[Reason, ...]
    layout: tuple[Reason, ...] = ()


def read_files(bundle: Bundle, record: NcnnRecord, body: OnnxBody | None) -> NcnnFiles:
    """Read the ncnn files of `bundle`, and lower its body again to compare them with."""
    try:
        graph = read_ncnn(bundle.param_path, bundle.bin_path)
    except FormatError as error:
        return NcnnFiles(None, None, (), (Reason(Code.MODEL_UNREADABLE, str(error)),))
    blobs = {blob for layer in graph.layers for blob in layer.outputs}
    missing = tuple(name for name in required_blobs(bundle, record) if name not in blobs)
    if body is None:
        text = "body.onnx cannot be read, so the files cannot be compared with it"
        return NcnnFiles(graph, None, missing, (Reason(Code.MODEL_UNREADABLE, text),))
    try:
        again = build_ncnn(body, request_from_record(record, Storage.FLOAT32))
    except DeployError as error:
        text = f"body.onnx cannot be lowered to compare the files with it: {error}"
        return NcnnFiles(graph, None, missing, (Reason(Code.MODEL_UNREADABLE, text),))
    full = full_precision_graph(graph, again.graph)
    layout = _layout_reasons(graph, again, record)
    return NcnnFiles(graph, full, missing, full.reasons, layout)


def _layout_reasons(shipped: NcnnGraph, again: BuiltNcnn, record: NcnnRecord) -> tuple[Reason, ...]:
    as_written = parse_param(again.param.decode(), source="body.onnx lowered again")
    return (
        *graph_reasons(shipped, as_written),
        *storage_reasons(shipped, again.graph, record),
        *carrier_reasons(record, again.plan),
    )


def required_blobs(bundle: Bundle, record: NcnnRecord) -> tuple[str, ...]:
    """Return the blobs that a network with these outputs must have."""
    outputs = Outputs(record.outputs)
    if outputs is Outputs.DETECTIONS:
        return TAIL_BLOBS
    if outputs is Outputs.CONCAT:
        return (LOC, CONF)
    levels = range(len(bundle.spec.priors.levels))
    return tuple(f"{name}_{level}" for name in (LOC, CONF) for level in levels)


def tail_reasons(bundle: Bundle, record: NcnnRecord, files: NcnnFiles) -> tuple[Reason, ...]:
    """Return where the DetectionOutput layer differs from detector.json."""
    recorded = {
        "num_class": float(bundle.spec.num_classes),
        "confidence_threshold": record.score_threshold,
        "nms_threshold": record.iou_threshold,
        "nms_top_k": float(record.nms_top_k),
        "keep_top_k": float(record.keep_top_k),
    }
    schema = LAYERS["DetectionOutput"]
    return tuple(
        reason
        for layer in (files.graph.layers if files.graph is not None else ())
        if layer.type == schema.type
        for reason in compare_detection_output(recorded, _numbers(schema.resolved(layer.params)))
    )


def _numbers(params: Mapping[str, Param]) -> dict[str, float]:
    return {name: float(v) for name, v in params.items() if isinstance(v, int | float)}


def write_full_precision(full: FullPrecisionGraph, folder: Path) -> tuple[Path, Path]:
    """Write the graph at full precision into `folder`; return its .param and .bin."""
    param, weights = folder / PARAM, folder / BIN
    param.write_text(render_param(full.graph))
    weights.write_bytes(render_bin(full.graph))
    return param, weights
