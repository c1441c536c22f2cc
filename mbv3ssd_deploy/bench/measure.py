"""`bench`: from targets and images to a report.

First every row runs alone in a process of its own, for its loading time and memory, and to find out
whether it runs. Then those that do run in turn in one process, round by round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bench.remarks import machine_in_words, remarks_on
from mbv3ssd_deploy.bench.report import (
    BenchReport,
    RowReport,
    median_of,
    percentile_of,
    ratio_of,
)
from mbv3ssd_deploy.bench.targets import BenchRequest, plan_rows, read_target
from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.data.sample import sample_image
from mbv3ssd_deploy.errors import DeployError, RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.runtimes.bench_job import (
    BenchJob,
    BenchRow,
    LayersReport,
    Rounds,
    RowProbe,
    RowTimes,
    run_bench_child,
)

_MS = 1e3
_LAYER_ROUNDS = 20


def measure(
    paths: Sequence[Path],
    images: Sequence[tuple[str, U8]] = (),
    request: BenchRequest | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Measure every runtime and precision of `paths`, side by side.

    Args:
        paths: bundles, .param files, bodies; the first row of the first one is the base of ratios.
        images: name and RGB uint8 (H, W, 3); by default one sample image, the same everywhere.
        request: what to measure.
        input_size: (height, width) for a .param that does not declare it.
        progress: called after every loaded row and every round.

    Raises:
        DeployError: a target cannot be read, a requested device is missing, or no row could run.
    """
    request = BenchRequest() if request is None else request
    images = images or [("a sample image", sample_image(0))]
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-bench-") as scratch:
        folder = Path(scratch)
        pictures = _write_images(images, folder)
        made = folder / "made"
        made.mkdir()
        targets = [read_target(path, made, input_size=input_size) for path in paths]
        rows, left_out = plan_rows(targets, request)
        probes, failures = _probe_all(rows, pictures, folder, progress)
        job = BenchJob(tuple(row for row, _ in probes), pictures, request.warmup, request.rounds)
        times = run_bench_child(
            *("rounds", job, Rounds, folder / "rounds"),
            on_round=lambda done, total: progress("measure", done, total),
        ).rows
        layers = _time_layers(job, folder, progress) if request.layers else ()
        base = _network_and_finish(times[0])
        reports = tuple(
            _row_report(row, probe, own, base)
            for (row, probe), own in zip(probes, times, strict=True)
        )
    return BenchReport(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine_in_words(),
        images=tuple(name for name, _ in images) if any(row.spec for row in rows) else (),
        rows=reports,
        layers=layers,
        left_out=left_out,
        failures=failures,
        remarks=(*(note for target in targets for note in target.notes), *remarks_on(reports)),
    )


def _write_images(images: Sequence[tuple[str, U8]], folder: Path) -> tuple[str, ...]:
    paths = [folder / f"image-{index}.npy" for index in range(len(images))]
    for path, (_, pixels) in zip(paths, images, strict=True):
        np.save(path, pixels)
    return tuple(map(str, paths))


def _probe_all(
    rows: Sequence[BenchRow], pictures: tuple[str, ...], folder: Path, progress: Progress
) -> tuple[list[tuple[BenchRow, RowProbe]], tuple[str, ...]]:
    """Run each row alone; return those that ran, and the names and errors of the others.

    Raises:
        RuntimeUnavailableError: a requested device is missing.
        DeployError: no row ran.
    """
    probes: list[tuple[BenchRow, RowProbe]] = []
    failures: list[DeployError] = []
    names: list[str] = []
    for index, row in enumerate(rows):
        progress("load", index, len(rows))
        job = BenchJob((row,), pictures if row.spec else (), warmup=0, rounds=0)
        try:
            probe = run_bench_child("probe", job, RowProbe, folder / f"probe-{index}")
            probes.append((row, probe))
        except RuntimeUnavailableError:
            raise
        except DeployError as error:
            failures.append(error)
            names.append(f"{row.target}: {row.title}: {error.message}")
    progress("load", len(rows), len(rows))
    if not probes and len({error.message for error in failures}) == 1:
        raise failures[0]
    if not probes:
        raise RuntimeFailedError("no row could run: " + "; ".join(names))
    return probes, tuple(names)


def _time_layers(job: BenchJob, folder: Path, progress: Progress) -> tuple[LayersReport, ...]:
    # a GPU runs layers after the calls have returned; CPU threads share the work of a layer
    on_cpu = [row for row in job.rows if row.device == "cpu"]
    fewest = min((row.threads for row in on_cpu), default=1)
    rows = [row for row in on_cpu if row.threads == fewest]
    rounds = min(job.rounds, _LAYER_ROUNDS)
    reports = []
    for index, row in enumerate(rows):
        progress("layers", index, len(rows))
        own = replace(job, rows=(row,), rounds=rounds)
        reports.append(run_bench_child("layers", own, LayersReport, folder / f"layers-{index}"))
    progress("layers", len(rows), len(rows))
    return tuple(reports)


def _network_and_finish(times: RowTimes) -> list[float]:
    return [a + b for a, b in zip(times.network, times.finish, strict=True)]


def _row_report(
    row: BenchRow, probe: RowProbe, times: RowTimes, base: Sequence[float]
) -> RowReport:
    both = _network_and_finish(times)
    return RowReport(
        target=row.target,
        title=row.title,
        runtime=row.runtime,
        precision=row.precision,
        threads=row.threads,
        device=row.device,
        engine=probe.engine,
        clock=row.clock,
        prepare_ms=_MS * median_of(times.prepare) if row.spec else 0.0,
        network_ms=_MS * median_of(times.network),
        finish_ms=0.0 if probe.detections is None else _MS * median_of(times.finish),
        both_ms=_MS * median_of(both),
        p90_ms=_MS * percentile_of(both, 90),
        ratio=ratio_of(both, base),
        load_ms=_MS * probe.load_s,
        file_bytes=_size(row),
        peak_mb=probe.peak_mb,
        network_mb=max(0.0, probe.peak_mb - probe.base_mb),
        candidates=probe.candidates,
        score_threshold=row.score_threshold,
        detections=probe.detections,
        rounds=len(both),
    )


def _size(row: BenchRow) -> int:
    """Return the size of the files; of a bundle, PyTorch's row needs the checkpoint."""
    if row.runtime != "torch":
        return sum(Path(path).stat().st_size for path in row.files)
    checkpoint = read_bundle(Path(row.files[0])).checkpoint_path
    return 0 if checkpoint is None else checkpoint.stat().st_size
