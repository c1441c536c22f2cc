"""A net with all that makes it learn, and the state of it all."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.nets.ssd import SsdNet
from mbv3ssd_deploy.train.distributed import Team
from mbv3ssd_deploy.train.ema import MovingAverage
from mbv3ssd_deploy.train.loop import Stepper
from mbv3ssd_deploy.train.optimise import (
    build_optimiser,
    freeze_parts,
    parts_of_detector,
    set_norm_momentum,
)
from mbv3ssd_deploy.train.recipes import Recipe
from mbv3ssd_deploy.train.snapshot import RunTensors


@dataclass(frozen=True, slots=True)
class Learner:
    """A net that learns.

    Attributes:
        net: the net that steps.
        deployed: the net that is measured and written: the average where there is one, else `net`.
        stepper: makes the steps.
    """

    net: SsdNet
    deployed: SsdNet
    stepper: Stepper

    def net_to_deploy(self) -> SsdNet:
        """Return the net to measure and to write, as it is after the last step, in eval mode."""
        if self.stepper.average is not None:
            self.deployed.load_state_dict(self.stepper.average.state)
        return self.deployed.eval()

    def tensors(self) -> RunTensors:
        """Return the state of everything that a step changes."""
        average = self.stepper.average
        return RunTensors(
            net=self.net.state_dict(),
            optimiser=self.stepper.optimiser.state_dict(),
            average=None if average is None else average.state,
            average_steps=0 if average is None else average.steps,
            scaler=self.stepper.scaler.state_dict(),
            random=torch.get_rng_state(),
        )

    def restore(self, tensors: RunTensors) -> None:
        """Take up the state of a run that was saved."""
        self.net.load_state_dict(tensors.net)
        self.stepper.optimiser.load_state_dict(dict(tensors.optimiser))
        if self.stepper.average is not None and tensors.average is not None:
            self.stepper.average.restore(tensors.average, tensors.average_steps)
        self.stepper.scaler.load_state_dict(dict(tensors.scaler))
        torch.set_rng_state(tensors.random)


def build_learner(  # noqa: PLR0913 -- a net, its recipe, and where it runs
    net: SsdNet,
    spec: DetectorSpec,
    recipe: Recipe,
    *,
    team: Team,
    device: torch.device,
    autocast: torch.dtype | None,
) -> Learner:
    """Return `net`, on `device`, with optimiser, average and everything else that `recipe` wants.

    Of several processes on GPUs, BatchNorm takes its statistics over all of them; on CPUs, each
    process takes its own (PyTorch's SyncBatchNorm needs a GPU).
    """
    freeze_parts(net, recipe.freeze)
    set_norm_momentum(net, recipe.bn_momentum)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    deployed = copy.deepcopy(net) if recipe.ema_decay else net
    if team.size > 1 and device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    model: nn.Module = net
    if team.size > 1:
        ids = [device] if device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(net, device_ids=ids)
    priors = torch.from_numpy(build_priors(spec.priors)).float().to(device)
    stepper = Stepper(
        model=model,
        priors_cxcywh=priors,
        coder=spec.coder,
        recipe=recipe,
        optimiser=build_optimiser(parts_of_detector(net, recipe), recipe),
        scaler=torch.amp.GradScaler(device.type, enabled=autocast is torch.float16),
        average=MovingAverage(net, recipe.ema_decay) if recipe.ema_decay else None,
        team=team,
        device=device,
        autocast=autocast,
    )
    return Learner(net, deployed, stepper)
