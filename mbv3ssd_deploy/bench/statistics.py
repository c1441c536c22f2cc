"""Medians, percentiles and ratios of rounds in which rows took turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_NORMAL_97_5: Final = 1.959964
"""The standard normal's 97.5 % point: two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the per-round ratios, and where it lies with 95 % certainty.

    Each round compares neighbours in time, so that a machine that grows slow for a while does not
    show. The limits are order statistics of the ratios (the sign test turned round, as in Conover,
    Practical Nonparametric Statistics, 3.2): nothing is assumed of how times are spread.
    """

    median: float
    low: float
    high: float

    @property
    def uncertainty(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


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
