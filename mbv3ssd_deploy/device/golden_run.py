"""Running a bundle on the desktop, for what a board must compute.

The raw heads are those of the very files that are shipped, in exact float32: what their weights
lost when they were rounded is `verify`'s to judge, and no fault of the board. That they are the
heads of body.onnx is checked here, in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM, Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.device.golden import GoldenBoxes, GoldenImage
from mbv3ssd_deploy.errors import BundleError, DatasetError
from mbv3ssd_deploy.io.progress import Progress
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.ncnn_graph.graph import DETECTION_OUT, Storage
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel

HEAD_LIMITS = {Storage.FLOAT32: 1e-3, Storage.FLOAT16: 5e-2}
"""How far heads may lie from body.onnx's, of their root mean square, by the weights' storage."""


def golden_images(
    bundle: Bundle, record: NcnnRecord, pictures: Sequence[tuple[str, U8]], progress: Progress
) -> tuple[GoldenImage, ...]:
    """Return what belongs to each of `pictures`, pairs of the name that it gets and its pixels.

    Args:
        bundle: has ncnn files.
        record: how they were made.
        pictures: RGB uint8 (H, W, 3).
        progress: told of the two runs.

    Raises:
        BundleError: the ncnn files give other heads than body.onnx.
        DatasetError: the detector finds nothing on any of them.
        RuntimeFailedError: ncnn or ONNX Runtime refused the model.
    """
    inputs = np.stack([input_from_image(pixels, bundle.spec.input) for _, pixels in pictures])
    runtime = NcnnModel(bundle.param_path, bundle.bin_path, exact=True)
    whole = record.outputs is Outputs.DETECTIONS
    progress("golden", 0, 2)
    result = runtime.run(inputs)
    progress("golden", 1, 2)
    _check_heads(bundle, record, inputs, result.tensors["loc"], result.tensors["conf"])
    progress("golden", 2, 2)
    heads = zip(result.tensors["loc"], result.tensors["conf"], strict=True)
    images = []
    for picture, tensor, (loc, conf), extra in zip(
        pictures, inputs, heads, result.blobs, strict=True
    ):
        image = _image(bundle, picture, tensor, loc, conf)
        if whole:
            tail = _scaled_rows(extra[DETECTION_OUT], image)
            boxes = _boxes(tail, record.score_threshold, record.keep_top_k)
            image = replace(image, detection_out=boxes)
        images.append(image)
    _check_found(images)
    return tuple(images)


def _image(
    bundle: Bundle, picture: tuple[str, U8], tensor: F32, loc: F32, conf: F32
) -> GoldenImage:
    """What belongs to a picture, but for what DetectionOutput gives."""
    name, pixels = picture
    height, width = pixels.shape[:2]
    decode = bundle.spec.decode
    own = scaled(detections_from_heads(loc, conf, bundle.spec), width, height)
    boxes = _boxes(own, decode.score_threshold, decode.keep_total)
    return GoldenImage(name, width, height, tensor, loc, conf, own=boxes, detection_out=None)


def _scaled_rows(rows: F32, image: GoldenImage) -> Detections:
    return scaled(detections_from_rows(rows), image.width, image.height)


def _boxes(found: Detections, threshold: float, most: int | None) -> GoldenBoxes:
    """A full list ends at its worst score, any other at the threshold."""
    full = len(found) > 0 and len(found) == most
    return GoldenBoxes(max(threshold, float(found.scores.min())) if full else threshold, found)


def _check_heads(bundle: Bundle, record: NcnnRecord, inputs: F32, loc: F32, conf: F32) -> None:
    expected = OnnxModel(bundle.body_path).run(inputs).tensors
    limit = HEAD_LIMITS[Storage(record.storage)]
    for name, actual in (("loc", loc), ("conf", conf)):
        error = _relative_error(expected[name], actual)
        if not error <= limit:  # NaN is not
            raise BundleError(
                f"{PARAM} and {BIN} give another {name} than body.onnx: off by {error:.2g} of its "
                f"root mean square, {limit:g} is allowed",
                where=str(bundle.directory),
                hint="`mbv3ssd-deploy verify` tells what is wrong; `to-ncnn` makes the files again",
            )


def _relative_error(expected: F32, actual: F32) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    error = np.linalg.norm((actual - expected).astype(np.float64).ravel())
    return float(error / np.linalg.norm(expected.astype(np.float64).ravel()))


def _check_found(images: Sequence[GoldenImage]) -> None:
    lists = [boxes for image in images for boxes in (image.own, image.detection_out) if boxes]
    if not any(len(boxes.found) for boxes in lists):
        raise DatasetError(
            "the detector finds nothing on these images, so that a self-test could prove nothing",
            hint="give --images pictures of what it was trained on",
        )
