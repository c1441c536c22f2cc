"""The story on one page: a checkpoint becomes a verified ncnn bundle.

export_checkpoint   checkpoint -> net -> ONNX body -> simplified body -> bundle
lower_to_ncnn       bundle -> ncnn graph + SSD tail -> priors computed by ncnn -> bundle
verify              bundle on the disk + images -> report, beside the bundle
convert             all three; each hands on what it made

PyTorch and ONNX Runtime are imported where they are needed: lowering needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mbv3ssd_deploy.bundle.bundle import (
    BIN,
    BODY,
    PARAM,
    Bundle,
    bundle_of_body,
    check_replaceable,
    read_bundle,
    write_exported,
    write_ncnn,
)
from mbv3ssd_deploy.bundle.manifest import checkpoint_record, ncnn_record, new_manifest
from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.data.images import list_images
from mbv3ssd_deploy.data.sample import sample_image
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn, NcnnRequest, build_ncnn
from mbv3ssd_deploy.onnx_body.body import ExporterChoice, OnnxBody, bytes_from_body, read_body
from mbv3ssd_deploy.onnx_body.simplify import SimplifyReport, simplify_body
from mbv3ssd_deploy.runtimes.env import package_versions
from mbv3ssd_deploy.verification.priors import PriorDiff, compare_built_priors
from mbv3ssd_deploy.verification.report import (
    VerificationReport,
    json_from_report,
    read_device_result,
)

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector

DEFAULT_BUNDLE = Path("deploy")


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export_checkpoint` made, and what it found on the way."""

    bundle: Bundle
    loaded: LoadedDetector
    body: OnnxBody
    simplified: SimplifyReport


@dataclass(frozen=True, slots=True)
class Lowered:
    """What `lower_to_ncnn` made; `priors` is None if the network ends in raw heads."""

    bundle: Bundle
    model: BuiltNcnn
    priors: PriorDiff | None


def export_checkpoint(  # noqa: PLR0913 -- one argument per decision of the user
    checkpoint: Path,
    directory: Path = DEFAULT_BUNDLE,
    *,
    options: LoadOptions | None = None,
    opset: int | None = None,
    batch: int = 1,
    exporter: ExporterChoice = ExporterChoice.AUTO,
    command: str = "",
    progress: Progress = silent,
) -> Exported:
    """Export the conv body of `checkpoint` to ONNX and start the bundle `directory` with it.

    Raises:
        DeployError: the checkpoint, the export or the write failed; an older bundle is untouched.
    """
    from mbv3ssd_deploy.checkpoint.load import load_detector  # noqa: PLC0415 -- PyTorch
    from mbv3ssd_deploy.onnx_body.export import export_body  # noqa: PLC0415 -- PyTorch

    options = LoadOptions() if options is None else options
    check_replaceable(directory, (BODY, PARAM, BIN))
    progress("export", 0, 4)
    loaded = load_detector(checkpoint, options)
    progress("export", 1, 4)
    raw = export_body(loaded.net, loaded.spec, opset=opset, batch=batch, exporter=exporter)
    progress("export", 2, 4)
    samples = [input_from_image(sample_image(index), loaded.spec.input) for index in range(batch)]
    body, simplified = simplify_body(raw, np.stack(samples), run=_run_onnx)
    progress("export", 3, 4)
    record = checkpoint_record(loaded, options, directory)
    manifest = new_manifest(body, simplified.outcome, record, command, package_versions())
    bundle = write_exported(directory, manifest, bytes_from_body(body))
    progress("export", 4, 4)
    return Exported(bundle, loaded, body, simplified)


def lower_to_ncnn(
    source: Path | Exported = DEFAULT_BUNDLE,
    request: NcnnRequest | None = None,
    *,
    command: str = "",
    progress: Progress = silent,
) -> Lowered:
    """Write the ncnn files of a bundle, or of a lone ONNX body, beside it.

    The priors that ncnn computes from the new files are compared with the checkpoint's before
    anything is written.

    Args:
        source: a bundle, an ONNX body, or what `export_checkpoint` returned.
        request: what to build; by default the family's settings.
        command: for the record.
        progress: called after every step.

    Raises:
        DeployError: the body cannot be lowered, or ncnn computes other priors.
    """
    request = NcnnRequest() if request is None else request
    progress("to ncnn", 0, 3)
    bundle, body = _opened(source, command)
    progress("to ncnn", 1, 3)
    built = build_ncnn(body, request)
    progress("to ncnn", 2, 3)
    priors = None if built.plan is None else compare_built_priors(built, body)
    errors = [] if priors is None else [level.worst_error for level in priors.levels]
    if not bundle.manifest.files and isinstance(source, Path):  # a lone ONNX file, now checked
        bundle = write_exported(bundle.directory, bundle.manifest, source.read_bytes())
    record = ncnn_record(built, request, errors)
    bundle = write_ncnn(bundle, record, built.param, built.weights, command)
    progress("to ncnn", 3, 3)
    return Lowered(bundle, built, priors)


def verify(  # noqa: PLR0913 -- one argument per decision of the user
    bundle: Path = DEFAULT_BUNDLE,
    images: Path | Sequence[Path] = (),
    *,
    checkpoint: Path | LoadedDetector | None = None,
    device: str = "auto",
    limit: int | None = None,
    device_results: Sequence[Path] = (),
    progress: Progress = silent,
) -> VerificationReport:
    """Compare every runtime of `bundle` with PyTorch on `images`; write verify.json beside it.

    Args:
        bundle: read from the disk, as it would be shipped.
        images: a folder, an image, or a list of images.
        checkpoint: the checkpoint if it was moved, or if it is already loaded.
        device: "auto", "cpu" or "cuda".
        limit: use the first so many images only.
        device_results: what `selftest --json` wrote on boards.
        progress: called for every runtime and image.

    Raises:
        DeployError: something is missing; a failed check is not an error but in the report.
    """
    from mbv3ssd_deploy.verification.verify import verify_bundle  # noqa: PLC0415 -- PyTorch

    found = read_bundle(bundle)
    results = [read_device_result(path, found) for path in device_results]
    paths = list_images(images) if isinstance(images, Path) else list(images)
    report = verify_bundle(
        found,
        paths[:limit],
        checkpoint=checkpoint,
        device=device,
        device_results=results,
        on_progress=progress,
    )
    text = json.dumps(json_from_report(report), indent=1, ensure_ascii=False)
    write_file(found.report_path, (text + "\n").encode())
    return report


def convert(  # noqa: PLR0913 -- all that the three steps take
    checkpoint: Path,
    images: Path | Sequence[Path],
    directory: Path = DEFAULT_BUNDLE,
    *,
    options: LoadOptions | None = None,
    opset: int | None = None,
    exporter: ExporterChoice = ExporterChoice.AUTO,
    request: NcnnRequest | None = None,
    device: str = "auto",
    limit: int | None = None,
    device_results: Sequence[Path] = (),
    command: str = "",
    on_step: Callable[[Exported | Lowered], None] = lambda _: None,
    progress: Progress = silent,
) -> VerificationReport:
    """Export, lower and verify; `on_step` is called with the result of the first two steps.

    Raises:
        DeployError: as the three steps do.
    """
    exported = export_checkpoint(
        checkpoint,
        directory,
        options=options,
        opset=opset,
        exporter=exporter,
        command=command,
        progress=progress,
    )
    on_step(exported)
    on_step(lower_to_ncnn(exported, request, command=command, progress=progress))
    return verify(
        directory,
        images,
        checkpoint=exported.loaded,
        device=device,
        limit=limit,
        device_results=device_results,
        progress=progress,
    )


def _opened(source: Path | Exported, command: str) -> tuple[Bundle, OnnxBody]:
    """Return a bundle and its body; of a lone ONNX file, the bundle that it will start."""
    if isinstance(source, Exported):
        return source.bundle, source.body
    directory: Path | None = source
    if source.suffix == ".onnx" and source.is_file():
        directory = bundle_of_body(source)
    if directory is None:
        body = read_body(source)
        manifest = new_manifest(body, "none", None, command, package_versions())
        return Bundle(source.parent, manifest), body
    bundle = read_bundle(directory)
    return bundle, read_body(bundle.body_path)


def _run_onnx(model: bytes, inputs: F32) -> dict[str, F32]:
    from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415 -- ONNX Runtime

    return dict(OnnxModel(model).run(inputs).tensors)
