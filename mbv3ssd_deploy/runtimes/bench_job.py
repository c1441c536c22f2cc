"""What the measuring child is asked to do, and what it answers: both as JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.core.spec import DetectorSpec

RESULT: Final = "result.json"
SCORES: Final = "scores.npy"

NCNN_OPTIONS: Final[Mapping[str, Mapping[str, bool]]] = MappingProxyType(
    {
        "fp32": MappingProxyType({}),
        "fp16": MappingProxyType(
            {"use_fp16_packed": True, "use_fp16_storage": True, "use_fp16_arithmetic": True}
        ),
        "bf16": MappingProxyType({"use_bf16_packed": True, "use_bf16_storage": True}),
        # int8 goes here: the options below are on by default, so it is a matter of the files
    }
)
"""The options of ncnn that make a precision; those of the other ones are switched off."""

PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"torch": ("fp32",), "onnx": ("fp32",), "ncnn": tuple(NCNN_OPTIONS)}
)
"""What each runtime can compute in."""


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One line of the table: a network on a runtime, in a precision, with so many threads.

    Attributes:
        target: what the user called the network: a bundle, a .param, an .onnx.
        runtime: "torch", "onnx" or "ncnn".
        precision: one of `PRECISIONS`.
        threads: for one operator.
        device: "cpu" or "cuda".
        files: the bundle (torch), the body (onnx), or .param and .bin (ncnn).
        spec: how to prepare images and read the heads; None for a stranger's network.
        tensor: a .npy of the input (3, H, W) where there is no spec to prepare one with.
        input_name: the blob to feed (ncnn).
        heads: the blobs in which the network ends and post-processing begins (ncnn).
        ends: the blob that its own post-processing layers make of them; empty where it has none.
        classes: with the background; 0 where they are not known.
        score_threshold: what post-processing lets pass.
    """

    target: str
    runtime: str
    precision: str
    threads: int
    device: str
    files: tuple[str, ...]
    spec: DetectorSpec | None
    tensor: str = ""
    input_name: str = ""
    heads: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    classes: int = 0
    score_threshold: float = 0.0

    @property
    def title(self) -> str:
        """How tables and messages call the row, within its target."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        place = "" if self.device == "cpu" else f" {self.device}"
        return f"{self.runtime}{place} {self.precision}, {threads}"

    @property
    def clock(self) -> str:
        """Which clock measures it: a thread's own, or the one on the wall.

        One thread is charged for what it computes only, whoever else keeps the machine busy. Of
        several threads, or of a GPU, only the wall tells.
        """
        return "thread" if self.threads == 1 and self.device == "cpu" else "wall"


@dataclass(frozen=True, slots=True)
class BenchJob:
    """What one child does: `rounds` times every row, one after the other, on the images in turn.

    `images` are .npy files, RGB uint8 (H, W, 3); `warmup` rounds come before and do not count.
    """

    rows: tuple[BenchRow, ...]
    images: tuple[str, ...]
    warmup: int
    rounds: int


@dataclass(frozen=True, slots=True)
class RowProbe:
    """What a process learns that holds one row and nothing else.

    Attributes:
        engine: the runtime with its version, and what really computes.
        load_s: wall seconds from the files to a loaded network, imports not counted; the median of
            a few.
        peak_mb: the most memory that the process ever had, Python and the runtime included.
        base_mb: what it had before the network was loaded.
        has_scores: whether SCORES holds class scores (images, P, C) after the softmax.
        detections: how many it found in each image; empty without post-processing.
    """

    engine: str
    load_s: float
    peak_mb: float
    base_mb: float
    has_scores: bool
    detections: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowTimes:
    """Seconds of each round by stage; all of one length."""

    prepare: tuple[float, ...]
    network: tuple[float, ...]
    finish: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The times of all rows, in the job's order."""

    rows: tuple[RowTimes, ...]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer's own time: the median of the rounds, in seconds."""

    name: str
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """All layers of one row; `whole` is the network's median in the same process, unprofiled."""

    layers: tuple[LayerTime, ...]
    whole: float
    method: str
