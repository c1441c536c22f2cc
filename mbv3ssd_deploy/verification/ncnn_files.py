"""A bundle's ncnn files, read strictly and held against what body.onnx gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM, Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord, request_from_record
from mbv3ssd_deploy.errors import DeployError, FormatError
from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn, build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Param, Storage
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param, render_param
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.ncnn_graph.weight_bin import read_ncnn, render_bin
from mbv3ssd_deploy.onnx_body.body import OnnxBody
from mbv3ssd_deploy.verification.candidates import PRIOR_BLOB, TAIL_BLOBS, raw_blobs
from mbv3ssd_deploy.verification.contract import compare_detection_output
from mbv3ssd_deploy.verification.graphs import carrier_reasons, graph_reasons, storage_reasons
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.twins import Twin, with_full_precision


@dataclass(frozen=True, slots=True)
class NcnnFiles:
    """The shipped ncnn files, and what reading them told.

    Attributes:
        graph: None where the strict reader refused them; ncnn itself may still run them.
        twin: the graph at full precision; None where there is nothing to hold the weights against.
        missing: blobs that must be there, and are not.
        reasons: why the files could not be read, or their weights not be held against body.onnx's.
        layout: where the layers are not what body.onnx gives, or not what detector.json says.
    """

    graph: NcnnGraph | None
    twin: Twin | None
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
    missing = tuple(name for name in wanted_blobs(bundle, record) if name not in blobs)
    if body is None:
        text = "body.onnx cannot be read, so the files cannot be compared with it"
        return NcnnFiles(graph, None, missing, (Reason(Code.MODEL_UNREADABLE, text),))
    try:
        again = build_ncnn(body, request_from_record(record, Storage.FLOAT32))
    except DeployError as error:
        text = f"body.onnx cannot be lowered to compare the files with it: {error}"
        return NcnnFiles(graph, None, missing, (Reason(Code.MODEL_UNREADABLE, text),))
    twin = with_full_precision(graph, again.graph)
    layout = _layout_reasons(graph, again, record)
    return NcnnFiles(graph, twin, missing, twin.reasons, layout)


def _layout_reasons(shipped: NcnnGraph, again: BuiltNcnn, record: NcnnRecord) -> tuple[Reason, ...]:
    as_written = parse_param(again.param.decode(), source="body.onnx lowered again")
    return (
        *graph_reasons(shipped, as_written),
        *storage_reasons(shipped, again.graph, record),
        *carrier_reasons(record, again.plan),
    )


def wanted_blobs(bundle: Bundle, record: NcnnRecord) -> tuple[str, ...]:
    """Return the blobs that a network with these outputs must have."""
    outputs = Outputs(record.outputs)
    if outputs is Outputs.DETECTIONS:
        return (*TAIL_BLOBS, PRIOR_BLOB)
    return raw_blobs(outputs, len(bundle.spec.priors.levels))


def tail_reasons(bundle: Bundle, record: NcnnRecord, files: NcnnFiles) -> tuple[Reason, ...]:
    """Return where the DetectionOutput layer is not as detector.json says."""
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


def write_twin(twin: Twin, folder: Path) -> tuple[Path, Path]:
    """Write the graph at full precision into `folder`; return its .param and .bin."""
    param, weights = folder / PARAM, folder / BIN
    param.write_text(render_param(twin.graph))
    weights.write_bytes(render_bin(twin.graph))
    return param, weights
