"""Back from a bundle to the checkpoint that it was made from: the reference of every comparison."""

from __future__ import annotations

from pathlib import Path

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.checkpoint.load import LoadedDetector, LoadOptions, load_detector
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.files import sha256_of_file
from mbv3ssd_deploy.io.records import record_from_json

_HINT = "name the checkpoint with --checkpoint FILE"


def load_origin(bundle: Bundle, checkpoint: Path | None = None) -> LoadedDetector:
    """Load the checkpoint that the bundle was made from, with the flags of then.

    Args:
        bundle: knows where the checkpoint stood, and its hash.
        checkpoint: another file to hold the bundle against; its hash is not asked for.

    Raises:
        BundleError: the checkpoint has gone or has changed.
        CheckpointError: it cannot be read.
    """
    record = bundle.manifest.checkpoint
    if checkpoint is None:
        checkpoint = _recorded_checkpoint(bundle)
    elif not checkpoint.is_file():
        raise BundleError("there is no such checkpoint", where=str(checkpoint), hint=_HINT)
    if record is None:
        return load_detector(checkpoint, LoadOptions())
    where = f"{bundle.directory}: options of the checkpoint"
    options = record_from_json(LoadOptions, dict(record.options), where=where, error=BundleError)
    return load_detector(checkpoint, options)


def _recorded_checkpoint(bundle: Bundle) -> Path:
    record, path = bundle.manifest.checkpoint, bundle.checkpoint_path
    if record is None or path is None:
        raise BundleError(
            "this bundle was made from an ONNX file and knows no checkpoint",
            where=str(bundle.directory),
            hint=_HINT,
        )
    if not path.is_file():
        raise BundleError(
            "the checkpoint that this bundle was made from is not there",
            where=str(path),
            hint=_HINT,
        )
    if sha256_of_file(path) != record.sha256:
        raise BundleError(
            "the checkpoint has changed since this bundle was made from it",
            where=str(path),
            hint=f"run `mbv3ssd-deploy export` again, or {_HINT}",
        )
    return path
