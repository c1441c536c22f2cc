"""Priors (default boxes): the table of a `PriorSpec` as numbers.

All arithmetic is in float64, so that a family's float32 priors are these numbers, rounded once.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.core.boxes import centre_from_corners, corners_from_centre
from mbv3ssd_deploy.core.spec import ClipRule, PriorLevel, PriorSpec


def build_priors(spec: PriorSpec) -> F64:
    """Return all priors as (P, 4): cx, cy, w, h, normalised by the frame, the clip rule applied.

    The order is level, row, column, box within the cell: the order of a head's output.
    """
    return np.concatenate([build_level_priors(spec, i) for i in range(len(spec.levels))])


def build_level_priors(spec: PriorSpec, index: int) -> F64:
    """Return the priors of level `index` as (n, 4), in the form and order of `build_priors`."""
    level = spec.levels[index]
    cells = np.empty((level.rows, level.cols, level.boxes_per_cell, 4))
    cells[..., 0] = ((np.arange(level.cols) + 0.5) * level.step_x / spec.frame_width)[None, :, None]
    cells[..., 1] = ((np.arange(level.rows) + 0.5) * level.step_y / spec.frame_height)[
        :, None, None
    ]
    cells[..., 2:] = _sizes_in_cell(level) / (spec.frame_width, spec.frame_height)
    return _clipped(cells.reshape(-1, 4), spec.clip)


def level_slices(spec: PriorSpec) -> tuple[slice, ...]:
    """Return, level by level, the rows of (P, ...) arrays that belong to it."""
    edges = accumulate((level.count for level in spec.levels), initial=0)
    return tuple(slice(start, stop) for start, stop in pairwise(edges))


def _sizes_in_cell(level: PriorLevel) -> F64:
    """Return width and height of the boxes of one cell, in frame units; see `PriorLevel`."""
    small = level.min_size
    sizes = [(small, small)]
    if level.max_size is not None:
        between = math.sqrt(small * level.max_size)
        sizes.append((between, between))
    sizes += [(small * math.sqrt(r), small / math.sqrt(r)) for r in level.ratios]
    return np.array(sizes)


def _clipped(priors_cxcywh: F64, rule: ClipRule) -> F64:
    if rule is ClipRule.NONE:
        return priors_cxcywh
    if rule is ClipRule.CORNERS:
        return centre_from_corners(corners_from_centre(priors_cxcywh).clip(0.0, 1.0))
    clipped = priors_cxcywh.copy()
    first = 0 if rule is ClipRule.CENTRE_FORM else 2
    clipped[:, first:] = clipped[:, first:].clip(0.0, 1.0)
    return clipped
