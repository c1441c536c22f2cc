"""A bundle: a folder with detector.json and the files that it lists with their hashes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbv3ssd_deploy.bundle.manifest import (
    FileRecord,
    Manifest,
    NcnnRecord,
    parse_manifest,
    render_manifest,
)
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.files import publish_files, sha256_of, sha256_of_file
from mbv3ssd_deploy.io.records import record_from_json

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector

MANIFEST = "detector.json"
BODY = "body.onnx"
PARAM = "model.ncnn.param"
BIN = "model.ncnn.bin"
REPORT = "verify.json"

# The command that makes a file; quoted in every error about that file.
MADE_BY: Mapping[str, str] = {
    BODY: "mbv3ssd-deploy export CHECKPOINT",
    PARAM: "mbv3ssd-deploy to-ncnn",
    BIN: "mbv3ssd-deploy to-ncnn",
}


_NAME_IT = "name the checkpoint with --checkpoint FILE"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files have the hashes in detector.json."""

    directory: Path
    manifest: Manifest

    @property
    def spec(self) -> DetectorSpec:
        """What the detector is."""
        return self.manifest.detector

    @property
    def body_path(self) -> Path:
        """The ONNX body."""
        return self.directory / BODY

    @property
    def param_path(self) -> Path:
        """The ncnn network; exists if `has_ncnn`."""
        return self.directory / PARAM

    @property
    def bin_path(self) -> Path:
        """The ncnn weights; exist if `has_ncnn`."""
        return self.directory / BIN

    @property
    def report_path(self) -> Path:
        """The report of `verify`."""
        return self.directory / REPORT

    @property
    def has_ncnn(self) -> bool:
        """Whether `to-ncnn` has run since the last export."""
        return self.manifest.ncnn is not None

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the checkpoint was when the bundle was made; None if the bundle has none.

        The record is relative to the real folder, behind any symbolic link; the result is relative
        to the current folder.
        """
        record = self.manifest.checkpoint
        if record is None:
            return None
        return Path(os.path.relpath(self.directory.resolve() / record.path))


def read_bundle(path: Path) -> Bundle:
    """Read a bundle folder (or its detector.json) and check that its files belong together.

    Raises:
        BundleError: not a bundle, or a file is missing, changed or stale; the hint names the
            command that makes it again.
    """
    directory = path.parent if path.name == MANIFEST else path
    manifest_path = directory / MANIFEST
    if not directory.is_dir():
        raise BundleError(
            "no such bundle folder",
            where=str(directory),
            hint=f"make it with `{MADE_BY[BODY]} -o {shlex.quote(str(directory))}`",
        )
    if not manifest_path.is_file():
        raise BundleError(
            f"not a bundle: the folder has no {MANIFEST}",
            where=str(directory),
            hint=f"make one with `{MADE_BY[BODY]} -o {shlex.quote(str(directory))}`",
        )
    manifest = parse_manifest(manifest_path.read_bytes(), where=str(manifest_path))
    _check_files(directory, manifest)
    return Bundle(directory, manifest)


def _check_files(directory: Path, manifest: Manifest) -> None:
    problems: dict[str, str] = {}
    for name in MADE_BY:
        path, record = directory / name, manifest.files.get(name)
        if record is None:
            if path.exists():
                problems[name] = f"{name} does not belong to this export"
        elif not path.is_file():
            problems[name] = f"{name} is missing"
        elif sha256_of_file(path) != record.sha256:
            problems[name] = f"{name} has changed since {MANIFEST} was written"
    if problems:
        first = next(iter(problems))
        raise BundleError(
            "; ".join(problems.values()),
            where=str(directory),
            hint=f"run `{MADE_BY[first]}` again",
        )


def check_replaceable(directory: Path, names: Sequence[str]) -> None:
    """Check that `names` in `directory` may be replaced: only a bundle's own files are.

    Raises:
        BundleError: the folder has such files, but is not a bundle.
    """
    found = [name for name in names if (directory / name).exists()]
    if found and not (directory / MANIFEST).exists():
        raise BundleError(
            f"holds {', '.join(found)} but no {MANIFEST}: not a bundle, and nothing is overwritten",
            where=str(directory),
            hint="choose another folder with -o, or move those files away",
        )


def bundle_of_body(path: Path) -> Path | None:
    """Return the bundle that holds the lone ONNX file `path` as its body; None if there is none.

    Raises:
        BundleError: the folder is a bundle with another body, or has files that must not be
            replaced.
    """
    directory = path.parent
    if not (directory / MANIFEST).exists():
        check_replaceable(directory, [n for n in (BODY, PARAM, BIN) if n != path.name])
        return None
    if path.name == BODY:
        return directory
    raise BundleError(
        f"the folder already holds a bundle, and {path.name} is not its {BODY}",
        where=str(path),
        hint="put the file into a folder of its own",
    )


def load_origin(bundle: Bundle, checkpoint: Path | None = None) -> LoadedDetector:
    """Return the checkpoint that the bundle was made from, read with the same options.

    Args:
        bundle: knows the path and the hash of its checkpoint.
        checkpoint: another file to compare the bundle with; its hash is not checked.

    Raises:
        BundleError: the checkpoint is missing or has changed.
        CheckpointError: it cannot be read.
    """
    from mbv3ssd_deploy.checkpoint.load import (  # noqa: PLC0415 -- imports PyTorch
        LoadOptions,
        load_detector,
    )

    record = bundle.manifest.checkpoint
    if checkpoint is None:
        checkpoint = _recorded_checkpoint(bundle)
    elif not checkpoint.is_file():
        raise BundleError("no such checkpoint", where=str(checkpoint), hint=_NAME_IT)
    if record is None:
        return load_detector(checkpoint, LoadOptions())
    where = f"{bundle.directory}: options of the checkpoint"
    options = record_from_json(LoadOptions, dict(record.options), where=where, error=BundleError)
    return load_detector(checkpoint, options)


def _recorded_checkpoint(bundle: Bundle) -> Path:
    record, path = bundle.manifest.checkpoint, bundle.checkpoint_path
    if record is None or path is None:
        raise BundleError(
            "this bundle was made from an ONNX file and has no checkpoint",
            where=str(bundle.directory),
            hint=_NAME_IT,
        )
    if not path.is_file():
        raise BundleError(
            "the checkpoint that this bundle was made from is missing",
            where=str(path),
            hint=_NAME_IT,
        )
    if sha256_of_file(path) != record.sha256:
        raise BundleError(
            "the checkpoint has changed since this bundle was made from it",
            where=str(path),
            hint=f"run `mbv3ssd-deploy export` again, or {_NAME_IT}",
        )
    return path


def write_exported(directory: Path, manifest: Manifest, body: bytes) -> Bundle:
    """Start a new bundle with its ONNX body, and remove the files of an older one.

    Other files stay where they are.

    Raises:
        OutputError: nothing was changed.
    """
    whole = replace(manifest, ncnn=None, files=_records({BODY: body}))
    files = {BODY: body, MANIFEST: render_manifest(whole)}
    publish_files(directory, files, remove=(PARAM, BIN, REPORT))
    return Bundle(directory, whole)


def write_ncnn(
    bundle: Bundle, record: NcnnRecord, param: bytes, weights: bytes, command: str
) -> Bundle:
    """Add the ncnn files to a bundle, or replace them; remove an old report.

    Raises:
        OutputError: nothing was changed.
    """
    own = {PARAM: param, BIN: weights}
    manifest = replace(
        bundle.manifest,
        ncnn=record,
        files={**bundle.manifest.files, **_records(own)},
        commands=(bundle.manifest.commands[0], command),
    )
    files = own | {MANIFEST: render_manifest(manifest)}
    publish_files(bundle.directory, files, remove=(REPORT,))
    return Bundle(bundle.directory, manifest)


def _records(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    return {name: FileRecord(sha256_of(data), len(data)) for name, data in files.items()}
