"""A bundle: a folder with detector.json and the files that it vouches for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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

MANIFEST = "detector.json"
BODY = "body.onnx"
PARAM = "model.ncnn.param"
BIN = "model.ncnn.bin"
REPORT = "verify.json"

# Which command makes a file again; quoted in every error about that file.
MADE_BY: Mapping[str, str] = {
    BODY: "mbv3ssd-deploy export CHECKPOINT",
    PARAM: "mbv3ssd-deploy to-ncnn",
    BIN: "mbv3ssd-deploy to-ncnn",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were found to be those that detector.json vouches for."""

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
        """The ncnn network; there only when `has_ncnn`."""
        return self.directory / PARAM

    @property
    def bin_path(self) -> Path:
        """The ncnn weights; there only when `has_ncnn`."""
        return self.directory / BIN

    @property
    def report_path(self) -> Path:
        """Where `verify` leaves its report."""
        return self.directory / REPORT

    @property
    def has_ncnn(self) -> bool:
        """Whether `to-ncnn` has run since the last export."""
        return self.manifest.ncnn is not None

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the checkpoint stood when the bundle was made; None when it was never known.

        The record is relative to the real folder, behind any symbolic link; the answer is relative
        to the current one, as people type it.
        """
        record = self.manifest.checkpoint
        if record is None:
            return None
        return Path(os.path.relpath(self.directory.resolve() / record.path))


def read_bundle(path: Path) -> Bundle:
    """Read a bundle folder (or its detector.json) and check that its files belong together.

    Raises:
        BundleError: no bundle there, a file is missing, changed or stale; the hint says which
            command makes it again.
    """
    directory = path.parent if path.name == MANIFEST else path
    manifest_path = directory / MANIFEST
    if not directory.is_dir():
        raise BundleError(
            "there is no such bundle folder",
            where=str(directory),
            hint=f"make it with `{MADE_BY[BODY]} -o {shlex.quote(str(directory))}`",
        )
    if not manifest_path.is_file():
        raise BundleError(
            f"this folder has no {MANIFEST}, so it is not a bundle",
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
                problems[name] = f"{name} is not of this export"
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


def write_exported(directory: Path, manifest: Manifest, body: bytes) -> Bundle:
    """Start a bundle afresh with its ONNX body; files of an older one go with the same stroke.

    Files that are not ours stay where they are.

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
    """Add the ncnn files to a bundle, or replace those that it had; an old report goes.

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
