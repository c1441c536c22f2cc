"""What every runtime takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mbv3ssd_deploy.core.arrays import F32


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a runtime made of a batch.

    Attributes:
        runtime: name and version, such as "ncnn 1.0.20261020".
        provider: what really ran, read back from the runtime: "cpu", "CUDAExecutionProvider".
        tensors: read-only float32 arrays by output name; `loc` (N,P,4) raw offsets and `conf`
            (N,P,C) logits are always there.
        seconds: time of the computation alone, without loading the model.
    """

    runtime: str
    provider: str
    tensors: Mapping[str, F32]
    seconds: float


class Runtime(Protocol):
    """What all runtimes can do."""

    def run(self, batch: F32) -> RunResult:
        """Return the raw heads of `batch`, float32 (N,3,H,W), for any N of 1 or more.

        Raises:
            RuntimeFailedError: the runtime refused the model or crashed.
        """


def check_batch(batch: F32) -> None:
    """Check the shape and type that `Runtime.run` asks for.

    Raises:
        ValueError: with what `batch` is instead.
    """
    if batch.ndim != 4 or batch.shape[0] < 1 or batch.shape[1] != 3:
        raise ValueError(f"the batch has shape {batch.shape}, not (N,3,H,W)")
    if batch.dtype != np.float32:
        raise ValueError(f"the batch is {batch.dtype}, not float32")


def frozen(array: F32) -> F32:
    """Return `array` contiguous and read-only."""
    out = np.ascontiguousarray(array, dtype=np.float32)
    out.setflags(write=False)
    return out
