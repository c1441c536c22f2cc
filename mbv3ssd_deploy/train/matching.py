"""Which prior answers for which object: the targets of a training step, for a whole batch at once.

SSD's rule (arXiv 1512.02325, section 2.2, "Matching strategy"): every box gets the prior that
overlaps it best; beyond that, every prior that overlaps a box enough answers for its best box.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from mbv3ssd_deploy.core.spec import BoxCoder
from mbv3ssd_deploy.train.boxes import corners_from_centre, encode_boxes, pairwise_iou

_ROUNDS = 3
"""How often boxes that lost their best prior to a better fit may ask for the next one."""
_TAKEN = 2.0
"""Added to the IoU of a pair that is settled: above every IoU that is not."""


class Truths(NamedTuple):
    """The objects of a batch, padded to equal number.

    `boxes` (N, M, 4) float32, normalised corners; `labels` (N, M) int64, 0 where there is none.
    """

    boxes: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Truths:
        """Return the same on `device`."""
        return Truths(
            self.boxes.to(device, non_blocking=True), self.labels.to(device, non_blocking=True)
        )


class Targets(NamedTuple):
    """What every prior should say.

    `labels` (N, P) int64, 0 for the background; `offsets` (N, P, 4), of meaning where a label is.
    """

    labels: torch.Tensor
    offsets: torch.Tensor


def match_priors(
    truths: Truths, priors_cxcywh: torch.Tensor, coder: BoxCoder, *, threshold: float = 0.5
) -> Targets:
    """Return the targets of every prior.

    Each box gets the prior that overlaps it best, whatever that overlap is, as long as there is
    one; where two boxes want the same prior, the better fit gets it and the other takes its next
    best. Every other prior answers for the box it overlaps best if the IoU reaches `threshold`.

    Args:
        truths: the objects.
        priors_cxcywh: (P, 4) normalised, in the order of the heads.
        coder: how a box becomes offsets.
        threshold: the IoU from which on a prior answers for a box.
    """
    count, most = truths.labels.shape
    if most == 0:
        labels = truths.labels.new_zeros((count, len(priors_cxcywh)))
        return Targets(labels, truths.boxes.new_zeros((*labels.shape, 4)))
    iou = pairwise_iou(truths.boxes, corners_from_centre(priors_cxcywh))
    iou = iou * (truths.labels > 0)[:, :, None]
    best, owner = _with_best_priors(iou).max(dim=1)
    labels = truths.labels.gather(1, owner) * (best >= threshold)
    boxes = truths.boxes.gather(1, owner[:, :, None].expand(-1, -1, 4))
    return Targets(labels, encode_boxes(boxes, priors_cxcywh, coder))


def _with_best_priors(iou: torch.Tensor) -> torch.Tensor:
    """Return `iou` (N, M, P) with the pairs of boxes and their best priors lifted by `_TAKEN`."""
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
    """Return (N, M), true where another box wants the same prior and fits it better.

    Of two equal fits, the first box counts as the better one.
    """
    mine, other = overlap[:, :, None], overlap[:, None, :]
    number = torch.arange(overlap.shape[1], device=overlap.device)
    earlier = number[None, :] < number[:, None]
    better = (other > mine) | ((other == mine) & earlier)
    rivals = (choice[:, :, None] == choice[:, None, :]) & asking[:, None, :]
    return (rivals & better).any(dim=2)
