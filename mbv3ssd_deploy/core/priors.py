"""Priors (default boxes): the table of a `PriorSpec` as numbers.

All arithmetic is in float64, so that a family's float32 priors are these numbers, rounded once.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.core.boxes import centre_from_corners, corners_from_centre
from mbv3ssd_deploy.core.spec import ClipRule, PriorLevel, PriorRounding, PriorSpec


def build_priors(spec: PriorSpec) -> F64:
    """Return all priors as (P, 4): cx, cy, w, h; rounded, normalised by the frame, clipped.

    The order is level, row, column, box within the cell: the order of a head's output.
    """
    return np.concatenate([build_level_priors(spec, i) for i in range(len(spec.levels))])


def build_level_priors(spec: PriorSpec, index: int) -> F64:
    """Return the priors of level `index` as (n, 4), in the form and order of `build_priors`."""
    level = spec.levels[index]
    boxes = _boxes_about_centre(level)
    if spec.rounding is PriorRounding.PIXEL_CORNERS:
        boxes = _on_pixels(boxes, level)
    cells = np.tile(boxes, (level.rows, level.cols, 1, 1))
    cells[..., 0] += ((np.arange(level.cols) + 0.5) * level.step_x)[None, :, None]
    cells[..., 1] += ((np.arange(level.rows) + 0.5) * level.step_y)[:, None, None]
    cells /= (spec.frame_width, spec.frame_height) * 2
    return _clipped(cells.reshape(-1, 4), spec.clip)


def level_slices(spec: PriorSpec) -> tuple[slice, ...]:
    """Return, level by level, the rows of (P, ...) arrays that belong to it."""
    edges = accumulate((level.count for level in spec.levels), initial=0)
    return tuple(slice(start, stop) for start, stop in pairwise(edges))


def _boxes_about_centre(level: PriorLevel) -> F64:
    """Return the boxes (n, 4) of one cell about its centre, in frame units; see `PriorLevel`."""
    small = level.min_size
    sizes = [(small, small)]
    if level.max_size is not None:
        between = math.sqrt(small * level.max_size)
        sizes.append((between, between))
    sizes += [(small * math.sqrt(r), small / math.sqrt(r)) for r in level.ratios]
    return np.array([(0.0, 0.0, width, height) for width, height in sizes])


def _on_pixels(boxes_cxcywh: F64, level: PriorLevel) -> F64:
    """Return the boxes about a cell's centre, rounded as `PriorRounding.PIXEL_CORNERS` says."""
    first_centre = np.array((level.step_x / 2, level.step_y / 2, 0.0, 0.0))
    past_the_last_pixel = np.array((0.0, 0.0, 1.0, 1.0))
    corners = corners_from_centre(boxes_cxcywh + first_centre)
    pixels = np.rint(corners - past_the_last_pixel)
    rounded: F64 = centre_from_corners(pixels + past_the_last_pixel) - first_centre
    return rounded


def _clipped(priors_cxcywh: F64, rule: ClipRule) -> F64:
    if rule is ClipRule.NONE:
        return priors_cxcywh
    if rule is ClipRule.CORNERS:
        return centre_from_corners(corners_from_centre(priors_cxcywh).clip(0.0, 1.0))
    clipped = priors_cxcywh.copy()
    first = 0 if rule is ClipRule.CENTRE_FORM else 2
    clipped[:, first:] = clipped[:, first:].clip(0.0, 1.0)
    return clipped
