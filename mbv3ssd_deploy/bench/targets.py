"""What can be measured: a bundle, a body, a stranger's .param; which runtimes run it, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.bench.random_weights import with_random_weights
from mbv3ssd_deploy.bundle.bundle import MANIFEST, Bundle, read_bundle
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError, FormatError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import float_param, int_param
from mbv3ssd_deploy.ncnn_graph.param_text import read_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import render_bin
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.runtimes.bench_job import BenchRow

_CHANNELS: Final = 3
"""Of an image, where the Input layer of a .param does not tell."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to measure.

    Attributes:
        name: as the user typed it.
        rows: by runtime, a row that lacks only precision, threads and device.
        missing: by runtime, why it cannot run this although it could run the like.
        notes: what a user should know of it.
    """

    name: str
    rows: Mapping[str, BenchRow]
    missing: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_target(path: Path, scratch: Path, *, input_size: tuple[int, int] | None) -> Target:
    """Look at what `path` names, and find out what can run it.

    Args:
        path: a bundle folder (or its detector.json), a .param, or a body.onnx of ours.
        scratch: a folder for what has to be made up: a stranger's input and weights.
        input_size: (height, width) for a .param that does not tell.

    Raises:
        BundleError: no bundle there, or it is broken.
        FormatError: the .param or .onnx is broken, or does not tell what is needed.
    """
    if path.suffix == ".param":
        return _param_target(path, scratch, input_size)
    if path.suffix == ".onnx":
        return _body_target(path)
    if path.is_file() and path.name != MANIFEST:
        raise FormatError(
            "is neither a bundle folder, nor a .param, nor an .onnx",
            where=str(path),
            hint="make a bundle of a checkpoint first: `mbv3ssd-deploy export`",
        )
    return _bundle_target(path)


def _bundle_target(path: Path) -> Target:
    bundle = read_bundle(path)
    rows = {"onnx": _row(path, "onnx", (bundle.body_path,), bundle.spec)}
    missing: dict[str, str] = {}
    checkpoint = bundle.checkpoint_path
    if checkpoint is not None and checkpoint.is_file():
        rows["torch"] = _row(path, "torch", (bundle.directory,), bundle.spec)
    else:
        missing["torch"] = f"its checkpoint {checkpoint or ''} is not there".replace("  ", " ")
    if bundle.has_ncnn:
        rows["ncnn"] = _bundle_ncnn(path, bundle)
    else:
        missing["ncnn"] = "it has no ncnn files; run `mbv3ssd-deploy to-ncnn` first"
    return Target(str(path), MappingProxyType(rows), MappingProxyType(missing))


def _bundle_ncnn(path: Path, bundle: Bundle) -> BenchRow:
    record = bundle.manifest.ncnn
    if record is None:
        raise BundleError("the bundle has no ncnn files", where=str(bundle.directory))
    # as `detect` does: raw heads are read with the threshold that to-ncnn was given
    decode = replace(bundle.spec.decode, score_threshold=record.score_threshold)
    spec = replace(bundle.spec, decode=decode)
    row = _row(path, "ncnn", (bundle.param_path, bundle.bin_path), spec)
    return _with_blobs(row, read_param(bundle.param_path).graph)


def _body_target(path: Path) -> Target:
    spec = read_body(path).spec
    rows = {"onnx": _row(path, "onnx", (path,), spec)}
    return Target(str(path), MappingProxyType(rows), MappingProxyType({}))


def _param_target(path: Path, scratch: Path, input_size: tuple[int, int] | None) -> Target:
    parsed = read_param(path)
    notes = [f"{path}:{finding.line}: {finding.message}" for finding in parsed.findings[:1]]
    if len(parsed.findings) > 1:
        notes[0] += f" (and {len(parsed.findings) - 1} more; see `mbv3ssd-deploy inspect`)"
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        weights = scratch / f"{len(list(scratch.iterdir()))}-{path.stem}.bin"
        write_file(weights, render_bin(with_random_weights(parsed.graph, source=str(path))))
        notes.append(f"{path} has no .bin beside it: its weights are random")
    row = _row(path, "ncnn", (path, weights), None)
    row = _with_blobs(row, parsed.graph)
    tensor = _random_input(parsed.graph, scratch, path, input_size)
    row = replace(row, tensor=str(tensor))
    rows = MappingProxyType({"ncnn": row})
    return Target(str(path), rows, MappingProxyType({}), tuple(notes))


def _row(path: Path, runtime: str, files: Sequence[Path], spec: DetectorSpec | None) -> BenchRow:
    return BenchRow(
        target=str(path),
        runtime=runtime,
        precision="fp32",
        threads=1,
        device="cpu",
        files=tuple(map(str, files)),
        spec=spec,
        classes=0 if spec is None else spec.num_classes,
        score_threshold=0.0 if spec is None else spec.decode.score_threshold,
    )


def _with_blobs(row: BenchRow, graph: NcnnGraph) -> BenchRow:
    """Tell where the network begins, and where it ends and post-processing begins."""
    row = replace(row, input_name=_only_input(graph, row.files[0]).outputs[0])
    tail = next((layer for layer in graph.layers if layer.type == "DetectionOutput"), None)
    if tail is None:
        used = {blob for layer in graph.layers for blob in layer.inputs}
        made = [blob for layer in graph.layers for blob in layer.outputs]
        return replace(row, heads=_heads_in_order([blob for blob in made if blob not in used]))
    return replace(
        row,
        heads=tail.inputs[:2],
        ends=tail.outputs[:1],
        classes=int_param(tail, "num_class"),
        score_threshold=float_param(tail, "confidence_threshold"),
    )


def _heads_in_order(ends: Sequence[str]) -> tuple[str, ...]:
    """Our own raw heads as loc, loc, ..., conf, conf, ...; anybody else's as they come."""
    loc = [name for name in ends if name.startswith("loc")]
    conf = [name for name in ends if name.startswith("conf")]
    return (*loc, *conf) if len(loc) == len(conf) == len(ends) / 2 else tuple(ends)


def _only_input(graph: NcnnGraph, where: str) -> NcnnLayer:
    inputs = [layer for layer in graph.layers if layer.type == "Input" and layer.outputs]
    if len(inputs) != 1:
        raise FormatError(
            f"has {len(inputs)} Input layers, not one image to look at",
            where=where,
            hint=f"`mbv3ssd-deploy inspect {where}` says what it holds, and what is wrong with it",
        )
    return inputs[0]


def _random_input(
    graph: NcnnGraph, scratch: Path, path: Path, wanted: tuple[int, int] | None
) -> Path:
    """Write a seeded input within -1..1, of the size that the Input layer or the user says."""
    layer = _only_input(graph, str(path))
    height, width = wanted or (int_param(layer, "h"), int_param(layer, "w"))
    if min(height, width) < 1:
        raise FormatError(
            "its Input layer does not tell the size of the image",
            where=str(path),
            hint="say it with --input-size, for instance --input-size 300x300",
        )
    channels = int_param(layer, "c") or _CHANNELS
    tensor = np.random.default_rng(0).uniform(-1, 1, (channels, height, width))
    target = scratch / f"{len(list(scratch.iterdir()))}-input.npy"
    np.save(target, tensor.astype(np.float32))
    return target
