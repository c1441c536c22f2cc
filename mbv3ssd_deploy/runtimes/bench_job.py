"""What the measuring child does and answers, both as JSON files; and starting it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from mbv3ssd_deploy import errors
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import DeployError, RuntimeFailedError
from mbv3ssd_deploy.io.child import ChildResult, run_child
from mbv3ssd_deploy.io.records import json_from_record, record_from_json

Answer = TypeVar("Answer")

JOB: Final = "job.json"
RESULT: Final = "result.json"

NCNN_OPTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "fp32": frozenset(),
        "fp16": frozenset({"use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"}),
        "bf16": frozenset({"use_bf16_packed", "use_bf16_storage"}),
        # int8 needs no options, which are on by default, but files of its own
    }
)
"""The options of ncnn that each precision switches on."""

PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"torch": ("fp32",), "onnx": ("fp32",), "ncnn": tuple(NCNN_OPTIONS)}
)
"""The precisions of each runtime."""

_MODULE = "mbv3ssd_deploy.runtimes.bench_child"
_SECONDS_TO_LOAD = 60.0
_SECONDS_PER_RUN = 20.0


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One row of the table: a network on a runtime, in a precision, with a number of threads.

    Attributes:
        target: the network as the user named it: a bundle, a .param, an .onnx.
        runtime: one of `PRECISIONS`.
        threads: per operator.
        device: "cpu" or "cuda".
        files: the bundle (torch), the body (onnx), or .param and .bin (ncnn).
        spec: for preprocessing and decoding; None for a network that is not ours.
        tensor: without a spec, a .npy file of the input (3, H, W).
        input_name: the input blob (ncnn).
        heads: the blobs where the network ends and post-processing begins (ncnn).
        ends: the output of the network's own post-processing layers; empty if it has none.
        classes: with the background; 0 if unknown.
    """

    target: str
    runtime: str
    precision: str
    threads: int
    device: str
    files: tuple[str, ...]
    spec: DetectorSpec | None
    tensor: str = ""
    input_name: str = ""
    heads: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    classes: int = 0
    score_threshold: float = 0.0

    @property
    def title(self) -> str:
        """Name of the row within its target, in tables and messages."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        place = "" if self.device == "cpu" else f" {self.device}"
        return f"{self.runtime}{place} {self.precision}, {threads}"

    @property
    def clock(self) -> str:
        """The clock that measures it: "thread" (CPU time of one thread) or "wall".

        The CPU time of one thread does not depend on other processes. Several threads, or a GPU,
        can only be measured by wall time.
        """
        return "thread" if self.threads == 1 and self.device == "cpu" else "wall"


@dataclass(frozen=True, slots=True)
class BenchJob:
    """What one child does: run every row `rounds` times, row after row, on the images in turn.

    `images` are .npy files, RGB uint8 (H, W, 3); `warmup` further rounds before are not counted.
    """

    rows: tuple[BenchRow, ...]
    images: tuple[str, ...]
    warmup: int
    rounds: int


@dataclass(frozen=True, slots=True)
class RowProbe:
    """What is measured in a process that runs a single row; see `RowReport` of bench.

    `base_mb` is the memory before the network was loaded.
    """

    engine: str
    load_s: float
    peak_mb: float
    base_mb: float
    candidates: float | None
    detections: float | None


@dataclass(frozen=True, slots=True)
class RowTimes:
    """Seconds per stage, one entry per round."""

    prepare: tuple[float, ...]
    network: tuple[float, ...]
    finish: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The times of all rows, in the job's order."""

    rows: tuple[RowTimes, ...]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer: its median in milliseconds and its share of all layers together."""

    name: str
    kind: str
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class LayersReport:
    """The slowest layers of one row.

    Attributes:
        target: the network as the user named it.
        title: the row.
        method: how it was measured.
        layers: the slowest ones, slowest first.
        kinds: every layer type with the time of all its layers, slowest first.
        layers_ms: all layers together.
        whole_ms: the network in one go, in the same process.
    """

    target: str
    title: str
    method: str
    layers: tuple[LayerReport, ...]
    kinds: tuple[LayerReport, ...]
    layers_ms: float
    whole_ms: float


def run_bench_child(
    mode: str,
    job: BenchJob,
    answer: type[Answer],
    folder: Path,
    on_round: Callable[[int, int], None] | None = None,
) -> Answer:
    """Run `bench_child.py MODE` on `job` in the empty folder `folder`; return its answer.

    Raises:
        RuntimeFailedError: it crashed or hung, or a runtime refused the model.
        DeployError: an error that the child raised on purpose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOB).write_text(json.dumps(json_from_record(job)), encoding="utf-8")
    command = (sys.executable, "-P", "-m", _MODULE, mode, str(folder))
    runs = len(job.rows) * (job.warmup + job.rounds + max(1, len(job.images)))
    timeout_s = len(job.rows) * _SECONDS_TO_LOAD + runs * _SECONDS_PER_RUN
    steps: list[str] = []

    def on_line(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in {"begin", "failed"}:
            steps.append(line)
        elif word == "done" and on_round is not None:
            done, total = rest.split()
            on_round(int(done), int(total))

    result = run_child(command, timeout_s=timeout_s, on_line=on_line)
    if result.returncode != 0 or result.timed_out:
        raise _failure(result, steps[-1] if steps else "", job)
    plain = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return record_from_json(answer, plain, where=RESULT)


def _failure(result: ChildResult, step: str, job: BenchJob) -> DeployError:
    word, _, rest = step.partition(" ")
    if word == "failed":
        error = json.loads(rest)
        kind = getattr(errors, error.pop("kind"), RuntimeFailedError)
        raised: DeployError = kind(error.pop("message"), **error)
        return raised
    place = f" at {rest}" if rest else ""
    last = f"; its last output: {result.last_line}" if result.last_line else ""
    return RuntimeFailedError(
        f"the measuring process {result.ending}{place}{last}",
        where=job.rows[0].files[0] if len(job.rows) == 1 else "",
    )
