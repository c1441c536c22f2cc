"""SSD's loss: priors matched to objects, smooth L1 on offsets, cross-entropy with hard negatives.

Source: SSD, arXiv 1512.02325, section 2.2: "Matching strategy", equations 1 to 3 and "Hard negative
mining". Boxes are normalised by the image's sides; corners are x1, y1, x2, y2, centre form is cx,
cy, w, h.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from mbv3ssd_deploy.core.spec import BoxCoder

_ROUNDS = 3
"""How often boxes that lost their best prior to a better fit choose the next one."""
_TAKEN = 2.0
"""Added to the IoU of a matched pair: above every IoU of an unmatched one."""
_LEAST_SIZE = 1e-6
"""The smallest side that is encoded: a millionth of the image, so that its logarithm is finite."""


class Truths(NamedTuple):
    """The objects of a batch, padded to equal number.

    `boxes` (N, M, 4) float32, normalised corners; `labels` (N, M) int64, 0 for padding.
    """

    boxes: torch.Tensor
    labels: torch.Tensor


class Targets(NamedTuple):
    """What every prior should predict.

    `labels` (N, P) int64, 0 for the background; `offsets` (N, P, 4), valid where a label is not 0.
    """

    labels: torch.Tensor
    offsets: torch.Tensor


class LossSums(NamedTuple):
    """The loss of a batch before it is divided, differentiable.

    Attributes:
        terms: scalars, each a sum over the batch.
        divisor: a scalar, matched priors of a detector or images of a classifier, by which the
            terms are divided after all have been summed over all processes.
    """

    terms: tuple[torch.Tensor, ...]
    divisor: torch.Tensor


def match_priors(
    truths: Truths, priors_cxcywh: torch.Tensor, coder: BoxCoder, *, threshold: float = 0.5
) -> Targets:
    """Return the targets of every prior.

    Each box gets the prior that overlaps it best, however little, as long as there is one; where
    two boxes have the same best prior, the better fit gets it, the other takes its next best. Every
    other prior is matched to the box it overlaps best if the IoU reaches `threshold`.

    `priors_cxcywh` (P, 4) are normalised and in the order of the heads.
    """
    count, most = truths.labels.shape
    if most == 0:
        labels = truths.labels.new_zeros((count, len(priors_cxcywh)))
        return Targets(labels, truths.boxes.new_zeros((*labels.shape, 4)))
    iou = _pairwise_iou(truths.boxes, _corners_from_centre(priors_cxcywh))
    iou = iou * (truths.labels > 0)[:, :, None]
    best, owner = _with_best_priors(iou).max(dim=1)
    labels = truths.labels.gather(1, owner) * (best >= threshold)
    boxes = truths.boxes.gather(1, owner[:, :, None].expand(-1, -1, 4))
    return Targets(labels, _encode_boxes(boxes, priors_cxcywh, coder))


def ssd_loss(
    loc: torch.Tensor,
    conf: torch.Tensor,
    targets: Targets,
    *,
    negatives_per_positive: float = 3.0,
    smooth_l1_beta: float = 1.0,
) -> LossSums:
    """Return localisation and classification loss, and the number of matched priors.

    Localisation is summed over matched priors and coordinates, classification over matched priors
    and hard negatives: in each image, the background priors with the highest background log-loss,
    `negatives_per_positive` for each matched prior; an image without objects counts as if it had
    one. Computed in float32 whatever the type of the heads.

    Args:
        loc: raw offsets (N, P, 4).
        conf: class logits (N, P, C), background first.
        targets: of every prior.
        negatives_per_positive: see above.
        smooth_l1_beta: where smooth L1 turns from a parabola into a line.
    """
    positive = targets.labels > 0
    # masks, not indices: the gradient of an index is summed in no fixed order on a GPU
    by_offset = functional.smooth_l1_loss(
        loc.float(), targets.offsets, reduction="none", beta=smooth_l1_beta
    )
    localisation = by_offset.masked_fill(~positive[:, :, None], 0.0).sum()
    by_prior = functional.cross_entropy(
        conf.float().flatten(0, 1), targets.labels.flatten(), reduction="none"
    ).view_as(targets.labels)
    counted = positive | _hard_negatives(by_prior.detach(), positive, negatives_per_positive)
    classification = by_prior.masked_fill(~counted, 0.0).sum()
    return LossSums((localisation, classification), positive.sum())


def _hard_negatives(
    by_prior: torch.Tensor, positive: torch.Tensor, per_positive: float
) -> torch.Tensor:
    """Return (N, P), true at the background priors with the highest loss of their image.

    For a background prior, the cross-entropy is its background log-loss.
    """
    ranked = by_prior.masked_fill(positive, -torch.inf).argsort(dim=1, descending=True)
    wanted = (positive.sum(dim=1, keepdim=True).clamp(min=1) * per_positive).long()
    place = torch.arange(ranked.shape[1], device=ranked.device)[None, :]
    chosen = torch.zeros_like(positive).scatter_(1, ranked, place < wanted)
    return chosen & ~positive


def _with_best_priors(iou: torch.Tensor) -> torch.Tensor:
    """Return `iou` (N, M, P) with `_TAKEN` added to the pairs of boxes and their best priors."""
    served = torch.zeros(iou.shape[:2], dtype=torch.bool, device=iou.device)
    free = iou
    for _ in range(_ROUNDS):
        overlap, choice = free.max(dim=2)
        asking = (overlap > 0) & ~served
        won = asking & ~_outbid(overlap, choice, asking)
        iou = iou.scatter_add(2, choice[:, :, None], _TAKEN * won[:, :, None].to(iou.dtype))
        served |= won
        if not bool((asking & ~won).any()):
            break
        free = iou.masked_fill((iou >= _TAKEN).any(dim=1, keepdim=True), 0.0)
    return iou


def _outbid(overlap: torch.Tensor, choice: torch.Tensor, asking: torch.Tensor) -> torch.Tensor:
    """Return (N, M), true where another box chose the same prior and fits it better.

    Of two equal fits, the first box counts as the better one.
    """
    mine, other = overlap[:, :, None], overlap[:, None, :]
    number = torch.arange(overlap.shape[1], device=overlap.device)
    earlier = number[None, :] < number[:, None]
    better = (other > mine) | ((other == mine) & earlier)
    rivals = (choice[:, :, None] == choice[:, None, :]) & asking[:, None, :]
    return (rivals & better).any(dim=2)


def _pairwise_iou(boxes: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Return the IoU (N, M, P) of `boxes` (N, M, 4) with `priors` (P, 4), both corners.

    Where the union is empty, the IoU is 0.
    """
    a, b = boxes[:, :, None, :], priors[None, None, :, :]
    wide = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    high = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    shared = wide.clamp_(min=0) * high.clamp_(min=0)
    union = _areas(a) + _areas(b) - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def _areas(corners: torch.Tensor) -> torch.Tensor:
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])


def _corners_from_centre(boxes_cxcywh: torch.Tensor) -> torch.Tensor:
    half = boxes_cxcywh[..., 2:] / 2
    return torch.cat((boxes_cxcywh[..., :2] - half, boxes_cxcywh[..., :2] + half), dim=-1)


def _encode_boxes(
    boxes: torch.Tensor, priors_cxcywh: torch.Tensor, coder: BoxCoder
) -> torch.Tensor:
    """Return the offsets (..., P, 4) from the priors (P, 4) to `boxes` (..., P, 4), corners.

    The inverse of `core.boxes.decode_boxes`; sides below a millionth of the image count as that.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp(min=_LEAST_SIZE)
    shift = (centres - priors_cxcywh[:, :2]) / priors_cxcywh[:, 2:] / coder.centre_variance
    growth = torch.log(sizes / priors_cxcywh[:, 2:]) / coder.size_variance
    return torch.cat((shift, growth), dim=-1)
