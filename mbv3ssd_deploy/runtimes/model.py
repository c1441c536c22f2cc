"""One runnable model: what every runtime takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a model computed for a batch of N images.

    Attributes:
        engine: name and version of the runtime, such as "ncnn 1.0.20261020".
        provider: what it really ran on, read back from the runtime: "cpu", "CUDAExecutionProvider".
        tensors: read-only float32 arrays by output name; always `loc` (N, P, 4), raw offsets, and
            `conf` (N, P, C), logits.
        seconds: time of the computation, without loading the model.
        detections: normalised, one list per image, if the model ends in `detection_out`.
        blobs: the other blobs that were asked for, by name, for each image (ncnn only).
    """

    engine: str
    provider: str
    tensors: Mapping[str, F32]
    seconds: float
    detections: tuple[Detections, ...] | None = None
    blobs: tuple[Mapping[str, F32], ...] = ()

    @property
    def loc(self) -> F32:
        """Raw offsets (N, P, 4)."""
        return self.tensors["loc"]

    @property
    def conf(self) -> F32:
        """Logits (N, P, C)."""
        return self.tensors["conf"]

    @property
    def ran(self) -> str:
        """The runtime, its version and what it ran on."""
        return f"{self.engine}, {self.provider}"


class Model(Protocol):
    """A network in one runtime, loaded and ready to run."""

    def run(self, batch: F32) -> Output:
        """Return the output for `batch`, float32 (N, 3, H, W), for any N of 1 or more.

        Raises:
            RuntimeFailedError: the runtime refused the model or crashed.
            FormatError: its `detection_out` is not a list of detections.
        """


def check_batch(batch: F32) -> None:
    """Check the shape and type of the input of `Model.run`.

    Raises:
        ValueError: not float32 (N, 3, H, W).
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
