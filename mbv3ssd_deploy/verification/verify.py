"""Verifying a bundle: every runtime against the checkpoint, on the same images.

checkpoint -> reference ----+
                            +--> image by image: contract, runtimes, ncnn  -> report
bundle -> candidates -------+
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mbv3ssd_deploy.bundle.bundle import BODY, MANIFEST, Bundle, load_origin
from mbv3ssd_deploy.checkpoint.load import LoadedDetector
from mbv3ssd_deploy.errors import DatasetError, FormatError
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.onnx_body.body import OnnxBody, read_body
from mbv3ssd_deploy.runtimes.env import package_versions
from mbv3ssd_deploy.runtimes.torch_model import TorchModel
from mbv3ssd_deploy.verification.body_checks import body_checks
from mbv3ssd_deploy.verification.checks import Checking, ContractCheck, Settled
from mbv3ssd_deploy.verification.contract import compare_specs
from mbv3ssd_deploy.verification.device_result import DeviceResult, device_rows
from mbv3ssd_deploy.verification.ncnn_checks import checks_of
from mbv3ssd_deploy.verification.ncnn_files import read_files, tail_reasons
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.reference import Reference
from mbv3ssd_deploy.verification.report import Row, Status, VerificationReport
from mbv3ssd_deploy.verification.rules import Check
from mbv3ssd_deploy.verification.runtime_check import RuntimeCheck

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
    """Hold every runtime of `bundle` against its checkpoint in PyTorch, on `images`.

    Args:
        bundle: as read; its files need not be hashed again.
        images: files; broken ones are left out and reported.
        checkpoint: the checkpoint if it was moved or is another one, or if it is already loaded.
        device: "cuda" wants the GPU rows, "auto" takes them where they are, "cpu" leaves them out.
        device_results: what self-tests of this bundle found on boards.
        on_progress: told how many images each runtime has seen.

    Raises:
        BundleError: the checkpoint has gone or has changed.
        CheckpointError: the checkpoint cannot be read.
        DatasetError: there are no images, or not one can be read.
        RuntimeUnavailableError: `device` is "cuda" and there is no such device.
        ValueError: no such device name.
    """
    if device not in DEVICES:
        raise ValueError(f"the device is {device!r}, not one of {', '.join(DEVICES)}")
    if not images:
        raise DatasetError(
            "there is no image to verify on", hint="--images takes one image or a folder of images"
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
    reference: Reference, checks: Sequence[Checking], images: Sequence[Path], progress: Progress
) -> None:
    """Show the images to the reference and then to every check, a few at a time."""
    titles = [c.title for c in checks if isinstance(c, RuntimeCheck)]
    for title in ("PyTorch", *titles):
        progress(title, 0, len(images))
    for chunk in reference.chunks(images):
        seen = len(reference.used) + len(reference.skipped)
        progress("PyTorch", seen, len(images))
        for check in checks:
            check.see(chunk)
            if isinstance(check, RuntimeCheck):
                progress(check.title, seen, len(images))
    for title in ("PyTorch", *titles):
        progress(title, len(images), len(images))


def _checks(
    bundle: Bundle, loaded: LoadedDetector, device: str, scratch: Path
) -> Iterator[Checking]:
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
        yield Settled(row)
    yield from body_checks(bundle, loaded, None if body is None else body.batch, device)
    if record is None or files is None:
        note = "this bundle has no ncnn files yet: run `mbv3ssd-deploy to-ncnn`"
        yield Settled(Row(Check.NCNN_EXACT, "ncnn", "", Status.SKIPPED, note))
    else:
        yield from checks_of(bundle, record, files, spec, scratch)


def _read_body(bundle: Bundle) -> tuple[OnnxBody | None, tuple[Reason, ...]]:
    try:
        return read_body(bundle.body_path), ()
    except FormatError as error:
        return None, (Reason(Code.MODEL_UNREADABLE, str(error)),)
