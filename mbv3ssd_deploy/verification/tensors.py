"""Two arrays compared: where and by how much they differ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64, Bools


@dataclass(frozen=True, slots=True)
class Tolerance:
    """An element passes when |actual - expected| <= atol + rtol * |expected|.

    Where it is `scaled`, `atol` counts max(1, rms) times, `rms` being the root mean square of the
    whole expected tensor of one run. An element is a sum of terms as large as the tensor's others,
    and float32 rounds by the size of the terms: near 0 an element errs no less than elsewhere.
    """

    atol: float
    rtol: float
    scaled: bool = False

    def __str__(self) -> str:
        scale = " x max(1, rms)" if self.scaled else ""
        return f"{self.atol:g}{scale} + {self.rtol:g} relative"


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """One tensor of the reference run compared with the same tensor of another run.

    Attributes:
        name: the tensor.
        image: the image with the worst element; empty if there is only one run.
        tolerance: the largest difference of an element that passes.
        scale: how many times `tolerance.atol` counts in the worst element's run.
        elements: how many elements were compared.
        bad_elements: how many broke the tolerance.
        max_abs: the largest distance; infinite if only one of two values is finite.
        cosine: the smallest cosine of a run's two tensors; NaN where one is not finite.
        worst_index: the element that exceeds the tolerance most.
        expected_at_worst: the reference's value there.
        actual_at_worst: the other run's value there.
        needed_atol: the smallest `atol` that would have passed with the same `rtol` and scale.
        expected_not_finite: NaN and infinities in the reference's tensor.
        actual_not_finite: NaN and infinities in the other tensor.
    """

    name: str
    image: str
    tolerance: Tolerance
    scale: float
    elements: int
    bad_elements: int
    max_abs: float
    cosine: float
    worst_index: tuple[int, ...]
    expected_at_worst: float
    actual_at_worst: float
    needed_atol: float
    expected_not_finite: int
    actual_not_finite: int

    @property
    def passed(self) -> bool:
        """Whether every element kept within the tolerance."""
        return self.bad_elements == 0

    def sentence(self) -> str:
        """Return the finding in words: how many, where, by how much, and what would have passed."""
        place = ", ".join(map(str, self.worst_index))
        scale = f", where max(1, rms) is {self.scale:.3g}" if self.tolerance.scaled else ""
        on = f" of {self.image}" if self.image else ""
        values = f"expected {self.expected_at_worst:.6g}, got {self.actual_at_worst:.6g}"
        text = (
            f"{self.name}: {self.bad_elements} of {self.elements} elements beyond "
            f"{self.tolerance}; worst at [{place}]{on}{scale}: {values}"
        )
        if math.isfinite(self.needed_atol):
            text += f"; an absolute tolerance of {self.needed_atol:.3g} would have passed"
        return text


def compare_tensors(
    name: str, expected: F32, actual: F32, tolerance: Tolerance, *, image: str = ""
) -> TensorDiff:
    """Compare `actual` with `expected`, element by element.

    NaN and infinity pass only against the very same value in the same place.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    if expected.shape != actual.shape:
        raise ValueError(f"{name}: expected shape {expected.shape}, got {actual.shape}")
    if expected.size == 0:
        raise ValueError(f"{name}: an empty tensor proves nothing")
    # float64, so that the difference of two large float32 values is not rounded away
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    gap = _gaps(a, b, finite)
    # 0 instead of rtol * inf: an infinite allowance forgives anything
    allowance = tolerance.rtol * np.abs(np.where(finite, a, 0.0))
    beyond, scale = gap - allowance, _scale(a) if tolerance.scaled else 1.0
    worst = np.unravel_index(int(np.argmax(beyond)), gap.shape)
    return TensorDiff(
        name=name,
        image=image,
        tolerance=tolerance,
        scale=scale,
        elements=int(gap.size),
        bad_elements=int(np.count_nonzero(gap > tolerance.atol * scale + allowance)),
        max_abs=float(gap.max()),
        cosine=_cosine(a, b),
        worst_index=tuple(int(i) for i in worst),
        expected_at_worst=float(a[worst]),
        actual_at_worst=float(b[worst]),
        needed_atol=max(0.0, float(beyond.max()) / scale),
        expected_not_finite=int(np.count_nonzero(~np.isfinite(a))),
        actual_not_finite=int(np.count_nonzero(~np.isfinite(b))),
    )


def _gaps(a: F64, b: F64, finite: Bools) -> F64:
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.abs(b - a)
    return np.where(same, 0.0, np.where(finite, distance, np.inf))


def _scale(expected: F64) -> float:
    """Return the root mean square of what is finite in the reference's tensor, at least 1."""
    finite = expected[np.isfinite(expected)]
    return max(1.0, float(np.sqrt(np.mean(finite**2)))) if finite.size else 1.0


def _cosine(a: F64, b: F64) -> float:
    """Return the cosine of two arrays as vectors; 1 for two zero vectors."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if length == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.vdot(a, b) / length)


def merged_diffs(diffs: Iterable[TensorDiff]) -> TensorDiff:
    """Return one diff over the runs of several images; with the index and image of the worst one.

    Raises:
        ValueError: no diffs, or of different tensors or tolerances.
    """
    each = tuple(diffs)
    if not each:
        raise ValueError("no diffs to merge")
    if len({(diff.name, diff.tolerance) for diff in each}) > 1:
        raise ValueError("only diffs of one tensor under one tolerance merge")
    worst = max(each, key=lambda diff: (diff.needed_atol, diff.max_abs))  # the first of equals
    cosines = [diff.cosine for diff in each]
    return replace(
        worst,
        max_abs=max(diff.max_abs for diff in each),
        elements=sum(diff.elements for diff in each),
        bad_elements=sum(diff.bad_elements for diff in each),
        cosine=math.nan if any(map(math.isnan, cosines)) else min(cosines),
        needed_atol=max(diff.needed_atol for diff in each),
        expected_not_finite=sum(diff.expected_not_finite for diff in each),
        actual_not_finite=sum(diff.actual_not_finite for diff in each),
    )
