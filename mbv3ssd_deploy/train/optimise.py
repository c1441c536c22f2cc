"""Which weights learn, how fast, and along which schedule."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from mbv3ssd_deploy.nets.ssd import SsdNet
from mbv3ssd_deploy.train.recipes import Algorithm, Freeze, Recipe, Schedule

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Part(NamedTuple):
    """Modules whose weights learn at the same rate: `share` times that of the heads."""

    modules: tuple[nn.Module, ...]
    share: float


def parts_of_detector(net: SsdNet, recipe: Recipe) -> tuple[Part, ...]:
    """Return backbone, extras and heads with their shares of the learning rate."""
    return (
        Part((net.backbone.features, net.backbone.rest), recipe.backbone_lr),
        Part((net.backbone.extra, net.backbone.first_norm), recipe.extras_lr),
        Part((net.head,), 1.0),
    )


def build_optimiser(parts: Sequence[Part], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser over all weights of `parts` that are not frozen.

    One group for each part and each kind: weights of convolutions and linear layers decay, norms
    and biases do not. `set_learning_rate` multiplies the groups' shares.
    """
    groups = list(_parameter_groups(parts, recipe.weight_decay))
    if recipe.algorithm is Algorithm.ADAMW:
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its own share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of the heads at `step` (from 0): a pure function, nothing to save.

    It rises linearly over the warm-up and falls by the recipe's schedule, which runs over all
    steps, those of the warm-up included.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(recipe.warmup_epochs * steps_per_epoch, total / 2)
    rise = min(1.0, (step + 1) / (warmup + 1))
    done = step / total
    if recipe.schedule is Schedule.COSINE:
        fall = recipe.final_lr_share + (1 - recipe.final_lr_share) * 0.5 * (
            1 + math.cos(math.pi * done)
        )
    else:
        fall = recipe.gamma ** bisect.bisect_right(recipe.milestones, done)
    return recipe.lr * rise * fall


def freeze_parts(net: SsdNet, freeze: Freeze) -> None:
    """Take the frozen parts out of training: no gradients from now on."""
    for part in _frozen_parts(net, freeze):
        part.requires_grad_(requires_grad=False)


def set_training_mode(net: SsdNet, recipe: Recipe) -> None:
    """Put `net` in training mode and what is frozen in eval mode.

    Without the second half the BatchNorm statistics of a frozen part would go on moving.
    """
    net.train()
    for part in _frozen_parts(net, recipe.freeze):
        part.eval()
    if recipe.freeze_norms:
        for module in net.modules():
            if isinstance(module, _NORMS):
                module.eval()


def set_norm_momentum(net: nn.Module, momentum: float) -> None:
    """Give every BatchNorm of `net` this momentum."""
    for module in net.modules():
        if isinstance(module, _NORMS):
            module.momentum = momentum


def _frozen_parts(net: SsdNet, freeze: Freeze) -> list[nn.Module]:
    if freeze is Freeze.BACKBONE:
        return [net.backbone.features, net.backbone.rest]
    return [net.backbone] if freeze is Freeze.ALL_BUT_HEADS else []


def _parameter_groups(parts: Sequence[Part], weight_decay: float) -> Iterator[dict[str, object]]:
    for part in parts:
        learning = [p for module in part.modules for p in module.parameters() if p.requires_grad]
        # norms and biases are vectors
        for weights, decay in (
            ([p for p in learning if p.ndim > 1], weight_decay),
            ([p for p in learning if p.ndim <= 1], 0.0),
        ):
            if weights:
                yield {"params": weights, "weight_decay": decay, "share": part.share}
