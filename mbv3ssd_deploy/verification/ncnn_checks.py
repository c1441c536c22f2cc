"""What is checked of a bundle's ncnn files: weights, priors, and two runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.verification.candidates import (
    PRIOR_BLOB,
    DetectionOutputCandidate,
    RawNcnnCandidate,
    cut_of_tail,
    detection_output_of,
    raw_blobs,
)
from mbv3ssd_deploy.verification.checks import Checking, Settled
from mbv3ssd_deploy.verification.detections import DetectionPair, compare_detections
from mbv3ssd_deploy.verification.ncnn_files import NcnnFiles, wanted_blobs, write_twin
from mbv3ssd_deploy.verification.priors import PriorDiff, compare_priors
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.report import Row, Status, judged
from mbv3ssd_deploy.verification.rules import Check
from mbv3ssd_deploy.verification.runtime_check import Candidate, RuntimeCheck


@dataclass(slots=True)
class PriorCheck:
    """Reads all priors back from a run of the shipped files; once, they depend on no image."""

    runtime: NcnnModel
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
        diff = compare_detections(self.pairs, cut_of_tail(self.record))
        note = f"{self.spec.family}'s own rules against DetectionOutput's; a matter of design"
        return Row(Check.NCNN_RULES, "ncnn rules", "numpy", Status.INFO, note=note, detections=diff)


def checks_of(
    bundle: Bundle, record: NcnnRecord, files: NcnnFiles, spec: DetectorSpec, scratch: Path
) -> Iterator[Checking]:
    """Yield the checks of the ncnn files.

    Args:
        bundle: has the files, and the contract that tells how to read their outputs.
        record: how the files were made.
        files: what reading them told.
        spec: the checkpoint's own.
        scratch: a folder for the files at full precision; must last as long as the checks.
    """
    shipped = (bundle.param_path, bundle.bin_path)
    yield Settled(_weights_row(files, record))
    wanted = wanted_blobs(bundle, record)
    if PRIOR_BLOB in wanted and PRIOR_BLOB not in files.missing:
        yield PriorCheck(NcnnModel(*shipped, exact=True), spec, record)
    half = record.storage == Storage.FLOAT16
    as_shipped = Check.NCNN_SHIPPED_FP16 if half else Check.NCNN_SHIPPED_FP32
    if files.missing:
        text = f"there is no blob {' or '.join(files.missing)}"
        reasons = (Reason(Code.OUTPUT_MISSING, text),)
        for check in (Check.NCNN_EXACT, as_shipped):
            yield Settled(Row(check, _TITLES[check], "", Status.FAIL, reasons=reasons))
    else:
        full, weights = (shipped, "weights as stored")
        if files.twin is not None:
            full = write_twin(files.twin, scratch)
            weights = "weights in part as stored" if files.reasons else "fp32 weights"
        for check, paths, exact, precision in (
            (Check.NCNN_EXACT, full, True, weights),
            (as_shipped, shipped, False, f"{record.storage} storage"),
        ):
            candidate = _candidate(NcnnModel(*paths, exact=exact), bundle, spec, record)
            yield RuntimeCheck(check, _TITLES[check], candidate, spec, precision)
    if Outputs(record.outputs) is Outputs.DETECTIONS:
        yield RulesCheck(spec, record)


_TITLES = {
    Check.NCNN_EXACT: "ncnn exact",
    Check.NCNN_SHIPPED_FP16: "ncnn as shipped",
    Check.NCNN_SHIPPED_FP32: "ncnn as shipped",
}


def _candidate(
    runtime: NcnnModel, bundle: Bundle, spec: DetectorSpec, record: NcnnRecord
) -> Candidate:
    outputs = Outputs(record.outputs)
    if outputs is Outputs.DETECTIONS:
        return DetectionOutputCandidate(runtime, spec, bundle.spec, record)
    blobs = raw_blobs(outputs, len(bundle.spec.priors.levels))
    return RawNcnnCandidate(runtime, bundle.spec, blobs)


def _weights_row(files: NcnnFiles, record: NcnnRecord) -> Row:
    reasons, note = (*files.reasons, *files.layout), ""
    if files.twin is not None and not reasons:
        rounded = ", rounded to half" if record.storage == Storage.FLOAT16 else ""
        count = f"{files.twin.numbers} numbers in {files.twin.weights} blobs"
        note = f"{count} are what body.onnx gives{rounded}"
    return Row(
        Check.NCNN_WEIGHTS,
        "ncnn weights",
        record.storage,
        judged(reasons),
        note=note,
        reasons=reasons,
    )
