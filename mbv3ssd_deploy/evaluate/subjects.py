"""What is evaluated: runtimes of one detector, seen as functions from inputs to heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime
from mbv3ssd_deploy.runtimes.types import Runtime


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a runtime made of N images.

    Attributes:
        loc: (N, P, 4) raw offsets.
        conf: (N, P, C) logits.
        deployed: what its own post-processing gave, in normalised corners, one list an image; None
            where it ends in raw heads.
        seconds: that the runtime took, without loading the model.
        ran: the runtime, its version and what it ran on.
    """

    loc: F32
    conf: F32
    deployed: tuple[Detections, ...] | None
    seconds: float
    ran: str


@dataclass(frozen=True, slots=True)
class Subject:
    """One runtime with one set of files.

    Attributes:
        name: as in `--runtimes`.
        title: for people: which weights, computed how.
        look: takes inputs (N, 3, H, W) float32.
        file_bytes: the size of the files that it loads.
    """

    name: str
    title: str
    look: Callable[[F32], Seen]
    file_bytes: int


def heads_of(runtime: Runtime) -> Callable[[F32], Seen]:
    """Return how a runtime that ends in raw heads looks at images."""

    def look(inputs: F32) -> Seen:
        result = runtime.run(inputs)
        tensors, ran = result.tensors, f"{result.runtime}, {result.provider}"
        return Seen(tensors["loc"], tensors["conf"], None, result.seconds, ran)

    return look


def heads_and_boxes_of(runtime: NcnnRuntime) -> Callable[[F32], Seen]:
    """Return how an ncnn network with DetectionOutput looks at images: both of one pass."""

    def look(inputs: F32) -> Seen:
        result, blobs = runtime.run_with(inputs, ("detection_out",))
        try:
            found = tuple(detections_from_rows(one["detection_out"]) for one in blobs)
        except ValueError as error:
            raise FormatError(f"detection_out: {error}") from error
        tensors, ran = result.tensors, f"{result.runtime}, {result.provider}"
        return Seen(tensors["loc"], tensors["conf"], found, result.seconds, ran)

    return look
