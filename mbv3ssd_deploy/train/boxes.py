"""Box arithmetic on tensors: what `core.boxes` is for arrays, for a whole batch and for training.

Corners are x1, y1, x2, y2; centre form is cx, cy, w, h; all normalised by the image's sides.
"""

from __future__ import annotations

import torch

from mbv3ssd_deploy.core.spec import BoxCoder

_LEAST_SIZE = 1e-6
"""The smallest side that is encoded: a millionth of the image, so that its logarithm is finite."""


def corners_from_centre(boxes_cxcywh: torch.Tensor) -> torch.Tensor:
    """Return boxes (..., 4) given in centre form as corners."""
    half = boxes_cxcywh[..., 2:] / 2
    return torch.cat((boxes_cxcywh[..., :2] - half, boxes_cxcywh[..., :2] + half), dim=-1)


def pairwise_iou(boxes: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Return the IoU (N, M, P) of `boxes` (N, M, 4) with `priors` (P, 4), both corners.

    Where there is no union, the IoU is 0.
    """
    a, b = boxes[:, :, None, :], priors[None, None, :, :]
    wide = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    high = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    shared = wide.clamp_(min=0) * high.clamp_(min=0)
    union = _areas(a) + _areas(b) - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def encode_boxes(boxes: torch.Tensor, priors_cxcywh: torch.Tensor, coder: BoxCoder) -> torch.Tensor:
    """Return the offsets (..., P, 4) that make `boxes` (..., P, 4) of the priors (P, 4).

    The inverse of `core.boxes.decode_boxes` (SSD, arXiv 1512.02325, section 2.2, with the coder's
    variances); sides below a millionth of the image count as that.

    Args:
        boxes: corners, one for each prior.
        priors_cxcywh: centre form.
        coder: the variances.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp(min=_LEAST_SIZE)
    shift = (centres - priors_cxcywh[:, :2]) / priors_cxcywh[:, 2:] / coder.centre_variance
    growth = torch.log(sizes / priors_cxcywh[:, 2:]) / coder.size_variance
    return torch.cat((shift, growth), dim=-1)


def _areas(corners: torch.Tensor) -> torch.Tensor:
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
