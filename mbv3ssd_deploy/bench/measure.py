"""`bench`: from targets and images to a report.

First every row runs alone in a process of its own, for its loading time and memory, and to find out
whether it runs. Then those that do run in turn in one process, round by round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bench.remarks import machine_in_words, remarks_on
from mbv3ssd_deploy.bench.report import (
    BenchReport,
    LayersReport,
    RowReport,
    layers_report,
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
    SCORES,
    BenchJob,
    BenchRow,
    LayerTimes,
    Rounds,
    RowProbe,
    RowTimes,
    run_bench_child,
)

_MS = 1e3
_LAYER_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class _Probed:
    """A row that runs, with the results of its own process."""

    row: BenchRow
    probe: RowProbe
    candidates: float | None


@dataclass(frozen=True, slots=True)
class _Workspace:
    """The folder of the children's jobs and answers, and the images in it."""

    folder: Path
    images: tuple[str, ...]


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
        workspace = _Workspace(Path(scratch), _written_images(images, Path(scratch)))
        made = workspace.folder / "made"
        made.mkdir()
        targets = [read_target(path, made, input_size=input_size) for path in paths]
        rows, left_out = plan_rows(targets, request)
        probed, failures = _probe_all(rows, workspace, progress)
        times = _run_rounds(probed, workspace, request, progress)
        reports = _row_reports(probed, times)
        layers = _layers(probed, workspace, request, progress)
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


def _written_images(images: Sequence[tuple[str, U8]], folder: Path) -> tuple[str, ...]:
    paths = [folder / f"image-{index}.npy" for index in range(len(images))]
    for path, (_, pixels) in zip(paths, images, strict=True):
        np.save(path, pixels)
    return tuple(map(str, paths))


def _probe_all(
    rows: Sequence[BenchRow], workspace: _Workspace, progress: Progress
) -> tuple[list[_Probed], tuple[str, ...]]:
    """Run each row alone; return those that ran, and the names and errors of the others.

    Raises:
        RuntimeUnavailableError: a requested device is missing.
        DeployError: no row ran.
    """
    probed: list[_Probed] = []
    failures: list[DeployError] = []
    names: list[str] = []
    for index, row in enumerate(rows):
        progress("load", index, len(rows))
        try:
            probed.append(_probed(row, workspace, index))
        except RuntimeUnavailableError:
            raise
        except DeployError as error:
            failures.append(error)
            names.append(f"{row.target}: {row.title}: {error.message}")
    progress("load", len(rows), len(rows))
    if not probed:
        raise _nothing_ran(failures, names)
    return probed, tuple(names)


def _nothing_ran(failures: Sequence[DeployError], names: Sequence[str]) -> DeployError:
    """Return one error for all rows: the first, if all have the same message."""
    if len({error.message for error in failures}) == 1:
        return failures[0]
    return RuntimeFailedError("no row could run: " + "; ".join(names))


def _probed(row: BenchRow, workspace: _Workspace, index: int) -> _Probed:
    folder = workspace.folder / f"probe-{index}"
    job = BenchJob((row,), workspace.images if row.spec else (), warmup=0, rounds=0)
    probe = run_bench_child("probe", job, RowProbe, folder)
    candidates = None
    if probe.has_scores:
        scores = np.load(folder / SCORES)
        above = np.count_nonzero(scores[:, :, 1:] > row.score_threshold, axis=(1, 2))
        candidates = float(above.mean())
    return _Probed(row, probe, candidates)


def _run_rounds(
    probed: Sequence[_Probed], workspace: _Workspace, request: BenchRequest, progress: Progress
) -> tuple[RowTimes, ...]:
    rows = tuple(one.row for one in probed)
    job = BenchJob(rows, workspace.images, warmup=request.warmup, rounds=request.rounds)
    return run_bench_child(
        "rounds",
        job,
        Rounds,
        workspace.folder / "rounds",
        lambda done, total: progress("measure", done, total),
    ).rows


def _row_reports(probed: Sequence[_Probed], times: Sequence[RowTimes]) -> tuple[RowReport, ...]:
    base = _both(times[0])
    return tuple(_row_report(one, own, base) for one, own in zip(probed, times, strict=True))


def _both(times: RowTimes) -> list[float]:
    return [a + b for a, b in zip(times.network, times.finish, strict=True)]


def _row_report(one: _Probed, times: RowTimes, base: Sequence[float]) -> RowReport:
    row, probe, both = one.row, one.probe, _both(times)
    found = probe.detections
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
        finish_ms=_MS * median_of(times.finish) if found else 0.0,
        both_ms=_MS * median_of(both),
        p90_ms=_MS * percentile_of(both, 90),
        ratio=ratio_of(both, base),
        load_ms=_MS * probe.load_s,
        file_bytes=_size(row),
        peak_mb=probe.peak_mb,
        network_mb=max(0.0, probe.peak_mb - probe.base_mb),
        candidates=one.candidates,
        score_threshold=row.score_threshold,
        detections=sum(found) / len(found) if found else None,
        rounds=len(both),
    )


def _size(row: BenchRow) -> int:
    """Return the size of the files; of a bundle, PyTorch's row needs the checkpoint."""
    if row.runtime != "torch":
        return sum(Path(path).stat().st_size for path in row.files)
    checkpoint = read_bundle(Path(row.files[0])).checkpoint_path
    return 0 if checkpoint is None else checkpoint.stat().st_size


def _layers(
    probed: Sequence[_Probed], workspace: _Workspace, request: BenchRequest, progress: Progress
) -> tuple[LayersReport, ...]:
    if not request.layers:
        return ()
    # a GPU runs layers after the calls have returned; CPU threads share the work of a layer
    on_cpu = [one.row for one in probed if one.row.device == "cpu"]
    least = min((row.threads for row in on_cpu), default=1)
    rows = [row for row in on_cpu if row.threads == least]
    reports = []
    for index, row in enumerate(rows):
        progress("layers", index, len(rows))
        job = BenchJob((row,), workspace.images, request.warmup, min(request.rounds, _LAYER_ROUNDS))
        folder = workspace.folder / f"layers-{index}"
        times = run_bench_child("layers", job, LayerTimes, folder)
        reports.append(layers_report(row.target, row.title, times))
    progress("layers", len(rows), len(rows))
    return tuple(reports)
