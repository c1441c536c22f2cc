"""The measuring child: `-m mbv3ssd_deploy.runtimes.bench_child MODE FOLDER`.

FOLDER holds `job.json` (a `BenchJob`); the child adds `result.json`. MODE is

    probe   the job's only row: load it, run every image once -> RowProbe
    rounds  all rows in turn -> Rounds
    layers  the job's only row, layer by layer -> LayersReport

It prints `begin TEXT` before each step, `done N TOTAL` after each round, and `failed JSON` (kind,
message, where, hint) before it exits with code 1.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.errors import DeployError
from mbv3ssd_deploy.io.records import json_from_record, record_from_json
from mbv3ssd_deploy.runtimes.bench_engines import (
    Engine,
    import_runtime,
    load_engine,
    time_layers,
)
from mbv3ssd_deploy.runtimes.bench_job import (
    JOB,
    RESULT,
    BenchJob,
    BenchRow,
    LayersReport,
    Rounds,
    RowProbe,
    RowTimes,
)

_CLOCKS: dict[str, Callable[[], float]] = {"thread": time.thread_time, "wall": time.perf_counter}
_Stages = tuple[float, float, float]
_LOADS = 3
_REST_S = 0.002
"""Pause between rows: worker threads of the previous one spin for a while before they sleep."""


def main(mode: str, folder: Path) -> int:
    """Run the job in `folder`; return the exit code."""
    plain = json.loads((folder / JOB).read_text(encoding="utf-8"))
    job = record_from_json(BenchJob, plain, where=JOB)
    steps = {"probe": _probe, "rounds": _rounds, "layers": _layers}
    try:
        record = steps[mode](job)
    except DeployError as error:
        fields = {name: getattr(error, name) for name in ("message", "where", "hint")}
        _print(f"failed {json.dumps(fields | {'kind': type(error).__name__})}")
        return 1
    (folder / RESULT).write_text(json.dumps(json_from_record(record)), encoding="utf-8")
    return 0


def _probe(job: BenchJob) -> RowProbe:
    (row,) = job.rows
    _print(f"begin {row.title}")
    images = _read_images(job)
    import_runtime(row.runtime)
    base = _memory_mb("VmRSS")
    loads: list[float] = []
    for _ in range(_LOADS):
        began = time.perf_counter()
        engine = load_engine(row)
        loads.append(time.perf_counter() - began)
    candidates: list[int] = []
    counts: list[int] = []
    for index in range(max(1, len(images))):
        state = engine.run(_prepared(row, images, index))
        found, scores = engine.finish(state), engine.scores(state)
        counts += [] if found is None else [len(found)]
        if scores is not None:
            candidates.append(int(np.count_nonzero(scores[:, 1:] > row.score_threshold)))
    peak = _memory_mb("VmHWM")
    return RowProbe(engine.name, median(loads), peak, base, _mean(candidates), _mean(counts))


def _mean(counts: list[int]) -> float | None:
    return sum(counts) / len(counts) if counts else None


def _rounds(job: BenchJob) -> Rounds:
    images = _read_images(job)
    _print("begin loading")
    engines = [load_engine(row) for row in job.rows]
    kept: list[list[_Stages]] = [[] for _ in engines]
    for number in range(job.warmup + job.rounds):
        for row, engine, times in zip(job.rows, engines, kept, strict=True):
            _print(f"begin {row.target}: {row.title}")
            time.sleep(_REST_S)
            times.append(_timed(row, engine, images, number))
        _print(f"done {number + 1} {job.warmup + job.rounds}")
    return Rounds(tuple(RowTimes(*zip(*times[job.warmup :], strict=True)) for times in kept))


def _layers(job: BenchJob) -> LayersReport:
    (row,) = job.rows
    _print(f"begin {row.title}, layer by layer")
    image = _prepared(row, _read_images(job), 0)
    return time_layers(row, image, job.warmup, job.rounds)


def _timed(row: BenchRow, engine: Engine, images: list[U8], number: int) -> _Stages:
    """Return the seconds of each of the three stages for one image."""
    clock = _CLOCKS[row.clock]
    start = clock()
    image = _prepared(row, images, number)
    prepared = clock()
    state = engine.run(image)
    computed = clock()
    engine.finish(state)
    finished = clock()
    return prepared - start, computed - prepared, finished - computed


def _prepared(row: BenchRow, images: list[U8], number: int) -> F32:
    """Return the input (3, H, W) of round `number`: a prepared image, or the row's tensor."""
    if row.spec is None:
        tensor: F32 = np.load(row.tensor)
        return tensor
    return input_from_image(images[number % len(images)], row.spec.input)


def _read_images(job: BenchJob) -> list[U8]:
    return [np.load(path) for path in job.images]


def _memory_mb(key: str) -> float:
    """Return the memory of this process in MB: VmRSS now, VmHWM at its peak.

    ru_maxrss, which also counts the parent's memory at the fork, is used where there is no /proc.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(float(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()  # the next step may end this process


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
