"""What a measurement found: rows to compare, layers, and sentences about what is off."""

from __future__ import annotations

from dataclasses import dataclass

from mbv3ssd_deploy.bench.statistics import Ratio


@dataclass(frozen=True, slots=True)
class RowReport:
    """One row of the table. Times are medians in milliseconds.

    Attributes:
        target: what the user called the network.
        title: runtime, precision and threads.
        runtime: "torch", "onnx" or "ncnn".
        precision: "fp32", "fp16" or "bf16".
        threads: for one operator.
        device: "cpu" or "cuda".
        engine: the runtime's version.
        clock: "thread" (what one thread computed) or "wall".
        prepare_ms: from the image to the input; 0 for a stranger's network, fed with numbers.
        network_ms: up to the heads.
        finish_ms: from the heads to detections: layers of the network (ncnn's priors and
            DetectionOutput), or the family's own rules in NumPy.
        both_ms: network and post-processing.
        p90_ms: the 90th percentile of these.
        ratio: of these to the first row, round by round.
        load_ms: from the files to a loaded network, imports not counted.
        file_bytes: what has to be shipped for this row.
        peak_mb: the most memory of a process that ran only this row.
        network_mb: the part of it that came with the network.
        candidates: scores above the threshold, on average over the images; None where unknown.
        score_threshold: that threshold.
        detections: found, on average over the images; None without post-processing.
        rounds: how many counted.
    """

    target: str
    title: str
    runtime: str
    precision: str
    threads: int
    device: str
    engine: str
    clock: str
    prepare_ms: float
    network_ms: float
    finish_ms: float
    both_ms: float
    p90_ms: float
    ratio: Ratio
    load_ms: float
    file_bytes: int
    peak_mb: float
    network_mb: float
    candidates: float | None
    score_threshold: float
    detections: float | None
    rounds: int


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
        target: what the user called the network.
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


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything that one `bench` found.

    `images` is empty where only strangers' networks ran, which are fed with random numbers;
    `failures` names rows that could not run; `remarks` are sentences for people.
    """

    date: str
    machine: str
    images: tuple[str, ...]
    rows: tuple[RowReport, ...]
    layers: tuple[LayersReport, ...]
    left_out: tuple[str, ...]
    failures: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where a row that was asked for could not run."""
        return 1 if self.failures else 0
