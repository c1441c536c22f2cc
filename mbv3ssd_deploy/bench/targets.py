"""What is measured: bundles, bodies and .param files, each on every runtime that can run it.

A .param without its .bin gets random weights: speed does not depend on the weights as long as
activations stay finite and away from denormals. (DetectionOutput is the exception: its time depends
on the number of scores above the threshold.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.bundle.bundle import MANIFEST, read_bundle
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError, FormatError, RuntimeUnavailableError, SpecError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, float_param, int_param, param_of
from mbv3ssd_deploy.ncnn_graph.param_text import read_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import render_bin
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.runtimes.bench_job import PRECISIONS, BenchRow

_CHANNELS: Final = 3
"""Of an image, if the Input layer of a .param does not declare them."""
_CUDA_RUNTIMES: Final = ("torch", "onnx")
_MAX_NUMBERS: Final = 1 << 26
"""The most random numbers that are made for the weights, or the input, of a network: 256 MB."""
_NEAR_ONE: Final = frozenset({"slope", "var", "scale", "data"})
"""Roles of factors, variances and constants, which may be divisors."""


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure; an empty tuple means all.

    Attributes:
        runtimes: of "torch", "onnx", "ncnn".
        precisions: of "fp32", "fp16", "bf16".
        threads: numbers of threads; empty: one, and all CPUs that this process may use.
        device: "cpu", or "cuda" for PyTorch and ONNX Runtime.
        rounds: counted rounds.
        warmup: rounds before them, not counted.
        layers: whether to time single layers as well.
    """

    runtimes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    device: str = "cpu"
    rounds: int = 30
    warmup: int = 3
    layers: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A network to measure.

    Attributes:
        name: as the user typed it.
        rows: by runtime, a row without its precision, threads and device.
        missing: by runtime, why there is no row although the kind of target has one.
        notes: messages for the user.
    """

    name: str
    rows: Mapping[str, BenchRow]
    missing: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_target(path: Path, scratch: Path, *, input_size: tuple[int, int] | None) -> Target:
    """Return what can run the network at `path`.

    Args:
        path: a bundle folder (or its detector.json), a .param, or a body.onnx of ours.
        scratch: a folder for the random input and weights of a .param.
        input_size: (height, width) for a .param that does not declare it.

    Raises:
        BundleError: not a bundle, or a broken one.
        FormatError: the .param or .onnx is broken, declares no input size, or too many weights.
    """
    if path.suffix == ".param":
        return _param_target(path, scratch, input_size)
    if path.suffix == ".onnx":
        rows = {"onnx": _row(path, "onnx", (path,), read_body(path).spec)}
        return Target(str(path), MappingProxyType(rows), MappingProxyType({}))
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
        name = "" if checkpoint is None else f" {checkpoint}"
        missing["torch"] = f"its checkpoint{name} is missing"
    if (record := bundle.manifest.ncnn) is not None:
        # as `detect` does: raw heads are decoded with the threshold of to-ncnn
        decode = replace(bundle.spec.decode, score_threshold=record.score_threshold)
        spec = replace(bundle.spec, decode=decode)
        row = _row(path, "ncnn", (bundle.param_path, bundle.bin_path), spec)
        rows["ncnn"] = _with_blobs(row, read_param(bundle.param_path).graph)
    else:
        missing["ncnn"] = "it has no ncnn files; run `mbv3ssd-deploy to-ncnn` first"
    return Target(str(path), MappingProxyType(rows), MappingProxyType(missing))


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
    row = _with_blobs(_row(path, "ncnn", (path, weights), None), parsed.graph)
    tensor = _random_input(parsed.graph, scratch, path, input_size)
    rows = MappingProxyType({"ncnn": replace(row, tensor=str(tensor))})
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
    """Return `row` with its input blob, its heads and the output of its post-processing."""
    row = replace(row, input_name=_only_input(graph, row.files[0]).outputs[0])
    tail = next((layer for layer in graph.layers if layer.type == "DetectionOutput"), None)
    if tail is None:
        used = {blob for layer in graph.layers for blob in layer.inputs}
        made = [blob for layer in graph.layers for blob in layer.outputs]
        heads = tuple(blob for blob in made if blob not in used)
        # our own raw heads as loc, loc, ..., conf, conf, ...; others as they are
        loc, conf = ([n for n in heads if n.startswith(word)] for word in ("loc", "conf"))
        ours = len(loc) == len(conf) == len(heads) / 2
        return replace(row, heads=(*loc, *conf) if ours else heads)
    return replace(
        row,
        heads=tail.inputs[:2],
        ends=tail.outputs[:1],
        classes=int_param(tail, "num_class"),
        score_threshold=float_param(tail, "confidence_threshold"),
    )


def _only_input(graph: NcnnGraph, where: str) -> NcnnLayer:
    inputs = [layer for layer in graph.layers if layer.type == "Input" and layer.outputs]
    if len(inputs) != 1:
        raise FormatError(
            f"has {len(inputs)} Input layers, but must have one",
            where=where,
            hint=f"`mbv3ssd-deploy inspect {where}` shows its layers, and what is wrong with it",
        )
    return inputs[0]


def _random_input(
    graph: NcnnGraph, scratch: Path, path: Path, size: tuple[int, int] | None
) -> Path:
    """Write a seeded input within -1..1, of `size` (height, width) or of the Input layer's."""
    layer = _only_input(graph, str(path))
    height, width = size or (int_param(layer, "h"), int_param(layer, "w"))
    if min(height, width) < 1:
        raise FormatError(
            "its Input layer declares no image size",
            where=str(path),
            hint="give it as --input-size, for instance --input-size 300x300",
        )
    channels = int_param(layer, "c") or _CHANNELS
    if not 0 < channels * height * width <= _MAX_NUMBERS:
        raise FormatError(
            f"its input of {channels} x {height} x {width} is beyond the limit of "
            f"{_MAX_NUMBERS:,} numbers",
            where=str(path),
            hint="give another --input-size",
        )
    tensor = np.random.default_rng(0).uniform(-1, 1, (channels, height, width))
    target = scratch / f"{len(list(scratch.iterdir()))}-input.npy"
    np.save(target, tensor.astype(np.float32))
    return target


def with_random_weights(graph: NcnnGraph, *, seed: int = 0, source: str = "") -> NcnnGraph:
    """Return `graph` with seeded float32 weights in every layer that has weights.

    Kernels are uniform with He's deviation sqrt(2 / fan in) (arXiv 1502.01852, section 2.2), biases
    within 0.1 of 0, everything else within 0.5 of 1.

    Raises:
        FormatError: unknown layer types, or more than 67,108,864 weights (256 MB).
    """
    hint = "put the .bin beside the .param, with the same name"
    unknown = sorted({layer.type for layer in graph.layers} - set(LAYERS))
    if unknown:
        raise FormatError(
            f"no weights can be made for layers of unknown type: {', '.join(unknown)}",
            where=source,
            hint=hint,
        )
    lengths = [n for x in graph.layers for _, n in LAYERS[x.type].weights_of(x.params)]
    if min(lengths, default=0) < 0 or sum(lengths) > _MAX_NUMBERS:
        raise FormatError(
            f"it declares {sum(lengths):,} weights; random ones are made for up to "
            f"{_MAX_NUMBERS:,} (256 MB)",
            where=source,
            hint=hint,
        )
    return NcnnGraph(tuple(_filled(layer, i, seed) for i, layer in enumerate(graph.layers)))


def _filled(layer: NcnnLayer, index: int, seed: int) -> NcnnLayer:
    random = np.random.default_rng((seed, index))
    weights = tuple(
        Weight(field.role, _numbers(layer, field.role, length, random))
        for field, length in LAYERS[layer.type].weights_of(layer.params)
    )
    return replace(layer, weights=weights)


def _numbers(layer: NcnnLayer, role: str, length: int, random: np.random.Generator) -> F32:
    values = random.random(length, dtype=np.float32)
    if role in _NEAR_ONE:
        return (values + np.float32(0.5)).astype(np.float32)
    if role != "weight":
        return (np.float32(0.2) * values - np.float32(0.1)).astype(np.float32)
    outputs = param_of(layer, "num_output")
    fan_in = length / outputs if isinstance(outputs, int) and outputs > 0 else 1
    bound = math.sqrt(6 / fan_in)  # uniform within +-bound has the variance bound^2 / 3
    return ((2 * values - 1) * np.float32(bound)).astype(np.float32)


def plan_rows(
    targets: Sequence[Target], request: BenchRequest
) -> tuple[tuple[BenchRow, ...], tuple[str, ...]]:
    """Return the rows, target by target, and the reasons for rows that are left out.

    Raises:
        BundleError: a target has no row on the requested runtimes.
        SpecError: no requested runtime has the requested precision.
        RuntimeUnavailableError: ncnn alone is requested, on CUDA.
    """
    _check_request(request)
    rows: list[BenchRow] = []
    left_out: list[str] = []
    for target in targets:
        found = [row for runtime in PRECISIONS for row in _rows_of(target, runtime, request)]
        if not found:
            reasons = [why for name, why in target.missing.items() if name in _runtimes(request)]
            reasons = reasons or [f"only {' and '.join(target.rows)} can run it"]
            raise BundleError(
                f"no requested runtime can run it: {'; '.join(reasons)}",
                where=target.name,
                hint="try another --runtime or --precision",
            )
        rows += found
        left_out += [
            f"{target.name}: no {runtime} row: {reason}"
            for runtime, reason in target.missing.items()
            if runtime in _runtimes(request)
        ]
    return tuple(rows), tuple(left_out)


def thread_counts(request: BenchRequest) -> tuple[int, ...]:
    """Return the distinct numbers of threads to measure with."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return tuple(dict.fromkeys(request.threads or (1, usable or 1)))


def _runtimes(request: BenchRequest) -> tuple[str, ...]:
    return request.runtimes or tuple(PRECISIONS)


def _rows_of(target: Target, runtime: str, request: BenchRequest) -> list[BenchRow]:
    if runtime not in _runtimes(request) or runtime not in target.rows:
        return []
    on_gpu = request.device == "cuda" and runtime in _CUDA_RUNTIMES
    # a GPU row waits for the GPU, whatever the number of threads
    threads = (1,) if on_gpu else thread_counts(request)
    return [
        replace(
            target.rows[runtime],
            precision=precision,
            threads=count,
            device=request.device if on_gpu else "cpu",
        )
        for count in threads
        for precision in PRECISIONS[runtime]
        if not request.precisions or precision in request.precisions
    ]


def _check_request(request: BenchRequest) -> None:
    known = {p for runtime in _runtimes(request) for p in PRECISIONS[runtime]}
    unknown = sorted(set(request.precisions) - known)
    if unknown:
        raise SpecError(
            f"{' and '.join(_runtimes(request))} cannot compute in {', '.join(unknown)}",
            hint=f"they can in {', '.join(sorted(known))}",
        )
    if request.device == "cuda" and not set(_runtimes(request)) & set(_CUDA_RUNTIMES):
        raise RuntimeUnavailableError(
            "ncnn does not run on CUDA", hint="leave --device out, or add --runtime onnx"
        )
