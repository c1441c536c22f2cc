"""The reference: the checkpoint in PyTorch on the CPU, with the input of its own spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.runtimes.torch_model import TorchModel
from mbv3ssd_deploy.verification.report import LeftOut

CHUNK = 8
"""How many images are in memory at once."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few images, and the output of the reference.

    Attributes:
        names: the images.
        own_inputs: (N, 3, H, W) by the checkpoint's spec; the input of the reference.
        inputs: (N, 3, H, W) by the bundle's contract; the input of every deployed runtime.
        loc: (N, P, 4) raw offsets of the reference.
        conf: (N, P, C) its logits.
        detections: its boxes by the family's own rules, one list an image.
    """

    names: tuple[str, ...]
    own_inputs: F32
    inputs: F32
    loc: F32
    conf: F32
    detections: tuple[Detections, ...]


@dataclass(slots=True)
class Reference:
    """The checkpoint in PyTorch, and the images that could be read.

    Attributes:
        spec: the checkpoint's own.
        contract: the bundle's.
        runtime: the checkpoint's net.
        used: the images that were read so far.
        skipped: those that could not be.
        boxes: how many boxes were found so far.
        ran: which PyTorch it was; empty before the first image.
        seconds: how long it took so far.
    """

    spec: DetectorSpec
    contract: DetectorSpec
    runtime: TorchModel
    used: list[str] = field(default_factory=list)
    skipped: list[LeftOut] = field(default_factory=list)
    boxes: int = 0
    ran: str = ""
    seconds: float = 0.0

    def chunks(self, paths: Sequence[Path]) -> Iterator[Chunk]:
        """Yield the images of `paths`, a few at a time; broken ones are left out and noted.

        Raises:
            DatasetError: no images, or none could be read.
        """
        for first in range(0, len(paths), CHUNK):
            images = self._read(paths[first : first + CHUNK])
            if images:
                yield self._run(images)
        if not self.used:
            reasons = [f"{left.image}: {left.reason}" for left in self.skipped]
            raise DatasetError(
                "\n  ".join(["no image to verify on", *reasons]),
                hint="--images takes one image or a folder with images",
            )

    def _read(self, paths: Sequence[Path]) -> dict[str, U8]:
        images = {}
        for path in paths:
            try:
                images[str(path)] = read_image(path)
            except DatasetError as error:
                self.skipped.append(LeftOut(str(path), error.message))
        return images

    def _run(self, images: dict[str, U8]) -> Chunk:
        own = np.stack([input_from_image(image, self.spec.input) for image in images.values()])
        result = self.runtime.run(own)
        loc, conf = result.tensors["loc"], result.tensors["conf"]
        found = tuple(
            detections_from_heads(*heads, self.spec) for heads in zip(loc, conf, strict=True)
        )
        self.used += images
        self.boxes += sum(map(len, found))
        self.ran = f"{result.engine} on {result.provider}"
        self.seconds += result.seconds
        return Chunk(
            names=tuple(images),
            own_inputs=own,
            inputs=self._contract_inputs(images, own),
            loc=loc,
            conf=conf,
            detections=found,
        )

    def _contract_inputs(self, images: dict[str, U8], own: F32) -> F32:
        """The input of the same images by the bundle's contract; priors do not matter."""
        if self.contract.input == self.spec.input:
            return own
        planes = [input_from_image(image, self.contract.input) for image in images.values()]
        return np.stack(planes)
