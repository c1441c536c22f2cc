"""detector.json: what a detector is, where it came from, and which files belong to it.

`docs/formats/detector-json.md` describes it key by key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.records import Json, json_from_record, parse_json, record_from_json
from mbv3ssd_deploy.ncnn_graph.precision import ALL_MASKS, PrecisionMasks
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector, LoadOptions
    from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn, NcnnRequest
    from mbv3ssd_deploy.ncnn_graph.graph import Storage
    from mbv3ssd_deploy.onnx_body.body import OnnxBody

SCHEMA = 1
PRIOR_ORDER = "level, row, column, box within the cell"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The bytes that a file must have."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """The checkpoint that a bundle was made from.

    `path` is relative to the bundle, with forward slashes; `options` (JSON of `LoadOptions`) are
    the flags with which it was read.
    """

    path: str
    sha256: str
    family: str
    evidence: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OnnxRecord:
    """How body.onnx was made."""

    opset: int
    batch: int
    exporter: str
    simplifier: str
    nodes: int


@dataclass(frozen=True, slots=True)
class PriorLevelRecord:
    """How the priors of one level are stored, and how far they are from the checkpoint's.

    `worst_error` is the largest distance of a corner, in units of the image, as ncnn computes it.
    """

    level: int
    layer: str
    worst_error: float
    reason: str


@dataclass(frozen=True, slots=True)
class NcnnRecord:
    """How model.ncnn.param and model.ncnn.bin were made.

    `outputs` is "detections" (ends in `detection_out`), "concat" (`loc` and `conf`) or "levels"
    (`loc_0`.., `conf_0`..); the thresholds are those of the DetectionOutput layer.
    """

    storage: str
    outputs: Outputs
    priors_mode: PriorMode
    priors: tuple[PriorLevelRecord, ...]
    score_threshold: float
    iou_threshold: float
    nms_top_k: int
    keep_top_k: int
    layers: int
    guards: PrecisionMasks = ALL_MASKS


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of detector.json. A bundle made from a lone ONNX body has no `checkpoint`."""

    detector: DetectorSpec
    checkpoint: CheckpointRecord | None
    onnx: OnnxRecord
    ncnn: NcnnRecord | None
    files: Mapping[str, FileRecord]
    commands: tuple[str, ...]
    versions: Mapping[str, str]


def checkpoint_record(
    loaded: LoadedDetector, options: LoadOptions, directory: Path
) -> CheckpointRecord:
    """Return the record of the checkpoint of the bundle in `directory`."""
    found = loaded.checkpoint
    relative = os.path.relpath(found.path.resolve(), directory.resolve())
    path = Path(relative).as_posix()
    plain = json_from_record(options)
    return CheckpointRecord(path, found.sha256, found.family, found.evidence, plain)


def new_manifest(
    body: OnnxBody,
    simplifier: str,
    checkpoint: CheckpointRecord | None,
    command: str,
    versions: Mapping[str, str],
) -> Manifest:
    """Return the manifest of a bundle that starts with `body`; `simplifier` is how it was made."""
    nodes = len(body.model.graph.node)
    return Manifest(
        detector=body.spec,
        checkpoint=checkpoint,
        onnx=OnnxRecord(body.opset, body.batch, body.exporter, simplifier, nodes),
        ncnn=None,
        files={},
        commands=(command,),
        versions=versions,
    )


def ncnn_record(
    built: BuiltNcnn, request: NcnnRequest, worst_errors: Sequence[float]
) -> NcnnRecord:
    """Return the record of ncnn files; `worst_errors` of the priors, one per level."""
    plans = () if built.plan is None else built.plan.levels
    priors = tuple(
        PriorLevelRecord(level=index, layer=plan.layer, worst_error=error, reason=plan.reason)
        for index, (plan, error) in enumerate(zip(plans, worst_errors, strict=True))
    )
    options = built.options
    return NcnnRecord(
        storage=request.storage.value,
        outputs=request.outputs,
        priors_mode=request.priors,
        priors=priors,
        score_threshold=options.score_threshold,
        iou_threshold=options.iou_threshold,
        nms_top_k=options.nms_top_k,
        keep_top_k=options.keep_top_k,
        layers=len(built.graph.layers),
        guards=request.guards,
    )


def request_from_record(record: NcnnRecord, storage: Storage) -> NcnnRequest:
    """Return the request that gives this record, with weights in `storage`."""
    from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest  # noqa: PLC0415 -- imports onnx

    return NcnnRequest(
        storage=storage,
        outputs=record.outputs,
        priors=record.priors_mode,
        score_threshold=record.score_threshold,
        iou_threshold=record.iou_threshold,
        nms_top_k=record.nms_top_k,
        keep_top_k=record.keep_top_k,
        guards=record.guards,
    )


def render_manifest(manifest: Manifest) -> bytes:
    """Return detector.json as UTF-8 text, with the schema and a few derived values."""
    spec = manifest.detector
    derived: Json = {
        "schema": SCHEMA,
        "num_classes": spec.num_classes,
        "prior_count": spec.priors.count,
        "prior_order": PRIOR_ORDER,
        "variances": list(spec.coder.variances),
    }
    text = json.dumps(derived | json_from_record(manifest), indent=1, ensure_ascii=False)
    return (text + "\n").encode()


_DERIVED = ("schema", "num_classes", "prior_count", "prior_order", "variances")


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Return the manifest that `render_manifest` wrote.

    Raises:
        BundleError: not JSON, another schema, or keys that are missing, unknown or of a wrong type.
    """
    again = "run `mbv3ssd-deploy export` again"
    plain = parse_json(data, where=where, error=BundleError, hint=again)
    if not isinstance(plain, dict) or "schema" not in plain:
        raise BundleError(
            "not a detector.json of this tool", where=where, hint="run `mbv3ssd-deploy export`"
        )
    if plain["schema"] != SCHEMA:
        raise BundleError(
            f"has schema {plain['schema']}, this version reads {SCHEMA}",
            where=where,
            hint="run `mbv3ssd-deploy export` again with this version",
        )
    own = {key: value for key, value in plain.items() if key not in _DERIVED}
    manifest = record_from_json(Manifest, own, where=where, error=BundleError)
    _check_derived(manifest, plain, where)
    return manifest


def _check_derived(manifest: Manifest, plain: Json, where: str) -> None:
    """Check that nobody edited a derived value, which would change nothing."""
    fresh = json.loads(render_manifest(manifest))
    stale = [key for key in _DERIVED if plain.get(key) != fresh[key]]
    if stale:
        raise BundleError(
            f"{', '.join(stale)} contradict `detector`, from which they are derived",
            where=where,
            hint="run `mbv3ssd-deploy export` again with the right flags instead of editing",
        )
