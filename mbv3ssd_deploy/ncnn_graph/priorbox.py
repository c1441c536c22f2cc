"""What ncnn's PriorBox layer computes, in numpy, operation by operation in float32.

Source: ncnn's src/layer/priorbox.cpp, the branch for image sizes in pixels. (With one input blob,
automatic image sizes and no max_sizes, ncnn computes MXNet's normalised priors instead, which no
network of ours asks for.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import AUTO, LAYERS


def priors_from_priorbox(
    params: Mapping[str, Param],
    cols: int,
    rows: int,
    image_size: tuple[int, int] | None = None,
) -> F32:
    """Return the corners (4n,) that PriorBox gives for a feature map of `cols` x `rows` cells.

    Normalised x1, y1, x2, y2 of each prior; order: row, column, then in a cell for each min size
    the square, the square of its max size if there are any, and the ratios, wide before tall.

    Args:
        params: the layer's parameters by name; what is missing has ncnn's default.
        cols: width of the feature map in cells.
        rows: height of the feature map in cells.
        image_size: width and height of the second blob, used where a size is automatic (-233).

    Raises:
        ValueError: no image size, no min sizes, or fewer max sizes than min sizes.
    """
    full = LAYERS["PriorBox"].resolved(params)
    width, height = _image_size(full, image_size)
    sizes = _cell_sizes(full)
    x = _centres(full, "step_width", width, cols)
    y = _centres(full, "step_height", height, rows, accumulated=False)
    half = sizes * np.float32(0.5)
    corners = np.empty((rows, cols, len(sizes), 4), dtype=np.float32)
    corners[..., 0] = (x[None, :, None] - half[:, 0]) / np.float32(width)
    corners[..., 1] = (y[:, None, None] - half[:, 1]) / np.float32(height)
    corners[..., 2] = (x[None, :, None] + half[:, 0]) / np.float32(width)
    corners[..., 3] = (y[:, None, None] + half[:, 1]) / np.float32(height)
    if full["clip"]:
        corners = corners.clip(np.float32(0), np.float32(1))
    return corners.ravel()


def blob_from_priorbox(
    params: Mapping[str, Param],
    cols: int,
    rows: int,
    image_size: tuple[int, int] | None = None,
) -> F32:
    """Return the whole blob (2, 4n): the corners, and below each prior its four variances.

    Raises:
        ValueError: as `priors_from_priorbox`.
    """
    corners = priors_from_priorbox(params, cols, rows, image_size)
    full = LAYERS["PriorBox"].resolved(params)
    variances = np.array([full[f"variances_{i}"] for i in range(4)], dtype=np.float32)
    return np.stack((corners, np.tile(variances, len(corners) // 4)))


def _image_size(full: Mapping[str, Param], given: tuple[int, int] | None) -> tuple[int, int]:
    sizes = (cast(int, full["image_width"]), cast(int, full["image_height"]))
    width, height = (
        size if size != AUTO or given is None else blob
        for size, blob in zip(sizes, given or sizes, strict=True)
    )
    if min(width, height) < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no priors")
    return width, height


def _cell_sizes(full: Mapping[str, Param]) -> F32:
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
    full: Mapping[str, Param], step_name: str, size: int, cells: int, *, accumulated: bool = True
) -> F32:
    """Return the centres (cells,) along one axis, in pixels.

    ncnn adds step after step along a row, and multiplies from row to row; the float32 rounding
    differs.
    """
    step = np.float32(cast(float, full[step_name]))
    if step == AUTO:
        step = np.float32(size) / np.float32(cells)
        step = np.ceil(step) if full["step_mmdetection"] else step
    reach = step - np.float32(1) if full["center_mmdetection"] else step
    start = np.float32(cast(float, full["offset"])) * reach
    if accumulated:
        steps = np.full(cells, step, dtype=np.float32)
        steps[0] = start
        return np.cumsum(steps, dtype=np.float32)
    return start + np.arange(cells, dtype=np.float32) * step
