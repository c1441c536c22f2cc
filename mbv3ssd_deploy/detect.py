"""A bundle at work: images in, detections out, on any runtime.

PyTorch and ONNX Runtime give raw heads, which pass through the family's own rules
(`core.detections`). ncnn's `detection_out` already holds boxes, by DetectionOutput's rules; a
network with raw heads goes the way of ONNX Runtime.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.bundle.bundle import read_bundle as read_files
from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime
from mbv3ssd_deploy.runtimes.types import Runtime

_Look = Callable[[F32, Progress], list[Detections]]
"""From inputs (N, 3, H, W) to normalised detections, one list an image."""


@dataclass(frozen=True, slots=True)
class Detector:
    """A bundle, ready to look at images."""

    bundle: Bundle

    @property
    def spec(self) -> DetectorSpec:
        """What the detector is."""
        return self.bundle.spec

    def detect(
        self, image: U8, *, runtime: str = "ncnn", score_threshold: float | None = None
    ) -> Detections:
        """Return what is in one RGB uint8 [H, W, 3] image; boxes in its own pixels.

        Raises:
            DeployError: as `detect_all`.
        """
        return self.detect_all([image], runtime=runtime, score_threshold=score_threshold)[0]

    def detect_all(
        self,
        images: Sequence[U8],
        *,
        runtime: str = "ncnn",
        score_threshold: float | None = None,
        progress: Progress = silent,
    ) -> list[Detections]:
        """Return the detections of each image, best first; with ncnn, one child serves them all.

        PyTorch and ONNX Runtime follow the family's own rules and thresholds; ncnn follows those
        that its DetectionOutput was made with.

        `score_threshold` raises the threshold of the bundle; it cannot lower that of an ncnn
        network whose DetectionOutput has already dropped what lies below.

        Raises:
            ValueError: an unknown runtime.
            BundleError: the bundle lacks the files of the runtime, or its checkpoint.
            RuntimeFailedError: the runtime refused the model or crashed.
        """
        look = self._opened(runtime)
        inputs = np.stack([input_from_image(image, self.spec.input) for image in images])
        found = look(inputs, progress)
        return [
            _best_first(scaled(detections, image.shape[1], image.shape[0]), score_threshold)
            for detections, image in zip(found, images, strict=True)
        ]

    def detect_stream(
        self,
        images: Iterable[U8],
        *,
        runtime: str = "ncnn",
        score_threshold: float | None = None,
        chunk: int = 16,
    ) -> Iterator[Detections]:
        """Yield the detections of each image as `detect_all` does, without holding all in memory.

        Args:
            images: RGB uint8 [H, W, 3], taken `chunk` at a time.
            runtime: as in `detect_all`; it is opened once.
            score_threshold: as in `detect_all`.
            chunk: how many images are taken before the first is answered. ncnn starts a process a
                chunk, which takes a good part of a second; the others answer image by image.

        Raises:
            DeployError: as `detect_all`.
        """
        look = self._opened(runtime)
        waiting = iter(images)
        while some := list(itertools.islice(waiting, chunk)):
            inputs = np.stack([input_from_image(image, self.spec.input) for image in some])
            for found, image in zip(look(inputs, silent), some, strict=True):
                in_pixels = scaled(found, image.shape[1], image.shape[0])
                yield _best_first(in_pixels, score_threshold)

    def _opened(self, runtime: str) -> _Look:
        """Return how a runtime looks at inputs; what it needs is loaded here, once."""
        openers: dict[str, Callable[[], _Look]] = {
            "ncnn": self._ncnn,
            "onnx": lambda: self._by_heads(self._onnx()),
            "torch": lambda: self._by_heads(self._torch()),
        }
        if runtime not in openers:
            raise ValueError(f"runtime {runtime!r} is none of {', '.join(openers)}")
        return openers[runtime]()

    def _onnx(self) -> Runtime:
        from mbv3ssd_deploy.runtimes.onnx_runtime import OnnxRuntime  # noqa: PLC0415 -- ncnn needs
        # neither this package nor the next

        return OnnxRuntime(self.bundle.body_path)

    def _torch(self) -> Runtime:
        from mbv3ssd_deploy.bundle.origin import load_origin  # noqa: PLC0415 -- imports PyTorch
        from mbv3ssd_deploy.runtimes.torch_runtime import TorchRuntime  # noqa: PLC0415 -- too

        return TorchRuntime(load_origin(self.bundle).net)

    def _by_heads(self, runtime: Runtime) -> _Look:
        def look(inputs: F32, progress: Progress) -> list[Detections]:
            found = []
            for index, one in enumerate(inputs):
                progress("detect", index, len(inputs))
                heads = runtime.run(one[None]).tensors
                found.append(detections_from_heads(heads["loc"][0], heads["conf"][0], self.spec))
            progress("detect", len(inputs), len(inputs))
            return found

        return look

    def _ncnn(self) -> _Look:
        record = self.bundle.manifest.ncnn
        if record is None:
            raise BundleError(
                "the bundle has no ncnn files",
                where=str(self.bundle.directory),
                hint="run `mbv3ssd-deploy to-ncnn` first, or use --runtime onnx",
            )
        runtime = NcnnRuntime(self.bundle.param_path, self.bundle.bin_path, exact=False)
        decode = replace(self.spec.decode, score_threshold=record.score_threshold)
        spec = replace(self.spec, decode=decode)

        def look_for_boxes(inputs: F32, progress: Progress) -> list[Detections]:
            blobs = runtime.run_blobs(inputs, ("detection_out",), progress=progress)
            return [detections_from_rows(one["detection_out"]) for one in blobs]

        def look_for_heads(inputs: F32, progress: Progress) -> list[Detections]:
            heads = runtime.run(inputs, progress=progress).tensors
            return [
                detections_from_heads(loc, conf, spec)
                for loc, conf in zip(heads["loc"], heads["conf"], strict=True)
            ]

        return look_for_boxes if record.outputs == "detections" else look_for_heads


def read_bundle(path: Path | str) -> Detector:
    """Read a bundle folder, check its files against their hashes, and make it ready to detect.

    Raises:
        BundleError: no bundle there, or its files do not belong together.
    """
    return Detector(read_files(Path(path)))


def _best_first(detections: Detections, threshold: float | None) -> Detections:
    """One order for all runtimes, whatever the family's own is; only scores above `threshold`."""
    order = np.lexsort((detections.labels, -detections.scores))
    if threshold is not None:
        order = order[detections.scores[order] > threshold]
    return Detections(detections.boxes[order], detections.scores[order], detections.labels[order])
