"""SSD's loss: smooth L1 on the offsets, cross-entropy with hard negatives on the classes.

Source: SSD, arXiv 1512.02325, section 2.2, equations 1 to 3 and "Hard negative mining".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from mbv3ssd_deploy.train.matching import Targets


class LossSums(NamedTuple):
    """The loss of a batch before it is divided: scalars, differentiable but for `matched`.

    `localisation` is the sum over matched priors and coordinates, `classification` the sum over
    matched priors and hard negatives, `matched` the number of matched priors.
    """

    localisation: torch.Tensor
    classification: torch.Tensor
    matched: torch.Tensor


def loss_sums(
    loc: torch.Tensor,
    conf: torch.Tensor,
    targets: Targets,
    *,
    negatives_per_positive: float = 3.0,
    smooth_l1_beta: float = 1.0,
) -> LossSums:
    """Return the sums of both losses over the batch, and what to divide them by.

    In each image, the background priors with the highest background log-loss count as negatives,
    `negatives_per_positive` for each matched prior; an image without objects counts as if it had
    one. Computed in float32 whatever the heads are in.

    Args:
        loc: raw offsets (N, P, 4).
        conf: class logits (N, P, C), background first.
        targets: of every prior.
        negatives_per_positive: how many negatives stand against each matched prior.
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
    return LossSums(localisation, classification, positive.sum())


def _hard_negatives(
    by_prior: torch.Tensor, positive: torch.Tensor, per_positive: float
) -> torch.Tensor:
    """Return (N, P), true at the background priors whose loss is highest in their image.

    For a background prior, the cross-entropy is its background log-loss.
    """
    ranked = by_prior.masked_fill(positive, -torch.inf).argsort(dim=1, descending=True)
    wanted = (positive.sum(dim=1, keepdim=True).clamp(min=1) * per_positive).long()
    place = torch.arange(ranked.shape[1], device=ranked.device)[None, :]
    chosen = torch.zeros_like(positive).scatter_(1, ranked, place < wanted)
    return chosen & ~positive
