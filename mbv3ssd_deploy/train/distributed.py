"""Several processes that train one net: who this one is, and what they tell each other.

`torchrun` starts the processes and names them in the environment (RANK, WORLD_SIZE, LOCAL_RANK);
without it a process is alone, and every function here is a plain one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        local_rank: this process among those of its machine; the GPU it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over all processes; `values` itself may be overwritten."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gathered(self, items: list[Item]) -> list[list[Item]]:
        """Return the lists of all processes, by rank. They are pickled: a few megabytes at most."""
        if self.size == 1:
            return [items]
        lists: list[list[Item]] = [[] for _ in range(self.size)]
        dist.all_gather_object(lists, items)
        return lists


def team_from_environment() -> Team:
    """Return who this process is, as `torchrun` says it in the environment."""
    numbers = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    return Team(*numbers)


@contextlib.contextmanager
def joined(team: Team, device: torch.device) -> Iterator[None]:
    """Connect with the other processes for the time of the block: NCCL on GPUs, gloo on CPUs."""
    if team.size == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
