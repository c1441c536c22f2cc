"""Which rows are measured: every target on every runtime, precision and number of threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mbv3ssd_deploy.bench.targets import Target
from mbv3ssd_deploy.errors import BundleError, RuntimeUnavailableError, SpecError
from mbv3ssd_deploy.runtimes.bench_job import PRECISIONS, BenchRow

_CUDA_RUNTIMES = ("torch", "onnx")


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What somebody wants measured; an empty tuple stands for all there is.

    Attributes:
        runtimes: of "torch", "onnx", "ncnn".
        precisions: of "fp32", "fp16", "bf16".
        threads: numbers of threads; empty: one, and all that this process may use.
        device: "cpu", or "cuda" for PyTorch and ONNX Runtime.
        rounds: how often each row runs.
        warmup: rounds before, which do not count.
        layers: whether to time single layers, too.
    """

    runtimes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    device: str = "cpu"
    rounds: int = 30
    warmup: int = 3
    layers: bool = False


def plan_rows(
    targets: Sequence[Target], request: BenchRequest
) -> tuple[tuple[BenchRow, ...], tuple[str, ...]]:
    """Return the rows, target by target, and what is left out and why.

    Raises:
        BundleError: a target has no row at all on the runtimes that were asked for.
        SpecError: no runtime has the precision that was asked for.
        RuntimeUnavailableError: only ncnn was asked for, on CUDA.
    """
    _check_request(request)
    rows: list[BenchRow] = []
    left_out: list[str] = []
    for target in targets:
        found = [row for runtime in PRECISIONS for row in _rows_of(target, runtime, request)]
        if not found:
            raise _nothing_to_run(target, request)
        rows += found
        left_out += [
            f"{target.name}: no {runtime} row: {reason}"
            for runtime, reason in target.missing.items()
            if runtime in _wanted(request)
        ]
    return tuple(rows), tuple(left_out)


def thread_counts(request: BenchRequest) -> tuple[int, ...]:
    """Return the numbers of threads to measure with, each once."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return tuple(dict.fromkeys(request.threads or (1, usable or 1)))


def _wanted(request: BenchRequest) -> tuple[str, ...]:
    return request.runtimes or tuple(PRECISIONS)


def _rows_of(target: Target, runtime: str, request: BenchRequest) -> list[BenchRow]:
    if runtime not in _wanted(request) or runtime not in target.rows:
        return []
    on_gpu = request.device == "cuda" and runtime in _CUDA_RUNTIMES
    # a GPU row waits for the GPU: the number of threads beside it says nothing
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
    known = {p for runtime in _wanted(request) for p in PRECISIONS[runtime]}
    strange = sorted(set(request.precisions) - known)
    if strange:
        raise SpecError(
            f"{' and '.join(_wanted(request))} cannot compute in {', '.join(strange)}",
            hint=f"they can in {', '.join(sorted(known))}",
        )
    if request.device == "cuda" and not set(_wanted(request)) & set(_CUDA_RUNTIMES):
        raise RuntimeUnavailableError(
            "ncnn does not run on CUDA", hint="leave --device out, or add --runtime onnx"
        )


def _nothing_to_run(target: Target, request: BenchRequest) -> BundleError:
    reasons = [r for name, r in target.missing.items() if name in _wanted(request)]
    reasons = reasons or [f"only {' and '.join(target.rows)} can run it"]
    return BundleError(
        f"nothing that was asked for can run it: {'; '.join(reasons)}",
        where=target.name,
        hint="ask for another --runtime or --precision",
    )
