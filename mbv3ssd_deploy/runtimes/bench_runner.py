"""Starting the measuring child, and hearing how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from mbv3ssd_deploy import errors
from mbv3ssd_deploy.errors import DeployError, RuntimeFailedError
from mbv3ssd_deploy.io.child import ChildResult, run_child
from mbv3ssd_deploy.io.records import json_from_record, record_from_json
from mbv3ssd_deploy.runtimes.bench_job import RESULT, BenchJob

Answer = TypeVar("Answer")

_MODULE = "mbv3ssd_deploy.runtimes.bench_child"
_SECONDS_TO_LOAD = 60.0
_SECONDS_A_RUN = 20.0
_KINDS: Mapping[str, type[DeployError]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            *(errors.BundleError, errors.CheckpointError, errors.FormatError, errors.SpecError),
            *(errors.RuntimeUnavailableError, errors.UnsafeCheckpointError),
        )
    }
)
"""Errors that stay what they are on their way out of the child; all others say that it failed."""


def run_bench_child(
    mode: str,
    job: BenchJob,
    answer: type[Answer],
    folder: Path,
    on_round: Callable[[int, int], None] | None = None,
) -> Answer:
    """Run `bench_child.py MODE` on `job` in the empty folder `folder`; return its answer.

    Raises:
        RuntimeFailedError: it crashed, hung, or a runtime refused the model; says at which row.
        DeployError: what the child raised on purpose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(json_from_record(job))
    (folder / "job.json").write_text(text, encoding="utf-8")
    command = (sys.executable, "-P", "-m", _MODULE, mode, str(folder))
    runs = len(job.rows) * (job.warmup + job.rounds + max(1, len(job.images)))
    timeout_s = len(job.rows) * _SECONDS_TO_LOAD + runs * _SECONDS_A_RUN
    steps: list[str] = []

    def hear(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in {"begin", "failed"}:
            steps.append(line)
        elif word == "done" and on_round is not None:
            done, total = rest.split()
            on_round(int(done), int(total))

    result = run_child(command, timeout_s=timeout_s, on_line=hear)
    if result.returncode != 0 or result.timed_out:
        raise _failure(result, steps[-1] if steps else "", job)
    plain = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return record_from_json(answer, plain, where=RESULT)


def _failure(result: ChildResult, step: str, job: BenchJob) -> DeployError:
    word, _, rest = step.partition(" ")
    if word == "failed":
        told = json.loads(rest)
        kind = _KINDS.get(told["kind"], RuntimeFailedError)
        return kind(told["message"], where=told["where"], hint=told["hint"])
    place = f" at {rest}" if rest else ""
    words = f"; its last words: {result.last_line}" if result.last_line else ""
    return RuntimeFailedError(
        f"the measuring process {result.ending}{place}{words}",
        where=job.rows[0].files[0] if len(job.rows) == 1 else "",
    )
