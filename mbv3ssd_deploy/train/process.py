"""Where a training runs: its device, its processes and the workers that prepare images.

`torchrun` starts several processes that train one net and names them in the environment (RANK,
WORLD_SIZE, LOCAL_RANK); without it there is one process, and every function here still works.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from mbv3ssd_deploy.data.loader import start_worker
from mbv3ssd_deploy.errors import RuntimeUnavailableError
from mbv3ssd_deploy.train.config import Precision

Item = TypeVar("Item")
_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this process, from 0.
        size: the number of processes.
        local_rank: the rank among the processes of this machine; the GPU that it uses.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and reports progress."""
        return self.rank == 0

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over all processes; `values` may be overwritten."""
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


def world_from_environment() -> World:
    """Return rank and world size of this process as `torchrun` gives them."""
    return World(*(int(os.environ.get(name, default)) for name, default in _VARIABLES))


@contextlib.contextmanager
def training_process(device: str, threads: int | None) -> Iterator[tuple[World, torch.device]]:
    """Yield the world and this process's device; the processes are connected during the block.

    They use NCCL on GPUs, gloo on CPUs.

    Raises:
        RuntimeUnavailableError: there is no such device.
    """
    world = world_from_environment()
    found = device_named(device, world)
    if threads is not None:
        torch.set_num_threads(threads)
    if world.size == 1:
        yield world, found
        return
    dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    try:
        yield world, found
    finally:
        dist.destroy_process_group()


def device_named(name: str, world: World) -> torch.device:
    """Return the device; "auto" is a GPU where there is one, a different one in each process.

    Raises:
        RuntimeUnavailableError: `name` is not valid, or PyTorch finds no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise RuntimeUnavailableError(
            f"cannot train on a device {name!r}",
            hint="--device is auto, cpu, cuda, or cuda:1 for the second GPU",
        )
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = world.local_rank if ":" not in name else int(name.partition(":")[2])
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        build = torch.version.cuda or "none"
        raise RuntimeUnavailableError(
            f"PyTorch {torch.__version__} sees no GPU number {index} (its CUDA build: {build})",
            hint="use --device cpu, or install a PyTorch built for this machine's driver",
        )
    torch.cuda.set_device(index)
    # algorithms that add in a fixed order and are not chosen by timing
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda", index)


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the type that convolutions run in; None for float32.

    Raises:
        RuntimeUnavailableError: float16 on a CPU, where gradients are not scaled.
    """
    if precision is Precision.AUTO:
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision is Precision.FP16 and device.type == "cpu":
        raise RuntimeUnavailableError(
            "fp16 trains on a GPU only", hint="use --precision float32 or bf16"
        )
    return {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(precision)


def worker_count(asked: int | None, device: torch.device) -> int:
    """Return the number of worker processes; on a CPU they share the cores with the steps."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // 2) if device.type == "cpu" else min(8, cores)


def init_worker(number: int) -> None:
    """Prepare a worker process: one thread, SIGINT ignored, ended by SIGTERM.

    Ctrl-C reaches every process of a terminal; the workers continue until the parent has saved. A
    forked worker inherits the parent's handlers, which would only record the signal.
    """
    start_worker(number)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
