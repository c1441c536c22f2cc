"""How the priors of each level travel in an ncnn network: as a PriorBox layer, or as constants.

PriorBox clips corners; most families clip in centre form, or sizes, and PriorBox then computes
other boxes on some levels. So nothing is believed: the layer's parameters are solved from the
level, its arithmetic is repeated in float32 (`ncnn_graph.priorbox`), and every corner of every
prior is compared with `core.priors` in float64. Where the worst is within `PRIOR_TOLERANCE`, the
layer is right.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_level_priors
from mbv3ssd_deploy.core.spec import ClipRule, DetectorSpec, PriorLevel, PriorRounding
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.priorbox import priors_from_priorbox

PRIOR_TOLERANCE: Final = 1e-6
"""Of the image: the largest distance of a corner that counts as the same prior."""

PRIOR_BOX: Final = "PriorBox"
MEMORY_DATA: Final = "MemoryData"

_CLIPPED_BY: Final[Mapping[ClipRule, str]] = MappingProxyType(
    {
        ClipRule.NONE: "clips nothing",
        ClipRule.CORNERS: "clips corners",
        ClipRule.CENTRE_FORM: "clips centres and sizes",
        ClipRule.SIZES: "clips sizes",
    }
)


class PriorMode(enum.StrEnum):
    """Who decides between layer and constants."""

    AUTO = "auto"
    """PriorBox where it is exact, constants elsewhere."""
    LAYER = "layer"
    """PriorBox everywhere, or an error."""
    CONSTANT = "constant"
    """Constants everywhere."""


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """How one level's priors travel, and how well a PriorBox would do.

    Attributes:
        level: counted from 0.
        layer: "PriorBox" or "MemoryData".
        count: how many priors the level has.
        params: of the PriorBox layer that comes nearest, whether it is used or not.
        worst_error: of that PriorBox: the largest distance of a corner, in units of the image.
        worst_error_px: the same in pixels of the network's input.
        worst_prior: which prior of the level has it, counted from 0.
        inexact: how many priors of the level are beyond the tolerance.
        reason: why the level travels as it does, in words.
    """

    level: int
    layer: str
    count: int
    params: Mapping[str, Param]
    worst_error: float
    worst_error_px: float
    worst_prior: int
    inexact: int
    reason: str


@dataclass(frozen=True, slots=True)
class PriorPlan:
    """How all priors travel, level by level."""

    levels: tuple[LevelPlan, ...]

    def runs(self) -> tuple[tuple[LevelPlan, ...], ...]:
        """Return the levels in groups: each PriorBox alone, neighbouring constants together."""
        groups: list[list[LevelPlan]] = []
        for plan in self.levels:
            joins = groups and groups[-1][-1].layer == plan.layer == MEMORY_DATA
            if joins:
                groups[-1].append(plan)
            else:
                groups.append([plan])
        return tuple(map(tuple, groups))


@dataclass(frozen=True, slots=True)
class _Fit:
    """A PriorBox, and how far each corner of its priors (n, 4) is from where it should be."""

    params: Mapping[str, Param]
    distances: F64

    @property
    def worst_error(self) -> float:
        return float(self.distances.max())


def plan_priors(spec: DetectorSpec, mode: PriorMode = PriorMode.AUTO) -> PriorPlan:
    """Return how the priors of `spec` travel in an ncnn network.

    Args:
        spec: the detector.
        mode: who decides between PriorBox and constants.

    Raises:
        SpecError: in LAYER mode, naming every level that PriorBox cannot express, with its error.
        ValueError: `mode` is none.
    """
    wanted = PriorMode(mode)
    levels = tuple(_plan_level(spec, i, wanted) for i in range(len(spec.priors.levels)))
    inexact = [plan for plan in levels if plan.inexact]
    if wanted is PriorMode.LAYER and inexact:
        listing = "".join(f"\n  level {plan.level}: {_error_text(plan)}" for plan in inexact)
        raise SpecError(
            f"PriorBox cannot express {len(inexact)} of {len(levels)} levels:{listing}",
            where=spec.name,
            hint="use --priors auto: exact constants on these levels, PriorBox on the others",
        )
    return PriorPlan(levels)


def level_corners(spec: DetectorSpec, index: int) -> F64:
    """Return the true corners (n, 4) of level `index`, normalised."""
    return corners_from_centre(build_level_priors(spec.priors, index))


def _plan_level(spec: DetectorSpec, index: int, mode: PriorMode) -> LevelPlan:
    level, best = spec.priors.levels[index], _best_fit(spec, index)
    size = (spec.input.width, spec.input.height) * 2
    plan = LevelPlan(
        level=index,
        layer=PRIOR_BOX,
        count=level.count,
        params=MappingProxyType(dict(best.params)),
        worst_error=best.worst_error,
        worst_error_px=float((best.distances * size).max()),
        worst_prior=int(best.distances.max(axis=1).argmax()),
        inexact=int(np.count_nonzero(best.distances.max(axis=1) > PRIOR_TOLERANCE)),
        reason="",
    )
    return _decided(plan, mode, spec)


def _decided(plan: LevelPlan, mode: PriorMode, spec: DetectorSpec) -> LevelPlan:
    if mode is PriorMode.CONSTANT:
        layer, reason = MEMORY_DATA, "constants were asked for"
    elif plan.inexact:
        layer = MEMORY_DATA
        reason = f"PriorBox would miss {_error_text(plan)}: {_cause(spec, plan.level)}"
    else:
        layer, reason = PRIOR_BOX, f"exact, worst corner {plan.worst_error:.1e} of the image"
    return replace(plan, layer=layer, reason=reason)


def _cause(spec: DetectorSpec, index: int) -> str:
    """Return why no PriorBox makes level `index`."""
    priors, (_, width, height) = spec.priors, _whole_frame(spec)
    if priors.rounding is PriorRounding.PIXEL_CORNERS:
        return "the family rounds corners to whole pixels, ncnn rounds nothing"
    bare = replace(spec, priors=replace(priors, clip=ClipRule.NONE))
    if _best_fit(bare, index).worst_error <= PRIOR_TOLERANCE:
        return f"the family {_CLIPPED_BY[priors.clip]}, ncnn clips corners or nothing"
    frame = priors.frame_width, priors.frame_height
    if not math.isclose(frame[0] * height, frame[1] * width, rel_tol=1e-12):
        return f"the frame {frame[0]:g} x {frame[1]:g} has no form in whole pixels, which ncnn asks"
    return "ncnn's float32 arithmetic is too coarse for its numbers"


def _error_text(plan: LevelPlan) -> str:
    return (
        f"{plan.inexact} of {plan.count} priors, "
        f"prior {plan.worst_prior} by {plan.worst_error_px:.3g} px"
    )


def _best_fit(spec: DetectorSpec, index: int) -> _Fit:
    level, truth = spec.priors.levels[index], level_corners(spec, index)
    fits = [_fit(params, level, truth) for params in _candidates(spec, level)]
    # min() keeps the first of equals: without clipping, which ncnn computes with less rounding
    return min(fits, key=lambda fit: fit.worst_error > PRIOR_TOLERANCE and fit.worst_error)


def _fit(params: Mapping[str, Param], level: PriorLevel, truth: F64) -> _Fit:
    found = priors_from_priorbox(params, level.cols, level.rows).astype(np.float64)
    return _Fit(params, np.abs(found.reshape(truth.shape) - truth))


def _candidates(spec: DetectorSpec, level: PriorLevel) -> Iterator[dict[str, Param]]:
    """Yield the PriorBox parameters that could make `level`: without clipping, and with."""
    unit, width, height = _whole_frame(spec)
    ratios, flip = _ratios_and_flip(level.ratios)
    variances = {f"variances_{i}": v for i, v in enumerate(spec.coder.variances)}
    for clip in (0, 1):
        yield {
            "min_sizes": (level.min_size * unit,),
            "max_sizes": () if level.max_size is None else (level.max_size * unit,),
            "aspect_ratios": ratios,
            **variances,
            "flip": flip,
            "clip": clip,
            "image_width": width,
            "image_height": height,
            "step_width": level.step_x * unit,
            "step_height": level.step_y * unit,
            "offset": 0.5,
        }


def _whole_frame(spec: DetectorSpec) -> tuple[float, int, int]:
    """Return a unit in which the prior frame has whole sizes, which PriorBox asks for, and these.

    A frame that cannot be whole is rounded; the comparison then says how wrong that is.
    """
    frame = spec.priors.frame_width, spec.priors.frame_height
    units = (1.0, spec.input.width / frame[0], spec.input.height / frame[1])
    for unit in units:
        sizes = frame[0] * unit, frame[1] * unit
        if all(size >= 1 and math.isclose(size, round(size), rel_tol=1e-12) for size in sizes):
            return unit, round(sizes[0]), round(sizes[1])
    return units[1], spec.input.width, max(1, round(frame[1] * units[1]))


def _ratios_and_flip(ratios: tuple[float, ...]) -> tuple[tuple[float, ...], int]:
    """Return PriorBox's `aspect_ratios` and `flip`, which follows each ratio by its inverse."""
    pairs = list(zip(ratios[::2], ratios[1::2], strict=False))
    is_paired = len(ratios) % 2 == 0 and all(math.isclose(a * b, 1.0) for a, b in pairs)
    if ratios and is_paired:
        return tuple(a for a, _ in pairs), 1
    return ratios, 0
