"""Box arithmetic: two ways to write a box, the SSD decoding, and intersection over union.

Corners are x1, y1, x2, y2; centre form is cx, cy, w, h. Nothing here adds 1 to a width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mbv3ssd_deploy.core.arrays import F32, F64, Real
from mbv3ssd_deploy.core.spec import BoxCoder


def corners_from_centre(boxes_cxcywh: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return boxes (n, 4) given as cx, cy, w, h as corners, in the same unit and float type."""
    half = boxes_cxcywh[:, 2:] / 2
    corners = np.empty_like(boxes_cxcywh)
    corners[:, :2] = boxes_cxcywh[:, :2] - half
    corners[:, 2:] = boxes_cxcywh[:, :2] + half
    return corners


def centre_from_corners(boxes: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return boxes (n, 4) given as corners as cx, cy, w, h, in the same unit and float type."""
    centred = np.empty_like(boxes)
    centred[:, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
    centred[:, 2:] = boxes[:, 2:] - boxes[:, :2]
    return centred


def decode_boxes(loc: F32, priors_cxcywh: F32 | F64, coder: BoxCoder) -> F32:
    """Return the boxes that the offsets `loc` (P, 4) make of the priors (P, 4), as corners (P, 4).

    The formula is that of `BoxCoder` (SSD, arXiv 1512.02325, section 2.2). It is evaluated in
    float32 from priors rounded to float32, as the families' own code does it. The boxes are in the
    unit of the priors and not clipped; an offset too large for float32 makes an infinite box, which
    `core.detections` drops.

    Raises:
        ValueError: the two arrays are not both (P, 4).
    """
    if loc.shape != priors_cxcywh.shape or loc.ndim != 2 or loc.shape[1] != 4:
        raise ValueError(
            f"offsets {loc.shape} and priors {priors_cxcywh.shape} are not both (P, 4)"
        )
    offsets, priors = loc.astype(np.float32), priors_cxcywh.astype(np.float32)
    decoded = np.empty_like(offsets)
    with np.errstate(over="ignore", invalid="ignore"):
        shift = offsets[:, :2] * coder.centre_variance * priors[:, 2:]
        decoded[:, :2] = shift + priors[:, :2]
        log_size = offsets[:, 2:] * coder.size_variance
        if coder.max_log_size is not None:
            log_size = np.minimum(log_size, coder.max_log_size)
        if coder.min_log_size is not None:
            log_size = np.maximum(log_size, coder.min_log_size)
        decoded[:, 2:] = np.exp(log_size) * priors[:, 2:]
        return corners_from_centre(decoded)


def iou_matrix(
    a: npt.NDArray[Real], b: npt.NDArray[Real], epsilon: float = 0.0
) -> npt.NDArray[Real]:
    """Return the intersection over union (n, m) of boxes `a` (n, 4) with `b` (m, 4), as corners.

    IoU = intersection / (area a + area b - intersection + epsilon), in the boxes' own unit and
    float type. A box with a negative side has no area. Where the union is 0, or too large for the
    float type, the IoU is 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        shared = _overlap(a, b, 0) * _overlap(a, b, 1)
        union = _areas(a)[:, None] + _areas(b)[None, :] - shared + epsilon
    iou = np.zeros((len(a), len(b)), dtype=a.dtype)
    np.divide(shared, union, out=iou, where=(union > 0) & np.isfinite(union))
    return iou


def _overlap(a: npt.NDArray[Real], b: npt.NDArray[Real], axis: int) -> npt.NDArray[Real]:
    """Return how long the boxes' common side along x (0) or y (1) is, (n, m)."""
    # one plane at a time: arrays (n, m, 2) would take twice as long
    first = np.maximum(a[:, None, axis], b[None, :, axis])
    last: npt.NDArray[Real] = np.minimum(a[:, None, axis + 2], b[None, :, axis + 2])
    last -= first
    np.maximum(last, 0, out=last)
    return last


def _areas(boxes: npt.NDArray[Real]) -> npt.NDArray[Real]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: npt.NDArray[Real] = sides[:, 0] * sides[:, 1]
    return areas
