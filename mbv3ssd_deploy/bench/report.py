"""The report of a measurement, and the statistics of its rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mbv3ssd_deploy.runtimes.bench_job import LayersReport

_NORMAL_97_5: Final = 1.959964
"""The standard normal's 97.5 % point: two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the per-round ratios, with its 95 % confidence interval.

    Each round compares neighbours in time, so that a machine that is slow for a while does not
    matter. The limits are order statistics of the ratios (Conover, Practical Nonparametric
    Statistics, 3.2): nothing is assumed about the distribution of times.
    """

    median: float
    low: float
    high: float

    @property
    def uncertainty(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class RowReport:
    """One row of the table. Times are medians in milliseconds.

    Attributes:
        target: the network as the user named it.
        title: runtime, precision and threads.
        threads: per operator.
        engine: the runtime with its version, and the device.
        clock: "thread" (CPU time of one thread) or "wall".
        prepare_ms: from the image to the input; 0 for a network that gets random numbers.
        network_ms: up to the heads.
        finish_ms: from the heads to detections: layers of the network (ncnn's priors and
            DetectionOutput), or the family's own rules in NumPy.
        both_ms: network and post-processing.
        p90_ms: the 90th percentile of these.
        ratio: of these to the first row, round by round.
        load_ms: from the files to a loaded network, without imports.
        file_bytes: size of the files that this row needs.
        peak_mb: peak memory of a process that ran only this row.
        network_mb: the network's part of it.
        candidates: scores above the threshold, mean over the images; None if unknown.
        detections: mean over the images; None without post-processing.
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
class BenchReport:
    """The result of `bench`.

    `images` is empty if every network got random numbers; `failures` names rows that could not run;
    `remarks` are sentences for people.
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
        """1 if a requested row could not run."""
        return 1 if self.failures else 0


def median_of(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(np.asarray(values, dtype=np.float64)))


def percentile_of(values: Sequence[float], percent: float) -> float:
    """Return the percentile, interpolated between its neighbours."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))


def ratio_of(values: Sequence[float], base: Sequence[float]) -> Ratio:
    """Return the ratio of `values` to `base`, round by round.

    Raises:
        ValueError: no rounds, or rounds of different number.
    """
    if not values or len(values) != len(base):
        raise ValueError(f"{len(values)} rounds cannot be compared with {len(base)}")
    ratios = sorted(value / other for value, other in zip(values, base, strict=True))
    count = len(ratios)
    reach = _NORMAL_97_5 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach))
    return Ratio(median_of(ratios), ratios[low], ratios[high])
