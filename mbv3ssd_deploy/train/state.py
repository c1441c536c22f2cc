"""The state of a training: a net, how fast its parts are trained, and one step."""

from __future__ import annotations

import bisect
import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.train.config import Algorithm, Recipe, Schedule
from mbv3ssd_deploy.train.loss import LossSums
from mbv3ssd_deploy.train.process import World
from mbv3ssd_deploy.train.snapshot import RunTensors

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Part(NamedTuple):
    """Modules that are trained alike: at `share` times the learning rate, or not at all."""

    modules: tuple[nn.Module, ...]
    share: float = 1.0
    frozen: bool = False


class StepLoss(NamedTuple):
    """The loss of a step over all processes.

    Attributes:
        means: the terms of the loss, divided.
        divisor: what they were divided by, or 0.
        stop: whether any process was asked to stop.
    """

    means: tuple[float, ...]
    divisor: float
    stop: bool

    @property
    def is_finite(self) -> bool:
        """Whether no term is NaN or infinite."""
        return all(map(math.isfinite, self.means))


class TrainState:
    """A net, and everything else that a step changes.

    With several processes on GPUs, BatchNorm takes its statistics over all of them; on CPUs, each
    process takes its own (PyTorch's SyncBatchNorm needs a GPU).

    Args:
        net: to train; moved to `device`.
        recipe: how it is trained.
        parts_of: the net -> its parts.
        world: the processes.
        device: of the net.
        autocast: the type of convolutions; None for float32.
    """

    def __init__(  # noqa: PLR0913 -- a net, its recipe, and where it runs
        self,
        net: nn.Module,
        recipe: Recipe,
        parts_of: Callable[[Any], Sequence[Part]],
        *,
        world: World,
        device: torch.device,
        autocast: torch.dtype | None = None,
    ) -> None:
        for norm in _norms(net):
            norm.momentum = recipe.bn_momentum
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe, self.world, self.device, self._autocast = recipe, world, device, autocast
        self._deployed = copy.deepcopy(net) if recipe.ema_decay else net
        on_gpu = device.type == "cuda"
        if world.size > 1 and on_gpu:
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        self.net = net
        parts = parts_of(net)
        self._frozen = [module for part in parts if part.frozen for module in part.modules]
        for module in self._frozen:
            module.requires_grad_(requires_grad=False)
        self._model = net
        if world.size > 1:
            ids = [device] if on_gpu else None
            self._model = nn.parallel.DistributedDataParallel(net, device_ids=ids)
        self.optimiser = build_optimiser(parts, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
        self.average = MovingAverage(net, recipe.ema_decay) if recipe.ema_decay else None

    def set_training_mode(self) -> None:
        """Put the net into training mode, and what is frozen into eval mode.

        Without gradients alone, the BatchNorm statistics of a frozen part would still change.
        """
        self.net.train()
        for module in (*self._frozen, *(_norms(self.net) if self.recipe.freeze_norms else ())):
            module.eval()

    def forward(self, inputs: torch.Tensor) -> Any:  # noqa: ANN401 -- whatever the net returns
        """Return the net's outputs for `inputs`, with gradients."""
        autocast: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if self._autocast is not None:
            autocast = torch.autocast(self.device.type, self._autocast)
        moved = inputs.to(self.device, non_blocking=True)
        with autocast:
            # channels last: nearly twice as fast on a CPU (docs/decisions.md)
            return self._model(moved.contiguous(memory_format=torch.channels_last))

    def train_step(self, sums: LossSums, *, stop: bool = False) -> StepLoss:
        """Move the weights by the gradient of `sums`, unless a term is NaN or infinite.

        The terms are divided by the divisors of all processes' batches, so that several processes
        do what one would do with all their images.

        Args:
            sums: of this process's batch, from `forward`.
            stop: whether this process was asked to stop; the result is the same in every process.
        """
        values = [value.detach().double() for value in (*sums.terms, sums.divisor)]
        asked = values[0].new_full((), float(stop))
        *terms, divisor, stops = self.world.summed(torch.stack([*values, asked])).tolist()
        divided_by = max(divisor, 1.0)
        loss = StepLoss(tuple(term / divided_by for term in terms), divisor, stops > 0)
        if loss.is_finite:
            # DistributedDataParallel averages the gradients, and their sum is needed
            self._move(torch.stack(sums.terms).sum() * (self.world.size / divided_by))
        return loss

    def _move(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm:
            self._scaler.unscale_(self.optimiser)
            weights = [p for group in self.optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.recipe.clip_norm)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self.average is not None:
            self.average.update(self.net)

    def eval_net(self) -> nn.Module:
        """Return the net to validate and to write, as of the last step, in eval mode.

        That is the moving average, if there is one.
        """
        if self.average is not None:
            self._deployed.load_state_dict(self.average.state)
        return self._deployed.eval()

    def tensors(self) -> RunTensors:
        """Return the state of everything that a step changes."""
        on_gpu = self.device.type == "cuda"
        return RunTensors(
            net=self.net.state_dict(),
            optimiser=self.optimiser.state_dict(),
            average=None if self.average is None else self.average.state,
            average_steps=0 if self.average is None else self.average.steps,
            scaler=self._scaler.state_dict(),
            random=torch.get_rng_state(),
            cuda_random=torch.cuda.get_rng_state(self.device) if on_gpu else None,
        )

    def restore(self, tensors: RunTensors, where: str) -> None:
        """Continue from the saved state of a run, from the file `where`.

        Raises:
            CheckpointError: it does not fit the net.
        """
        try:
            self.net.load_state_dict(tensors.net)
            self.optimiser.load_state_dict(dict(tensors.optimiser))
            if self.average is not None and tensors.average is not None:
                self.average.restore(tensors.average, tensors.average_steps)
            self._scaler.load_state_dict(dict(tensors.scaler))
            torch.set_rng_state(tensors.random)
            if tensors.cuda_random is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors.cuda_random, self.device)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            message = f"the saved state does not fit the net: {error}"
            raise CheckpointError(message, where=where) from error


class MovingAverage:
    """The moving average of a net's state, which detects better than the trained net itself.

    After each step, average += (1 - d) * (state - average); d grows from 0 to `decay` as
    (1 + steps) / (10 + steps), so that the random start is forgotten. Integers (BatchNorm's
    counters) are copied.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {key: value.detach().clone() for key, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Add the state of `net` after a step."""
        weight = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        new = net.state_dict()
        floats = [key for key, value in self.state.items() if value.is_floating_point()]
        averages = [self.state[key] for key in floats]
        torch._foreach_lerp_(averages, [new[key] for key in floats], weight)
        for key in self.state.keys() - set(floats):
            self.state[key].copy_(new[key])

    def restore(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Continue from a saved state."""
        for key, value in self.state.items():
            value.copy_(state[key])
        self.steps = steps


def build_optimiser(parts: Sequence[Part], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser of all weights of `parts` that require a gradient.

    One group for each part and kind: weights of convolutions and linear layers decay, norms and
    biases do not. `set_learning_rate` multiplies the groups' shares.
    """
    groups: list[dict[str, Any]] = []
    for part in parts:
        trained = [p for module in part.modules for p in module.parameters() if p.requires_grad]
        # norms and biases are vectors
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        for weights, decay in ((matrices, recipe.weight_decay), (vectors, 0.0)):
            if weights:
                groups.append({"params": weights, "weight_decay": decay, "share": part.share})
    if recipe.algorithm is Algorithm.ADAMW:
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its own share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate at `step` (from 0): a pure function, so there is nothing to save.

    It rises linearly over the warm-up and falls by the recipe's schedule, which runs over all
    steps, the warm-up included.
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


def _norms(net: nn.Module) -> Iterator[nn.BatchNorm2d | nn.SyncBatchNorm]:
    return (module for module in net.modules() if isinstance(module, _NORMS))
