"""The story on one page: a checkpoint becomes a verified ncnn bundle.

export_checkpoint   checkpoint -> net -> ONNX body -> simplified body -> bundle
lower_to_ncnn       bundle -> ncnn graph + SSD tail -> priors proven in the real ncnn -> bundle
verify              bundle + images -> report, beside the bundle
convert             all three

PyTorch and ONNX Runtime are imported where they are needed: lowering needs neither.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mbv3ssd_deploy.bundle.bundle import (
    BIN,
    BODY,
    MANIFEST,
    PARAM,
    Bundle,
    read_bundle,
    write_exported,
    write_ncnn,
)
from mbv3ssd_deploy.bundle.manifest import (
    CheckpointRecord,
    Manifest,
    NcnnRecord,
    OnnxRecord,
    PriorLevelRecord,
)
from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import InputSpec
from mbv3ssd_deploy.data.images import list_images
from mbv3ssd_deploy.data.sample import sample_image
from mbv3ssd_deploy.errors import BundleError, SpecError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.io.records import json_from_record
from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn, NcnnRequest, build_ncnn
from mbv3ssd_deploy.onnx_body.body import ExporterChoice, OnnxBody, bytes_from_body, read_body
from mbv3ssd_deploy.onnx_body.simplify import SimplifyReport, simplify_body
from mbv3ssd_deploy.runtimes.env import package_versions
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.verification.device_result import read_device_result
from mbv3ssd_deploy.verification.priors import PriorDiff, compare_priors
from mbv3ssd_deploy.verification.report import VerificationReport, json_from_report

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
    """What `lower_to_ncnn` made; `priors` is None where the network ends in raw heads."""

    bundle: Bundle
    model: BuiltNcnn
    priors: PriorDiff | None


def export_checkpoint(  # noqa: PLR0913 -- one argument a decision of the user
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
    from mbv3ssd_deploy.checkpoint.load import load_detector  # noqa: PLC0415 -- imports PyTorch
    from mbv3ssd_deploy.onnx_body.export import export_body  # noqa: PLC0415 -- so does this

    options = LoadOptions() if options is None else options
    _refuse_foreign_folder(directory, (BODY, PARAM, BIN))
    progress("export", 0, 4)
    loaded = load_detector(checkpoint, options)
    progress("export", 1, 4)
    raw = export_body(loaded.net, loaded.spec, opset=opset, batch=batch, exporter=exporter)
    progress("export", 2, 4)
    body, simplified = simplify_body(raw, _sample(loaded.spec.input, batch), run=_run_onnx)
    progress("export", 3, 4)
    manifest = Manifest(
        detector=loaded.spec,
        checkpoint=_checkpoint_record(loaded, options, checkpoint, directory),
        onnx=_onnx_record(body, simplified),
        ncnn=None,
        files={},
        commands=(command,),
        versions=package_versions(),
    )
    bundle = write_exported(directory, manifest, bytes_from_body(body))
    progress("export", 4, 4)
    return Exported(bundle, loaded, body, simplified)


def lower_to_ncnn(
    source: Path = DEFAULT_BUNDLE,
    request: NcnnRequest | None = None,
    *,
    command: str = "",
    progress: Progress = silent,
) -> Lowered:
    """Write the ncnn files of a bundle, or of a lone ONNX body, beside it.

    The priors that the emitted layers compute are read back from a run of the real ncnn and held
    against the checkpoint's own before anything is published.

    Raises:
        DeployError: the body cannot be lowered, or its priors could not be proven.
    """
    request = NcnnRequest() if request is None else request
    progress("to ncnn", 0, 3)
    bundle, body = _bundle_and_body(source, command)
    progress("to ncnn", 1, 3)
    model = build_ncnn(body, request)
    progress("to ncnn", 2, 3)
    proof = None if model.plan is None else _proven_priors(model, body)
    record = _ncnn_record(model, request, proof)
    if not bundle.manifest.files:  # a lone ONNX file, now known to be sound
        bundle = write_exported(bundle.directory, bundle.manifest, source.read_bytes())
    bundle = write_ncnn(bundle, record, model.param, model.weights, command)
    progress("to ncnn", 3, 3)
    return Lowered(bundle, model, proof)


def verify(  # noqa: PLR0913 -- one argument a decision of the user
    bundle: Path = DEFAULT_BUNDLE,
    images: Path | Sequence[Path] = (),
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    limit: int | None = None,
    device_results: Sequence[Path] = (),
    progress: Progress = silent,
) -> VerificationReport:
    """Hold every runtime of `bundle` against PyTorch on `images`, and write verify.json beside it.

    `device_results` are what `selftest --json` wrote on boards; their rows stand beside the others.

    Raises:
        DeployError: something is missing; a check that fails is not an error but in the report.
    """
    from mbv3ssd_deploy.verification.verify import verify_bundle  # noqa: PLC0415 -- PyTorch, too

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


def convert(  # noqa: PLR0913 -- one argument a decision of the user
    checkpoint: Path,
    images: Path | Sequence[Path],
    directory: Path = DEFAULT_BUNDLE,
    *,
    options: LoadOptions | None = None,
    request: NcnnRequest | None = None,
    command: str = "",
    progress: Progress = silent,
) -> VerificationReport:
    """Export, lower and verify in one go.

    Raises:
        DeployError: as the three steps do.
    """
    export_checkpoint(checkpoint, directory, options=options, command=command, progress=progress)
    lower_to_ncnn(directory, request, command=command, progress=progress)
    return verify(directory, images, progress=progress)


def _refuse_foreign_folder(directory: Path, names: Sequence[str]) -> None:
    """A bundle is replaced whole; a folder that is none may hold files of the same names."""
    ours = [name for name in names if (directory / name).exists()]
    if ours and not (directory / MANIFEST).exists():
        raise BundleError(
            f"holds {', '.join(ours)} but no {MANIFEST}: not a bundle, and nothing is overwritten",
            where=str(directory),
            hint="choose another folder with -o, or move those files away",
        )


def _sample(spec: InputSpec, batch: int) -> F32:
    """Return sample pictures as input of the network."""
    planes = [input_from_image(sample_image(index), spec) for index in range(batch)]
    return np.stack(planes)


def _run_onnx(model: bytes, inputs: F32) -> dict[str, F32]:
    from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415 -- export only

    return dict(OnnxModel(model).run(inputs).tensors)


def _checkpoint_record(
    loaded: LoadedDetector, options: LoadOptions, checkpoint: Path, directory: Path
) -> CheckpointRecord:
    relative = os.path.relpath(checkpoint.resolve(), directory.resolve())
    return CheckpointRecord(
        path=Path(relative).as_posix(),
        sha256=loaded.checkpoint.sha256,
        family=loaded.checkpoint.family,
        evidence=loaded.checkpoint.evidence,
        options=json_from_record(options),
    )


def _onnx_record(body: OnnxBody, simplified: SimplifyReport | None) -> OnnxRecord:
    return OnnxRecord(
        opset=body.opset,
        batch=body.batch,
        exporter=body.exporter,
        simplifier="none" if simplified is None else simplified.outcome,
        nodes=len(body.model.graph.node),
    )


def _bundle_and_body(source: Path, command: str) -> tuple[Bundle, OnnxBody]:
    """The bundle at `source`; for a lone ONNX file, the bundle that it will start beside itself."""
    if not source.is_file() or source.name == MANIFEST:
        bundle = read_bundle(source)
        return bundle, read_body(bundle.body_path)
    directory = source.parent
    if not (directory / MANIFEST).exists():
        _refuse_foreign_folder(directory, [n for n in (BODY, PARAM, BIN) if n != source.name])
        body = read_body(source)
        return Bundle(directory, _manifest_without_checkpoint(body, command)), body
    if source.name == BODY:
        bundle = read_bundle(directory)
        return bundle, read_body(bundle.body_path)
    raise BundleError(
        f"the folder already holds a bundle, and {source.name} is not its {BODY}",
        where=str(source),
        hint="put the file into a folder of its own",
    )


def _manifest_without_checkpoint(body: OnnxBody, command: str) -> Manifest:
    return Manifest(
        detector=body.spec,
        checkpoint=None,
        onnx=_onnx_record(body, None),
        ncnn=None,
        files={},
        commands=(command,),
        versions=package_versions(),
    )


def _proven_priors(model: BuiltNcnn, body: OnnxBody) -> PriorDiff:
    """Run the very files in the real ncnn, and compare every prior that they compute.

    Priors depend on the sizes of maps alone, so that any picture will do.
    """
    nothing = np.zeros((1, *body.input_shape[1:]), np.float32)
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        param, weights = Path(scratch, PARAM), Path(scratch, BIN)
        param.write_bytes(model.param)
        weights.write_bytes(model.weights)
        runtime = NcnnModel(param, weights, exact=True)
        blobs = runtime.run_blobs(nothing, ("mbox_priorbox",))
    proof = compare_priors(body.spec, blobs[0]["mbox_priorbox"])
    if not proof.passed:
        raise SpecError(
            f"the priors that ncnn computes are not the checkpoint's: {proof.reason}",
            hint="use --priors auto, or --priors constant for exact constants on every level",
        )
    return proof


def _ncnn_record(model: BuiltNcnn, request: NcnnRequest, proof: PriorDiff | None) -> NcnnRecord:
    planned = () if model.plan is None else model.plan.levels
    measured = () if proof is None else proof.levels
    return NcnnRecord(
        storage=request.storage.value,
        outputs=request.outputs,
        priors_mode=request.priors,
        priors=tuple(
            PriorLevelRecord(
                level=index,
                layer=plan.layer,
                worst_error=found.worst_error,
                reason=plan.reason,
            )
            for index, (plan, found) in enumerate(zip(planned, measured, strict=True))
        ),
        score_threshold=model.options.score_threshold,
        iou_threshold=model.options.iou_threshold,
        nms_top_k=model.options.nms_top_k,
        keep_top_k=model.options.keep_top_k,
        layers=len(model.graph.layers),
        guards=request.guards,
    )
