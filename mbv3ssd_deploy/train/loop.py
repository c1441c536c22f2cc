"""One step of training: a batch goes through the net, and the weights move."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from mbv3ssd_deploy.core.spec import BoxCoder
from mbv3ssd_deploy.train.batches import Batch
from mbv3ssd_deploy.train.distributed import Team
from mbv3ssd_deploy.train.ema import MovingAverage
from mbv3ssd_deploy.train.loss import loss_sums
from mbv3ssd_deploy.train.matching import match_priors
from mbv3ssd_deploy.train.recipes import Recipe


class StepLoss(NamedTuple):
    """The loss of a step over all processes.

    `localisation` and `classification` by matched prior; `matched` is their number; `stop` tells
    whether any process was asked to stop.
    """

    localisation: float
    classification: float
    matched: float
    stop: bool

    @property
    def is_finite(self) -> bool:
        """Whether both losses are numbers."""
        return math.isfinite(self.localisation) and math.isfinite(self.classification)


@dataclass(frozen=True, slots=True)
class Stepper:
    """All that a step needs, put together once.

    Attributes:
        model: the net, or what DistributedDataParallel made of it.
        priors_cxcywh: (P, 4) on the net's device.
        coder: of the spec.
        recipe: how the loss is counted and the gradient clipped.
        optimiser: moves the weights.
        scaler: of float16 gradients; switched off elsewhere.
        average: of the weights, if there is one.
        team: the processes.
        device: where the net is.
        autocast: the type of convolutions; None for float32.
    """

    model: nn.Module
    priors_cxcywh: torch.Tensor
    coder: BoxCoder
    recipe: Recipe
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: MovingAverage | None
    team: Team
    device: torch.device
    autocast: torch.dtype | None

    def step(self, batch: Batch, *, stop: bool = False) -> StepLoss:
        """Learn from `batch`, and return its loss. Where that is no number, nothing has moved.

        The loss is divided by the matched priors of all processes' batches, so that several
        processes do what one would do with all their images.

        Args:
            batch: this process's share.
            stop: whether this process was asked to stop; every process learns of it.
        """
        truths = batch.truths.to(self.device)
        targets = match_priors(
            truths, self.priors_cxcywh, self.coder, threshold=self.recipe.match_threshold
        )
        inputs = batch.inputs.to(self.device, non_blocking=True)
        with self._autocast():
            # channels last: nearly twice as fast on a CPU (docs/decisions.md)
            loc, conf = self.model(inputs.contiguous(memory_format=torch.channels_last))
        sums = loss_sums(
            loc,
            conf,
            targets,
            negatives_per_positive=self.recipe.negatives_per_positive,
            smooth_l1_beta=self.recipe.smooth_l1_beta,
        )
        asked = torch.full((), float(stop), device=self.device)
        mine = [value.detach().float() for value in sums]
        # doubles: a count of priors must not be rounded
        loc_sum, class_sum, matched, stops = self.team.summed(
            torch.stack([*mine, asked]).double()
        ).tolist()
        divisor = max(matched, 1.0)
        loss = StepLoss(loc_sum / divisor, class_sum / divisor, matched, stops > 0)
        if loss.is_finite:
            # DistributedDataParallel takes the mean of the gradients; the loss wants their sum
            self._move((sums.localisation + sums.classification) * (self.team.size / divisor))
        return loss

    def _move(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimiser)
            weights = [p for group in self.optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.recipe.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(_bare(self.model))

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast)


def _bare(model: nn.Module) -> nn.Module:
    inner = getattr(model, "module", model)
    return inner if isinstance(inner, nn.Module) else model
