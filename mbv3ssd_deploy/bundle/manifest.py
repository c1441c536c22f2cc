"""detector.json: the contract that everything downstream reads.

It says what the detector is (`detector`, a DetectorSpec), where it came from (`checkpoint`),
how each file was made (`onnx`, `ncnn`, `commands`, `versions`) and which bytes belong together
(`files`). `docs/formats/detector-json.md` describes it key by key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.records import Json, json_from_record, parse_json, record_from_json
from mbv3ssd_deploy.ncnn_graph.precision import ALL_MASKS, PrecisionMasks
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

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

    `path` is relative to the bundle, with forward slashes; `options` are the flags that changed how
    it was read (JSON of `checkpoint.load.LoadOptions`), so that it can be read again the same way.
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
    """How the priors of one level are carried, and how far they are from the checkpoint's.

    `worst_error` is the largest distance of a corner in units of the image, read back from a run of
    the real ncnn.
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
    """The whole of detector.json. A bundle made from a lone ONNX body has no `checkpoint`."""

    detector: DetectorSpec
    checkpoint: CheckpointRecord | None
    onnx: OnnxRecord
    ncnn: NcnnRecord | None
    files: Mapping[str, FileRecord]
    commands: tuple[str, ...]
    versions: Mapping[str, str]


def render_manifest(manifest: Manifest) -> bytes:
    """Return detector.json as UTF-8 text, with the schema and a few derived facts for people."""
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
        BundleError: not JSON, another schema, or keys that are missing, unknown or ill-typed.
    """
    again = "run `mbv3ssd-deploy export` again"
    plain = parse_json(data, where=where, error=BundleError, hint=again)
    if not isinstance(plain, dict) or "schema" not in plain:
        raise BundleError(
            "is not a detector.json of this tool", where=where, hint="run `mbv3ssd-deploy export`"
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
    """Somebody who edits a derived fact by hand must not be left believing that it changed."""
    fresh = json.loads(render_manifest(manifest))
    stale = [key for key in _DERIVED if plain.get(key) != fresh[key]]
    if stale:
        raise BundleError(
            f"{', '.join(stale)} contradict the detector below them",
            where=where,
            hint="run `mbv3ssd-deploy export` again with the right flags instead of editing",
        )
