"""Verify a bundle: compare every runtime with the checkpoint on the same images.

checkpoint -> reference ----+
                            +--> image by image: contract, runtimes, ncnn  -> report
bundle -> models -----------+
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mbv3ssd_deploy.bundle.bundle import BODY, MANIFEST, Bundle, load_origin
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.checkpoint.load import LoadedDetector
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import (
    DatasetError,
    FormatError,
    RuntimeFailedError,
    RuntimeUnavailableError,
)
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.ncnn_graph.graph import MBOX_PRIORBOX, Storage
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.onnx_body.body import OnnxBody, read_body
from mbv3ssd_deploy.runtimes.env import package_versions
from mbv3ssd_deploy.runtimes.model import Model
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel
from mbv3ssd_deploy.runtimes.torch_model import TorchModel
from mbv3ssd_deploy.verification.contract import compare_specs
from mbv3ssd_deploy.verification.detections import DetectionPair, compare_detections
from mbv3ssd_deploy.verification.ncnn_files import (
    NcnnFiles,
    read_files,
    required_blobs,
    tail_reasons,
    write_full_precision,
)
from mbv3ssd_deploy.verification.priors import PriorDiff, compare_priors
from mbv3ssd_deploy.verification.reference import Chunk, Reference
from mbv3ssd_deploy.verification.report import (
    DeviceResult,
    Row,
    Status,
    VerificationReport,
    device_rows,
    judged,
)
from mbv3ssd_deploy.verification.rules import Check, Code, Reason
from mbv3ssd_deploy.verification.runtime_check import (
    DetectionOutputAdapter,
    HeadsAdapter,
    ModelAdapter,
    RuntimeCheck,
    cut_of_tail,
    decode_by_tail,
)
from mbv3ssd_deploy.verification.tensors import TensorDiff, Tolerance, compare_tensors, merged_diffs

DEVICES = ("auto", "cpu", "cuda")


def verify_bundle(  # noqa: PLR0913 -- one argument a decision of the user
    bundle: Bundle,
    images: Sequence[Path],
    *,
    checkpoint: Path | LoadedDetector | None = None,
    device: str = "auto",
    device_results: Sequence[DeviceResult] = (),
    on_progress: Progress = silent,
) -> VerificationReport:
    """Compare every runtime of `bundle` with its checkpoint in PyTorch on `images`.

    Args:
        bundle: as read; its files need not be hashed again.
        images: files; broken ones are left out and reported.
        checkpoint: the checkpoint if it was moved or is another one, or if it is already loaded.
        device: "cuda" requires the GPU rows, "auto" includes them if there is a GPU.
        device_results: what self-tests of this bundle found on boards.
        on_progress: called for every runtime and chunk of images.

    Raises:
        BundleError: the checkpoint has gone or has changed.
        CheckpointError: the checkpoint cannot be read.
        DatasetError: no images, or none could be read.
        RuntimeUnavailableError: `device` is "cuda" and there is no GPU.
        ValueError: no such device name.
    """
    if device not in DEVICES:
        raise ValueError(f"the device is {device!r}, not one of {', '.join(DEVICES)}")
    if not images:
        raise DatasetError(
            "no image to verify on", hint="--images takes one image or a folder of images"
        )
    began = time.perf_counter()
    if isinstance(checkpoint, LoadedDetector):
        loaded = checkpoint
    else:
        loaded = load_origin(bundle, checkpoint)
    reference = Reference(loaded.spec, bundle.spec, TorchModel(loaded.net))
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        checks = tuple(_checks(bundle, loaded, device, Path(scratch)))
        _look(reference, checks, images, on_progress)
    return VerificationReport(
        name=loaded.spec.name,
        family=loaded.spec.family,
        reference=f"{reference.ran}, from {loaded.checkpoint.path}",
        checkpoint_sha256=loaded.checkpoint.sha256,
        rows=(
            *(check.row() for check in checks),
            *(row for result in device_results for row in device_rows(result)),
        ),
        images=tuple(reference.used),
        skipped=tuple(reference.skipped),
        reference_boxes=reference.boxes,
        versions=package_versions(),
        seconds=time.perf_counter() - began,
    )


def _look(
    reference: Reference, checks: Sequence[ReportCheck], images: Sequence[Path], progress: Progress
) -> None:
    """Show the images to the reference and then to every check, a few at a time."""
    titles = [c.title for c in checks if isinstance(c, RuntimeCheck)]
    for title in ("PyTorch", *titles):
        progress(title, 0, len(images))
    for chunk in reference.chunks(images):
        done = len(reference.used) + len(reference.skipped)
        progress("PyTorch", done, len(images))
        for check in checks:
            check.update(chunk)
            if isinstance(check, RuntimeCheck):
                progress(check.title, done, len(images))
    for title in ("PyTorch", *titles):
        progress(title, len(images), len(images))


def _checks(
    bundle: Bundle, loaded: LoadedDetector, device: str, scratch: Path
) -> Iterator[ReportCheck]:
    """Yield every check, in the order of the report."""
    spec, record = loaded.spec, bundle.manifest.ncnn
    body, body_problems = _read_body(bundle)
    files = None if record is None else read_files(bundle, record, body)
    found = compare_specs(spec, bundle.spec, where=MANIFEST)
    if body is not None:
        found += compare_specs(spec, body.spec, where=BODY)
    if record is not None and files is not None:
        found += tail_reasons(bundle, record, files)
    yield ContractCheck(found)
    if body_problems:
        row = Row(Check.ONNX_CPU, "ONNX Runtime", "", Status.FAIL, reasons=body_problems)
        yield FixedResult(row)
    yield from body_checks(bundle, loaded, None if body is None else body.batch, device)
    if record is None or files is None:
        note = "the bundle has no ncnn files: run `mbv3ssd-deploy to-ncnn`"
        yield FixedResult(Row(Check.NCNN_EXACT, "ncnn", "", Status.SKIPPED, note))
    else:
        yield from checks_of(bundle, record, files, spec, scratch)


def _read_body(bundle: Bundle) -> tuple[OnnxBody | None, tuple[Reason, ...]]:
    try:
        return read_body(bundle.body_path), ()
    except FormatError as error:
        return None, (Reason(Code.MODEL_UNREADABLE, str(error)),)


class ReportCheck(Protocol):
    """A row of the report, updated with every chunk of images."""

    def update(self, chunk: Chunk) -> None:
        """Look at a few more images."""

    def row(self) -> Row:
        """Return what was found."""


@dataclass(frozen=True, slots=True)
class FixedResult:
    """A check whose row no image can change."""

    found: Row

    def update(self, chunk: Chunk) -> None:
        """Do nothing."""

    def row(self) -> Row:
        """Return the row."""
        return self.found


@dataclass(slots=True)
class ContractCheck:
    """Compares the detector in the bundle's files, and its input, with the checkpoint's."""

    found: tuple[Reason, ...]
    diff: TensorDiff | None = None
    resized: tuple[Reason, ...] = ()

    def update(self, chunk: Chunk) -> None:
        """Compare the network inputs that both specs make of the same images."""
        if chunk.own_inputs.shape != chunk.inputs.shape:
            ours, theirs = chunk.inputs.shape[2:], chunk.own_inputs.shape[2:]
            text = f"the contract makes inputs of {ours}, the checkpoint's of {theirs}"
            self.resized = (Reason(Code.INPUT_TENSOR, text),)
            return
        same = Tolerance(0.0, 0.0)
        diff = [
            compare_tensors("input", own, theirs, same, image=name)
            for name, own, theirs in zip(chunk.names, chunk.own_inputs, chunk.inputs, strict=True)
        ]
        self.diff = merged_diffs([*diff, *([self.diff] if self.diff else [])])

    def row(self) -> Row:
        """Return the fields that differ, and whether the input tensors do."""
        reasons = (*self.found, *self.resized)
        if self.diff is not None and not self.diff.passed:
            reasons += (Reason(Code.INPUT_TENSOR, self.diff.sentence()),)
        note = "" if reasons else "the same detector, and the same input tensors"
        return Row(
            Check.CONTRACT,
            "contract",
            f"{MANIFEST}, {BODY}",
            judged(reasons),
            note=note,
            reasons=reasons,
            heads=() if self.diff is None else (self.diff,),
        )


_NCNN = "ncnn on cpu"
_TITLES = {
    Check.ONNX_CPU: "ONNX Runtime",
    Check.ONNX_CUDA: "ONNX Runtime GPU",
    Check.TORCH_CUDA: "PyTorch GPU",
    Check.NCNN_EXACT: "ncnn exact",
    Check.NCNN_SHIPPED_FP16: "ncnn as shipped",
    Check.NCNN_SHIPPED_FP32: "ncnn as shipped",
}


def body_checks(
    bundle: Bundle, loaded: LoadedDetector, batch: int | None, device: str
) -> Iterator[ReportCheck]:
    """Yield the checks of ONNX Runtime on CPU and GPU, and of PyTorch on the GPU.

    Args:
        bundle: has body.onnx and the contract by which it is decoded.
        loaded: the checkpoint.
        batch: how many images body.onnx takes at once; None where it cannot be read.
        device: "auto", "cpu" or "cuda".

    Raises:
        RuntimeUnavailableError: `device` is "cuda" and there is no GPU.
    """

    def checked(check: Check, load: Callable[[], Model], images: int = 1) -> ReportCheck:
        try:
            adapter = HeadsAdapter(load(), bundle.spec, images)
        except RuntimeFailedError as error:
            reasons = (Reason(Code.RUNTIME_FAILED, str(error)),)
            return FixedResult(Row(check, _TITLES[check], "", Status.FAIL, reasons=reasons))
        return RuntimeCheck(check, _TITLES[check], adapter, loaded.spec)

    if batch is not None:
        path, size = bundle.body_path, batch
        yield checked(Check.ONNX_CPU, lambda: OnnxModel(path), size)
        yield _on_gpu(
            Check.ONNX_CUDA,
            device,
            lambda: checked(Check.ONNX_CUDA, lambda: OnnxModel(path, "cuda"), size),
        )
    yield _on_gpu(
        Check.TORCH_CUDA,
        device,
        lambda: checked(Check.TORCH_CUDA, lambda: TorchModel(loaded.net, "cuda")),
    )


def _on_gpu(check: Check, device: str, build: Callable[[], ReportCheck]) -> ReportCheck:
    """Return the check, or with "auto" a row with the reason why it is skipped.

    Raises:
        RuntimeUnavailableError: `device` is "cuda", and it is not there.
    """
    if device == "cpu":
        return FixedResult(Row(check, _TITLES[check], "", Status.SKIPPED, "--device cpu"))
    try:
        return build()
    except RuntimeUnavailableError as error:
        if device == "cuda":
            raise
        return FixedResult(Row(check, _TITLES[check], "", Status.SKIPPED, error.message))


@dataclass(slots=True)
class PriorCheck:
    """Reads all priors back from a run of the shipped files; once, they depend on no image."""

    runtime: NcnnModel
    spec: DetectorSpec
    record: NcnnRecord
    diff: PriorDiff | None = None
    broken: tuple[Reason, ...] = ()

    def update(self, chunk: Chunk) -> None:
        """Run the first image."""
        if self.diff is not None or self.broken:
            return
        try:
            blobs = self.runtime.run_blobs(chunk.inputs[:1], (MBOX_PRIORBOX,))
            carriers = [level.layer for level in self.record.priors]
            self.diff = compare_priors(self.spec, blobs[0][MBOX_PRIORBOX], carriers=carriers)
        except RuntimeFailedError as error:
            self.broken = (Reason(Code.RUNTIME_FAILED, str(error)),)
        except ValueError as error:
            self.broken = (Reason(Code.OUTPUT_SHAPE, f"{MBOX_PRIORBOX}: {error}"),)

    def row(self) -> Row:
        """Return the row of all levels, or the reason of a failure."""
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
            _NCNN,
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

    def update(self, chunk: Chunk) -> None:
        """Read the reference's heads both ways."""
        lists = decode_by_tail(chunk, self.spec, self.record)
        self.pairs += [
            DetectionPair(*each) for each in zip(chunk.names, chunk.detections, lists, strict=True)
        ]

    def row(self) -> Row:
        """Return a row that never fails."""
        diff = compare_detections(self.pairs, cut_of_tail(self.record))
        note = f"{self.spec.family}'s own rules compared with DetectionOutput's; by design"
        return Row(Check.NCNN_RULES, "ncnn rules", "numpy", Status.INFO, note=note, detections=diff)


def checks_of(
    bundle: Bundle, record: NcnnRecord, files: NcnnFiles, spec: DetectorSpec, scratch: Path
) -> Iterator[ReportCheck]:
    """Yield the checks of the ncnn files.

    Args:
        bundle: has the files and the contract by which their outputs are decoded.
        record: how the files were made.
        files: the result of reading them.
        spec: the checkpoint's own.
        scratch: a folder for the files at full precision; must last as long as the checks.
    """
    shipped = (bundle.param_path, bundle.bin_path)
    yield FixedResult(_weights_row(files, record))
    if MBOX_PRIORBOX in required_blobs(bundle, record) and MBOX_PRIORBOX not in files.missing:
        yield PriorCheck(NcnnModel(*shipped, exact=True), spec, record)
    half = record.storage == Storage.FLOAT16
    as_shipped = Check.NCNN_SHIPPED_FP16 if half else Check.NCNN_SHIPPED_FP32
    if files.missing:
        text = f"the blob {' or '.join(files.missing)} is missing"
        reasons = (Reason(Code.OUTPUT_MISSING, text),)
        for check in (Check.NCNN_EXACT, as_shipped):
            yield FixedResult(Row(check, _TITLES[check], "", Status.FAIL, reasons=reasons))
    else:
        full, weights = (shipped, "weights as stored")
        if files.full_precision is not None:
            full = write_full_precision(files.full_precision, scratch)
            weights = "weights in part as stored" if files.reasons else "fp32 weights"
        for check, paths, exact, precision in (
            (Check.NCNN_EXACT, full, True, weights),
            (as_shipped, shipped, False, f"{record.storage} storage"),
        ):
            adapter = _adapter(NcnnModel(*paths, exact=exact), bundle, spec, record)
            yield RuntimeCheck(check, _TITLES[check], adapter, spec, precision, _NCNN)
    if Outputs(record.outputs) is Outputs.DETECTIONS:
        yield RulesCheck(spec, record)


def _adapter(
    model: NcnnModel, bundle: Bundle, spec: DetectorSpec, record: NcnnRecord
) -> ModelAdapter:
    if Outputs(record.outputs) is Outputs.DETECTIONS:
        return DetectionOutputAdapter(model, spec, bundle.spec, record)
    return HeadsAdapter(model, bundle.spec)


def _weights_row(files: NcnnFiles, record: NcnnRecord) -> Row:
    reasons, note = (*files.reasons, *files.layout), ""
    if files.full_precision is not None and not reasons:
        rounded = ", rounded to half" if record.storage == Storage.FLOAT16 else ""
        count = f"{files.full_precision.numbers} numbers in {files.full_precision.weights} blobs"
        note = f"{count} equal those of body.onnx{rounded}"
    return Row(
        Check.NCNN_WEIGHTS,
        "ncnn weights",
        record.storage,
        judged(reasons),
        note=note,
        reasons=reasons,
    )
