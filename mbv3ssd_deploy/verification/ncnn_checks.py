"""What is checked of a bundle's ncnn files: strictness, weights, priors, and two runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM, Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import DeployError, FormatError, RuntimeFailedError
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, Outputs, build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage
from mbv3ssd_deploy.ncnn_graph.param_text import render_param
from mbv3ssd_deploy.ncnn_graph.read import read_ncnn
from mbv3ssd_deploy.ncnn_graph.weight_bin import render_bin
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime
from mbv3ssd_deploy.verification.candidates import (
    PRIOR_BLOB,
    TAIL_BLOBS,
    DetectionOutputCandidate,
    RawNcnnCandidate,
    detection_output_of,
    raw_blobs,
)
from mbv3ssd_deploy.verification.checks import Checking, Settled
from mbv3ssd_deploy.verification.contract import compare_detection_output
from mbv3ssd_deploy.verification.detections import DetectionPair, compare_detections
from mbv3ssd_deploy.verification.priors import PriorDiff, compare_priors
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.report import Row, Status, judged
from mbv3ssd_deploy.verification.rules import Check
from mbv3ssd_deploy.verification.runtime_check import Candidate, RuntimeCheck
from mbv3ssd_deploy.verification.twins import Twin, with_full_precision


@dataclass(slots=True)
class PriorCheck:
    """Reads all priors back from a run of the shipped files; once, they depend on no image."""

    runtime: NcnnRuntime
    spec: DetectorSpec
    record: NcnnRecord
    diff: PriorDiff | None = None
    broken: tuple[Reason, ...] = ()

    def see(self, chunk: Chunk) -> None:
        """Run the first image."""
        if self.diff is not None or self.broken:
            return
        try:
            blobs = self.runtime.run_blobs(chunk.inputs[:1], (PRIOR_BLOB,))
            carriers = [level.layer for level in self.record.priors]
            self.diff = compare_priors(self.spec, blobs[0][PRIOR_BLOB], carriers=carriers)
        except RuntimeFailedError as error:
            self.broken = (Reason(Code.RUNTIME_FAILED, str(error)),)
        except ValueError as error:
            self.broken = (Reason(Code.OUTPUT_SHAPE, f"{PRIOR_BLOB}: {error}"),)

    def row(self) -> Row:
        """Return the priors level by level, or why there are none."""
        reasons, note = self.broken, ""
        if self.diff is not None:
            reasons = self.diff.reasons()
            note = (
                f"{self.diff.count - self.diff.wrong} of {self.diff.count} priors within "
                f"{self.diff.tolerance:g}; the worst is {self.diff.worst_error:.1e} of the image "
                f"({self.diff.max_px:.1e} px) away, IoU {self.diff.worst_iou:.6f}"
            )
        return Row(
            Check.NCNN_PRIORS,
            "ncnn priors",
            "ncnn on cpu",
            judged(reasons),
            note=note,
            reasons=reasons,
            priors=self.diff,
        )


@dataclass(slots=True)
class RulesCheck:
    """How far DetectionOutput's rules are from the family's own, on the same raw heads."""

    spec: DetectorSpec
    record: NcnnRecord
    pairs: list[DetectionPair] = field(default_factory=list)

    def see(self, chunk: Chunk) -> None:
        """Read the reference's heads both ways."""
        lists = detection_output_of(chunk, self.spec, self.record)
        self.pairs += [
            DetectionPair(*each) for each in zip(chunk.names, chunk.detections, lists, strict=True)
        ]

    def row(self) -> Row:
        """Return a row that never fails."""
        keep = self.spec.decode.keep_total or self.record.keep_top_k
        diff = compare_detections(
            self.pairs,
            score_threshold=max(self.record.score_threshold, self.spec.decode.score_threshold),
            keep_total=min(keep, self.record.keep_top_k),
        )
        note = f"{self.spec.family}'s own rules against DetectionOutput's; a matter of design"
        return Row(Check.NCNN_RULES, "ncnn rules", "numpy", Status.INFO, note=note, detections=diff)


@dataclass(frozen=True, slots=True)
class NcnnFiles:
    """The shipped ncnn files, read strictly, and their twin at full precision.

    Attributes:
        graph: None where the reader refused the files.
        twin: None where body.onnx gives nothing to hold the weights against.
        problems: why the files cannot be run.
        weight_problems: why there is no twin.
    """

    graph: NcnnGraph | None
    twin: Twin | None
    problems: tuple[Reason, ...]
    weight_problems: tuple[Reason, ...]


def read_files(bundle: Bundle, record: NcnnRecord) -> NcnnFiles:
    """Read the ncnn files of `bundle`, and lower its body again to hold their weights against."""
    try:
        graph = read_ncnn(bundle.param_path, bundle.bin_path)
    except FormatError as error:
        return NcnnFiles(None, None, (Reason(Code.MODEL_UNREADABLE, str(error)),), ())
    blobs = {blob for layer in graph.layers for blob in layer.outputs}
    missing = [name for name in _wanted_blobs(bundle, record) if name not in blobs]
    problems = tuple(Reason(Code.OUTPUT_MISSING, f"there is no blob {name}") for name in missing)
    try:
        again = build_ncnn(read_body(bundle.body_path), _request(record)).graph
    except DeployError as error:
        text = f"body.onnx gives nothing to hold the weights against: {error}"
        return NcnnFiles(graph, None, problems, (Reason(Code.MODEL_UNREADABLE, text),))
    return NcnnFiles(graph, with_full_precision(graph, again), problems, ())


def tail_reasons(graph: NcnnGraph | None, record: NcnnRecord) -> tuple[Reason, ...]:
    """Return where the DetectionOutput layer is not as detector.json says."""
    layers = graph.layers if graph is not None else ()
    written = [layer.params for layer in layers if layer.type == "DetectionOutput"]
    recorded = {
        "confidence_threshold": record.score_threshold,
        "nms_threshold": record.iou_threshold,
        "nms_top_k": float(record.nms_top_k),
        "keep_top_k": float(record.keep_top_k),
    }
    return tuple(
        reason
        for params in written
        for reason in compare_detection_output(recorded, _numbers(params))
    )


def _numbers(params: Mapping[str, object]) -> dict[str, float]:
    return {name: float(v) for name, v in params.items() if isinstance(v, int | float)}


def checks_of(
    bundle: Bundle, record: NcnnRecord, files: NcnnFiles, spec: DetectorSpec, scratch: Path
) -> Iterator[Checking]:
    """Yield the checks of the ncnn files; `spec` is the checkpoint's, `scratch` takes the twin."""
    shipped = Check.NCNN_SHIPPED_FP16 if _is_half(record) else Check.NCNN_SHIPPED_FP32
    if files.problems:
        for check, title in ((Check.NCNN_EXACT, "ncnn exact"), (shipped, "ncnn as shipped")):
            yield Settled(Row(check, title, "", Status.FAIL, reasons=files.problems))
    if files.graph is None:
        return
    yield Settled(_weights_row(files, record))
    wanted = _wanted_blobs(bundle, record)
    missing = [reason.text for reason in files.problems]
    files_of_bundle = (bundle.param_path, bundle.bin_path)
    if PRIOR_BLOB in wanted and not any(PRIOR_BLOB in text for text in missing):
        yield PriorCheck(NcnnRuntime(*files_of_bundle, exact=True), spec, record)
    if not files.problems:
        twin_files, precision = _exact_files(bundle, files, scratch)
        exact = _candidate(NcnnRuntime(*twin_files, exact=True), bundle, spec, record)
        yield RuntimeCheck(Check.NCNN_EXACT, "ncnn exact", exact, spec, precision)
        runtime = NcnnRuntime(*files_of_bundle, exact=False)
        precision = "fp16 storage" if _is_half(record) else "fp32 storage"
        candidate = _candidate(runtime, bundle, spec, record)
        yield RuntimeCheck(shipped, "ncnn as shipped", candidate, spec, precision)
    if Outputs(record.outputs) is Outputs.DETECTIONS:
        yield RulesCheck(spec, record)


def _candidate(
    runtime: NcnnRuntime, bundle: Bundle, spec: DetectorSpec, record: NcnnRecord
) -> Candidate:
    outputs = Outputs(record.outputs)
    if outputs is Outputs.DETECTIONS:
        return DetectionOutputCandidate(runtime, spec, bundle.spec, record)
    return RawNcnnCandidate(
        runtime, bundle.spec, raw_blobs(outputs, len(bundle.spec.priors.levels))
    )


def _is_half(record: NcnnRecord) -> bool:
    return Storage(record.storage) is Storage.FLOAT16


def _wanted_blobs(bundle: Bundle, record: NcnnRecord) -> tuple[str, ...]:
    outputs = Outputs(record.outputs)
    if outputs is Outputs.DETECTIONS:
        return (*TAIL_BLOBS, PRIOR_BLOB)
    return raw_blobs(outputs, len(bundle.spec.priors.levels))


def _request(record: NcnnRecord) -> NcnnRequest:
    """What must have been asked for to get this record, at full precision."""
    return NcnnRequest(
        storage=Storage.FLOAT32,
        outputs=Outputs(record.outputs),
        priors=record.priors_mode,
        score_threshold=record.score_threshold,
        iou_threshold=record.iou_threshold,
        nms_top_k=record.nms_top_k,
        keep_top_k=record.keep_top_k,
    )


def _exact_files(bundle: Bundle, files: NcnnFiles, scratch: Path) -> tuple[tuple[Path, Path], str]:
    """Write the twin, and say what is in it; without one the shipped files run as they are."""
    if files.twin is None:
        return (bundle.param_path, bundle.bin_path), "as stored"
    param, weights = scratch / PARAM, scratch / BIN
    param.write_text(render_param(files.twin.graph))
    weights.write_bytes(render_bin(files.twin.graph))
    return (
        param,
        weights,
    ), "fp32 weights" if not files.twin.reasons else "weights in part as stored"


def _weights_row(files: NcnnFiles, record: NcnnRecord) -> Row:
    reasons, note = files.weight_problems, ""
    if files.twin is not None:
        reasons = files.twin.reasons
        rounded = ", rounded to half where stored so" if _is_half(record) else ""
        if not reasons:
            count = f"{files.twin.numbers} numbers in {files.twin.weights} blobs"
            note = f"{count} are what body.onnx gives{rounded}"
    return Row(Check.NCNN_WEIGHTS, "ncnn weights", record.storage, judged(reasons), note, reasons)
