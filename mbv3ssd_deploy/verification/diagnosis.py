"""Diagnosis of raw heads that differ: they are compared with usual mistakes made on purpose.

A mistake is found if those agree with the heads of the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.priors import level_slices
from mbv3ssd_deploy.core.spec import DetectorSpec, PriorLevel
from mbv3ssd_deploy.verification.rules import Code, Reason

# Half precision must not hide a mistake, so agreement is loose.
_NEAR = 0.02

Mistake = Callable[[F32, PriorLevel], F32]


def diagnosed_heads(
    expected: Mapping[str, F32], actual: Mapping[str, F32], spec: DetectorSpec
) -> tuple[Reason, ...]:
    """Return the mistakes that explain the difference of one image's heads.

    Args:
        expected: `loc` (P, 4) and `conf` (P, C) of the reference.
        actual: the same of the runtime.
        spec: levels and class names.
    """
    found = [
        reason
        for name in ("loc", "conf")
        if not near(expected[name], actual[name])
        for reason in _transposed_levels(name, expected[name], actual[name], spec)
    ]
    if not near(expected["conf"], actual["conf"]):
        found += _exchanged_classes(expected["conf"], actual["conf"], spec.class_names)
    return tuple(found)


def near(expected: F32, actual: F32) -> bool:
    """Return whether two tensors are equal within the error of half precision."""
    if not np.isfinite(actual).all():
        return False
    scale = float(np.abs(expected).max(initial=0.0))
    return bool(np.abs(actual - expected).max(initial=0.0) <= _NEAR * max(scale, 1e-6))


def _channels_first(level: F32, shape: PriorLevel) -> F32:
    """As without a Permute: all cells of a channel, then the next channel."""
    return level.reshape(shape.rows * shape.cols, -1).T.reshape(level.shape)


def _columns_first(level: F32, shape: PriorLevel) -> F32:
    """As with width and height exchanged."""
    cells = level.reshape(shape.rows, shape.cols, -1)
    return cells.transpose(1, 0, 2).reshape(level.shape)


def _values_first(level: F32, shape: PriorLevel) -> F32:
    """As with channels ordered by box inside of value."""
    boxes = level.reshape(shape.rows * shape.cols, shape.boxes_per_cell, -1)
    return boxes.transpose(0, 2, 1).reshape(level.shape)


# Read from the top; the first that explains a level speaks for it.
_MISTAKES: tuple[tuple[str, Mistake], ...] = (
    ("its channels come before its cells, as without the Permute", _channels_first),
    ("its rows and columns are exchanged", _columns_first),
    ("its channels run value by value instead of box by box", _values_first),
)


def _transposed_levels(name: str, expected: F32, actual: F32, spec: DetectorSpec) -> list[Reason]:
    found = []
    slices = level_slices(spec.priors)
    for index, (rows, shape) in enumerate(zip(slices, spec.priors.levels, strict=True)):
        ours, theirs = expected[rows], actual[rows]
        if near(ours, theirs):
            continue
        words = next((w for w, mistake in _MISTAKES if near(mistake(ours, shape), theirs)), None)
        if words is not None:
            found.append(Reason(Code.HEAD_TRANSPOSED, f"{name} of level {index}: {words}"))
    return found


def _exchanged_classes(expected: F32, actual: F32, names: tuple[str, ...]) -> list[Reason]:
    """Return the classes whose scores are in each other's column."""
    off = [c for c in range(expected.shape[1]) if not near(expected[:, c], actual[:, c])]
    holds: dict[int, int] = {}
    for column in off:
        same = [other for other in off if near(expected[:, other], actual[:, column])]
        if len(same) == 1:
            holds[column] = same[0]
    return [
        Reason(
            Code.CLASSES_EXCHANGED,
            f"conf: the scores of {names[holds[column]]!r} are in the place of {names[column]!r}",
        )
        for column in off
        if column in holds
    ]
