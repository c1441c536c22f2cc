"""A bundle at work: images in, detections out, in any runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bundle.bundle import Bundle, read_bundle
from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.runtimes.model import Model
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel


@dataclass(frozen=True, slots=True)
class Detector:
    """A bundle, ready to detect."""

    bundle: Bundle

    @property
    def spec(self) -> DetectorSpec:
        """The detector's spec."""
        return self.bundle.spec

    def detect(
        self, image: U8, *, runtime: str = "ncnn", score_threshold: float | None = None
    ) -> Detections:
        """Return the detections in one RGB uint8 (H, W, 3) image, in its pixels, best first.

        Raises:
            DeployError: as `detect_stream`.
        """
        (found,) = self.detect_stream([image], runtime=runtime, score_threshold=score_threshold)
        return found

    def detect_all(
        self,
        images: Sequence[U8],
        *,
        runtime: str = "ncnn",
        score_threshold: float | None = None,
        progress: Progress = silent,
    ) -> list[Detections]:
        """Return the detections in each image, as `detect_stream` does.

        Raises:
            DeployError: as `detect_stream`.
        """
        found: list[Detections] = []
        progress("detect", 0, len(images))
        for one in self.detect_stream(images, runtime=runtime, score_threshold=score_threshold):
            found.append(one)
            progress("detect", len(found), len(images))
        return found

    def detect_stream(
        self, images: Iterable[U8], *, runtime: str = "ncnn", score_threshold: float | None = None
    ) -> Iterator[Detections]:
        """Yield the detections in each image, in its pixels, best first.

        PyTorch and ONNX Runtime use the family's rules and thresholds; ncnn uses those of its
        DetectionOutput layer, as shipped.

        Args:
            images: RGB uint8 (H, W, 3).
            runtime: "ncnn", "onnx" or "torch"; opened once.
            score_threshold: drops detections at or below it. It cannot bring back what
                DetectionOutput has dropped.

        Raises:
            ValueError: an unknown runtime.
            BundleError: the bundle lacks the files of the runtime, or its checkpoint.
            RuntimeFailedError: the runtime refused the model or crashed.
        """
        model, spec = self._opened(runtime)
        for image in images:
            output = model.run(input_from_image(image, self.spec.input)[None])
            if output.detections is None:
                found = detections_from_heads(output.loc[0], output.conf[0], spec)
            else:
                found = output.detections[0]
            height, width = image.shape[:2]
            yield _best_first(scaled(found, width, height), score_threshold)

    def _opened(self, runtime: str) -> tuple[Model, DetectorSpec]:
        """Return a model, and the spec by which its raw heads are decoded."""
        openers: dict[str, Callable[[], tuple[Model, DetectorSpec]]] = {
            "ncnn": self._ncnn,
            "onnx": self._onnx,
            "torch": self._torch,
        }
        if runtime not in openers:
            raise ValueError(f"unknown runtime {runtime!r}: choose one of {', '.join(openers)}")
        return openers[runtime]()

    def _ncnn(self) -> tuple[Model, DetectorSpec]:
        record = self.bundle.manifest.ncnn
        if record is None:
            raise BundleError(
                "the bundle has no ncnn files",
                where=str(self.bundle.directory),
                hint="run `mbv3ssd-deploy to-ncnn` first, or use --runtime onnx",
            )
        decode = replace(self.spec.decode, score_threshold=record.score_threshold)
        model = NcnnModel(self.bundle.param_path, self.bundle.bin_path, exact=False)
        return model, replace(self.spec, decode=decode)

    def _onnx(self) -> tuple[Model, DetectorSpec]:
        from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415 -- ONNX Runtime

        return OnnxModel(self.bundle.body_path), self.spec

    def _torch(self) -> tuple[Model, DetectorSpec]:
        from mbv3ssd_deploy.bundle.bundle import load_origin  # noqa: PLC0415 -- PyTorch
        from mbv3ssd_deploy.runtimes.torch_model import TorchModel  # noqa: PLC0415 -- PyTorch

        return TorchModel(load_origin(self.bundle).net), self.spec


def open_detector(path: Path | str) -> Detector:
    """Return the detector of a bundle folder, whose files are checked against their hashes.

    Raises:
        BundleError: not a bundle, or its files do not belong together.
    """
    return Detector(read_bundle(Path(path)))


def _best_first(detections: Detections, threshold: float | None) -> Detections:
    """Return the scores above `threshold` in one order for all runtimes."""
    order = np.lexsort((detections.labels, -detections.scores))
    if threshold is not None:
        order = order[detections.scores[order] > threshold]
    return Detections(detections.boxes[order], detections.scores[order], detections.labels[order])
