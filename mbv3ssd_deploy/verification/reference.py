"""The reference: the checkpoint in PyTorch on the CPU, seeing images through its own spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.checkpoint.load import LoadedDetector, LoadOptions, load_detector
from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads
from mbv3ssd_deploy.core.files import sha256_of_file
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.records import record_from_json
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import BundleError, DatasetError
from mbv3ssd_deploy.runtimes.torch_runtime import TorchRuntime
from mbv3ssd_deploy.verification.report import LeftOut

CHUNK = 8
"""How many images are in memory at once."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few images, and what the reference made of them.

    Attributes:
        names: the images.
        own_inputs: (N, 3, H, W) through the checkpoint's spec; what the reference saw.
        inputs: (N, 3, H, W) through the bundle's contract; what every deployed runtime sees.
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


def load_reference(bundle: Bundle, checkpoint: Path | None) -> LoadedDetector:
    """Load the checkpoint that the bundle was made from, with the flags of then.

    Args:
        bundle: knows where the checkpoint stood, and its hash.
        checkpoint: another file to hold the bundle against; its hash is not asked for.

    Raises:
        BundleError: the checkpoint has gone or has changed.
        CheckpointError: it cannot be read.
    """
    record = bundle.manifest.checkpoint
    if checkpoint is None:
        checkpoint = _recorded_checkpoint(bundle)
    elif not checkpoint.is_file():
        raise BundleError("there is no such checkpoint", where=str(checkpoint), hint=_HINT)
    if record is None:
        return load_detector(checkpoint, LoadOptions())
    where = f"{bundle.directory}: options of the checkpoint"
    options = record_from_json(LoadOptions, dict(record.options), where=where, error=BundleError)
    return load_detector(checkpoint, options)


_HINT = "name the checkpoint with --checkpoint FILE"


def _recorded_checkpoint(bundle: Bundle) -> Path:
    record, path = bundle.manifest.checkpoint, bundle.checkpoint_path
    if record is None or path is None:
        raise BundleError(
            "this bundle was made from an ONNX file and knows no checkpoint",
            where=str(bundle.directory),
            hint=_HINT,
        )
    if not path.is_file():
        raise BundleError(
            "the checkpoint that this bundle was made from is not there",
            where=str(path),
            hint=_HINT,
        )
    if sha256_of_file(path) != record.sha256:
        raise BundleError(
            "the checkpoint has changed since this bundle was made from it",
            where=str(path),
            hint=f"run `mbv3ssd-deploy export` again, or {_HINT}",
        )
    return path


@dataclass(slots=True)
class Reference:
    """PyTorch, and the images that it can see.

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
    runtime: TorchRuntime
    used: list[str] = field(default_factory=list)
    skipped: list[LeftOut] = field(default_factory=list)
    boxes: int = 0
    ran: str = ""
    seconds: float = 0.0

    def chunks(self, paths: Sequence[Path]) -> Iterator[Chunk]:
        """Yield the images of `paths`, a few at a time; broken ones are left out and noted.

        Raises:
            DatasetError: there are no images, or not one could be read.
        """
        for first in range(0, len(paths), CHUNK):
            images = self._read(paths[first : first + CHUNK])
            if images:
                yield self._seen(images)
        if not self.used:
            reasons = [f"{left.image}: {left.reason}" for left in self.skipped]
            raise DatasetError(
                "\n  ".join(["there is no image to verify on", *reasons]),
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

    def _seen(self, images: dict[str, U8]) -> Chunk:
        own = np.stack([input_from_image(image, self.spec.input) for image in images.values()])
        result = self.runtime.run(own)
        loc, conf = result.tensors["loc"], result.tensors["conf"]
        found = tuple(
            detections_from_heads(*heads, self.spec) for heads in zip(loc, conf, strict=True)
        )
        self.used += images
        self.boxes += sum(map(len, found))
        self.ran = f"{result.runtime} on {result.provider}"
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
        """The same images as the bundle tells the world to feed them; priors play no part in it."""
        if self.contract.input == self.spec.input:
            return own
        planes = [input_from_image(image, self.contract.input) for image in images.values()]
        return np.stack(planes)
