"""A moving average of a net's weights and buffers: it detects better than the net that steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class MovingAverage:
    """The average of a net's state: after each step, average += (1 - d) * (state - average).

    d grows from 0 to `decay` as (1 + steps) / (10 + steps), so that the random start is forgotten.
    Whole numbers (BatchNorm's counters) are copied.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        """Start from the present state of `net`.

        Raises:
            ValueError: `decay` is not within [0, 1).
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"a decay of {decay} is not within [0, 1)")
        self.decay = decay
        self.steps = 0
        self.state = {key: value.detach().clone() for key, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the state of `net` after a step."""
        weight = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        new = net.state_dict()
        floats = [key for key, value in self.state.items() if value.is_floating_point()]
        averages = [self.state[key] for key in floats]
        torch._foreach_lerp_(averages, [new[key] for key in floats], weight)
        for key in self.state.keys() - set(floats):
            self.state[key].copy_(new[key])

    def restore(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from a state that was saved."""
        for key, value in self.state.items():
            value.copy_(state[key])
        self.steps = steps
