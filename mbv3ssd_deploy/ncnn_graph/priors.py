"""How the priors of each level travel in an ncnn network: as a PriorBox layer, or as constants.

PriorBox clips corners; most families clip in centre form, or sizes, and PriorBox then computes
other boxes on some levels. So nothing is assumed: the layer's parameters are solved from the level,
its arithmetic is repeated in float32, operation by operation, and every corner of every prior is
compared with `core.priors` in float64. Where the worst is within `PRIOR_TOLERANCE`, the layer is
right.

Source: ncnn's src/layer/priorbox.cpp, the branch for image sizes in pixels. (With one input blob,
automatic image sizes and no max_sizes, ncnn computes MXNet's normalised priors instead, which no
network of ours asks for.)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Final

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64
from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_level_priors
from mbv3ssd_deploy.core.spec import ClipRule, DetectorSpec, PriorLevel, PriorRounding
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import AUTO, LAYERS
from mbv3ssd_deploy.ncnn_graph.shapes import Params

PRIOR_TOLERANCE: Final = 1e-6
"""In units of the image: the largest distance of a corner that counts as the same prior."""

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
        layer: "PriorBox" or "MemoryData".
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
        groups = groupby(self.levels, lambda p: None if p.layer == MEMORY_DATA else p.level)
        return tuple(tuple(run) for _, run in groups)


def plan_priors(spec: DetectorSpec, mode: PriorMode = PriorMode.AUTO) -> PriorPlan:
    """Return how the priors of `spec` travel in an ncnn network.

    Raises:
        SpecError: in LAYER mode, naming every level that PriorBox cannot express, with its error.
        ValueError: an unknown `mode`.
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
    params, distances = _best_fit(spec, index)
    worst = distances.max(axis=1)
    size = (spec.input.width, spec.input.height) * 2
    plan = LevelPlan(
        level=index,
        layer=PRIOR_BOX,
        count=spec.priors.levels[index].count,
        params=MappingProxyType(params),
        worst_error=float(worst.max()),
        worst_error_px=float((distances * size).max()),
        worst_prior=int(worst.argmax()),
        inexact=int(np.count_nonzero(worst > PRIOR_TOLERANCE)),
        reason=f"exact, worst corner {worst.max():.1e} of the image",
    )
    if mode is PriorMode.CONSTANT:
        return replace(plan, layer=MEMORY_DATA, reason="constants were asked for")
    if plan.inexact:
        reason = f"PriorBox would miss {_error_text(plan)}: {_cause(spec, index)}"
        return replace(plan, layer=MEMORY_DATA, reason=reason)
    return plan


def _cause(spec: DetectorSpec, index: int) -> str:
    """Return why no PriorBox makes level `index`."""
    priors, (_, width, height) = spec.priors, _whole_frame(spec)
    if priors.rounding is PriorRounding.PIXEL_CORNERS:
        return "the family rounds corners to whole pixels, ncnn rounds nothing"
    bare = replace(spec, priors=replace(priors, clip=ClipRule.NONE))
    if _best_fit(bare, index)[1].max() <= PRIOR_TOLERANCE:
        return f"the family {_CLIPPED_BY[priors.clip]}, ncnn clips corners or nothing"
    frame = priors.frame_width, priors.frame_height
    if not math.isclose(frame[0] * height, frame[1] * width, rel_tol=1e-12):
        return f"the frame {frame[0]:g} x {frame[1]:g} has no form in whole pixels as ncnn needs"
    return "ncnn's float32 arithmetic is too coarse for its numbers"


def _error_text(plan: LevelPlan) -> str:
    return (
        f"{plan.inexact} of {plan.count} priors, "
        f"prior {plan.worst_prior} by {plan.worst_error_px:.3g} px"
    )


def _best_fit(spec: DetectorSpec, index: int) -> tuple[dict[str, Param], F64]:
    """Return the PriorBox that comes nearest, and how far off each corner of it is (n, 4)."""
    level, truth = spec.priors.levels[index], level_corners(spec, index)
    fits = []
    for params in _possible_params(spec, level):
        found = priors_from_priorbox(params, level.cols, level.rows).astype(np.float64)
        fits.append((params, np.abs(found.reshape(truth.shape) - truth)))
    # min() keeps the first of equals: without clipping, which ncnn computes with less rounding
    return min(fits, key=lambda fit: float(fit[1].max()) * bool(fit[1].max() > PRIOR_TOLERANCE))


def _possible_params(spec: DetectorSpec, level: PriorLevel) -> Iterator[dict[str, Param]]:
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
    """Return a unit in which the prior frame has whole sizes, as PriorBox requires, and these.

    A frame that cannot be whole is rounded; the comparison then shows how wrong that is.
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


def priors_from_priorbox(
    params: Mapping[str, Param], cols: int, rows: int, image_size: tuple[int, int] | None = None
) -> F32:
    """Return the corners (4n,) that PriorBox computes for a feature map of `cols` x `rows` cells.

    Normalised x1, y1, x2, y2 of each prior; order: row, column, then in a cell for each min size
    the square, the square of its max size if there are any, and the ratios, wide before tall. A
    parameter that is missing has ncnn's default; `image_size`, the width and height of the second
    blob, is used where a size is automatic (-233).

    Raises:
        ValueError: no image size, no min sizes, or fewer max sizes than min sizes.
    """
    full: Params = LAYERS[PRIOR_BOX].resolved(params)
    given = (full["image_width"], full["image_height"])
    width, height = (
        blob if size == AUTO else size
        for size, blob in zip(given, image_size or given, strict=True)
    )
    if min(width, height) < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no priors")
    sizes = _cell_sizes(full)
    x = _centres(full, "step_width", width, cols)[None, :, None]
    y = _centres(full, "step_height", height, rows, accumulated=False)[:, None, None]
    half = sizes * np.float32(0.5)
    corners = np.empty((rows, cols, len(sizes), 4), dtype=np.float32)
    corners[..., 0] = (x - half[:, 0]) / np.float32(width)
    corners[..., 1] = (y - half[:, 1]) / np.float32(height)
    corners[..., 2] = (x + half[:, 0]) / np.float32(width)
    corners[..., 3] = (y + half[:, 1]) / np.float32(height)
    if full["clip"]:
        corners = corners.clip(np.float32(0), np.float32(1))
    return corners.ravel()


def _cell_sizes(full: Params) -> F32:
    """Return width and height (n, 2) of the priors of one cell, in pixels."""
    smallest, largest, ratios = (
        np.array(full[name], dtype=np.float32)
        for name in ("min_sizes", "max_sizes", "aspect_ratios")
    )
    if not smallest.size or 0 < largest.size < smallest.size:
        raise ValueError(f"{smallest.size} min sizes have {largest.size} max sizes")
    sizes: list[tuple[np.float32, np.float32]] = []
    for index, size in enumerate(smallest):
        sizes.append((size, size))
        if largest.size:
            side = np.sqrt(size * largest[index])
            sizes.append((side, side))
        for root in np.sqrt(ratios):
            wide = (size * root, size / root)
            sizes += [wide, wide[::-1]] if full["flip"] else [wide]
    return np.array(sizes, dtype=np.float32)


def _centres(
    full: Params, step_name: str, size: int, cells: int, *, accumulated: bool = True
) -> F32:
    """Return the centres (cells,) along one axis, in pixels.

    ncnn adds step after step along a row, and multiplies from row to row; the float32 rounding
    differs.
    """
    step = np.float32(full[step_name])
    if step == AUTO:
        step = np.float32(size) / np.float32(cells)
        step = np.ceil(step) if full["step_mmdetection"] else step
    reach = step - np.float32(1) if full["center_mmdetection"] else step
    start = np.float32(full["offset"]) * reach
    if accumulated:
        steps = np.full(cells, step, dtype=np.float32)
        steps[0] = start
        return np.cumsum(steps, dtype=np.float32)
    return start + np.arange(cells, dtype=np.float32) * step
