"""The reference results of a packaged model, as bytes for C++: `golden.mbv3g`.

`docs/formats/golden.md` describes it; `cpp_postprocess/selftest/golden.cpp` reads it. It holds the
hashes of the package's files, the tolerances of each arithmetic, and for each image the input
tensor, the raw heads and the boxes.

The raw heads are computed here from the shipped files in exact float32: the effect of rounding
their weights is `verify`'s to judge, and no fault of the board. They are compared with those of
body.onnx in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM, Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.device.contract import f64, u32, utf8, with_header
from mbv3ssd_deploy.errors import BundleError, DatasetError
from mbv3ssd_deploy.io.progress import Progress
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.priors import PRIOR_TOLERANCE
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel

GOLDEN = "golden.mbv3g"
VERSION = 1

_MAGIC = b"MBV3SSDG"
# Stored as the index in this tuple.
_OUTPUTS = (Outputs.DETECTIONS, Outputs.CONCAT, Outputs.LEVELS)


@dataclass(frozen=True, slots=True)
class Limits:
    """The tolerances of a network that computes in one arithmetic.

    Attributes:
        arithmetic: "fp32"; "fp16s", halves in memory and float32 in the registers; "fp16", halves
            in both; "bf16".
        heads: root mean square of the raw heads' error, relative to that of the heads.
        priors: largest error of a prior's corner, in units of the image, and of a variance.
        box_iou: IoU from which two boxes match.
        box_share: share of the expected boxes, and of the found ones, that must have a match.
        box_score: largest difference between the scores of two matching boxes.
        margin: boxes with scores within this distance of their list's cut are not counted.
    """

    arithmetic: str
    heads: float
    priors: float
    box_iou: float
    box_share: float
    box_score: float
    margin: float


# A half keeps 11 bits of a number, a bfloat16 8; priors beside 1 are rounded by half a unit of the
# last of them, 2**-12 and 2**-9. Heads and boxes: a little above the largest error of correct code
# on five untrained networks, and in float16 below the smallest of its faulty kernel
# (docs/devices.md); errors of trained networks are several times smaller.
LIMITS = (
    #      arithmetic  heads  priors  IoU  share  score  margin
    Limits("fp32", 1e-4, PRIOR_TOLERANCE, 0.99, 0.98, 0.002, 0.02),
    Limits("fp16s", 1e-2, 5e-4, 0.95, 0.90, 0.02, 0.05),
    Limits("fp16", 1.5e-2, 5e-4, 0.90, 0.85, 0.05, 0.05),
    Limits("bf16", 0.15, 4e-3, 0.70, 0.75, 0.15, 0.1),
)


@dataclass(frozen=True, slots=True)
class ExactLimits:
    """The tolerances of the library for the same numbers: rounding.

    Attributes:
        levels: of the input tensor, in grey levels before normalisation.
        score: of a detection.
        pixels: of a corner of its box.
    """

    levels: float
    score: float
    pixels: float


DEFAULT_LIMITS = next(row for row in LIMITS if row.arithmetic == "fp16")
"""The limits for ncnn's default arithmetic."""

EXACT = ExactLimits(levels=1.0, score=1e-6, pixels=1e-3)

HEAD_LIMITS = {Storage.FLOAT32: 1e-3, Storage.FLOAT16: 5e-2}
"""Largest error of the heads against body.onnx's, relative to their root mean square, by the
weights' storage."""


@dataclass(frozen=True, slots=True)
class GoldenFile:
    """A file of the package: its name beside the golden file, and its bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GoldenBoxes:
    """Detections in pixels of the image, and the score below which their list is cut."""

    cut: float
    found: Detections

    def counted(self, margin: float) -> int:
        """Return the number of scores more than `margin` above the cut: those that are compared."""
        return int((self.found.scores > self.cut + margin).sum())


@dataclass(frozen=True, slots=True, eq=False)
class GoldenImage:
    """The reference results of one image.

    Attributes:
        file: a binary PPM, one of the package's files.
        width: in pixels.
        height: in pixels.
        tensor: (3, input height, input width), the network's input.
        loc: (P, 4) raw offsets.
        conf: (P, C) logits.
        own: these heads decoded by the family's own rules.
        detection_out: the result of DetectionOutput; None for a network that ends in raw heads.
    """

    file: str
    width: int
    height: int
    tensor: F32
    loc: F32
    conf: F32
    own: GoldenBoxes
    detection_out: GoldenBoxes | None


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """The contents of a golden file. `param`, `bin` and `contract` are names among `files`."""

    spec: DetectorSpec
    made_by: str
    outputs: Outputs
    param: str
    bin: str
    contract: str
    files: tuple[GoldenFile, ...]
    images: tuple[GoldenImage, ...]
    limits: tuple[Limits, ...] = LIMITS
    exact: ExactLimits = EXACT


def golden_images(
    bundle: Bundle, record: NcnnRecord, pictures: Sequence[tuple[str, U8]], progress: Progress
) -> tuple[GoldenImage, ...]:
    """Return the reference results of `pictures`, pairs of file name and pixels.

    Args:
        bundle: has ncnn files.
        record: how they were made.
        pictures: RGB uint8 (H, W, 3).
        progress: called after each of the two runs.

    Raises:
        BundleError: the ncnn files give other heads than body.onnx.
        DatasetError: the detector finds nothing on any picture.
        RuntimeFailedError: ncnn or ONNX Runtime refused the model.
    """
    inputs = np.stack([input_from_image(pixels, bundle.spec.input) for _, pixels in pictures])
    progress("golden", 0, 2)
    output = NcnnModel(bundle.param_path, bundle.bin_path, exact=True).run(inputs)
    progress("golden", 1, 2)
    _check_heads(bundle, record, inputs, output.loc, output.conf)
    progress("golden", 2, 2)
    decode = bundle.spec.decode
    images = []
    for index, (name, pixels) in enumerate(pictures):
        height, width = pixels.shape[:2]
        loc, conf = output.loc[index], output.conf[index]
        own = scaled(detections_from_heads(loc, conf, bundle.spec), width, height)
        tail = None
        if record.outputs is Outputs.DETECTIONS and output.detections is not None:
            found = scaled(output.detections[index], width, height)
            tail = golden_boxes(found, record.score_threshold, record.keep_top_k)
        image = GoldenImage(
            file=name,
            width=width,
            height=height,
            tensor=inputs[index],
            loc=loc,
            conf=conf,
            own=golden_boxes(own, decode.score_threshold, decode.keep_total),
            detection_out=tail,
        )
        images.append(image)
    _check_found(images)
    return tuple(images)


def golden_boxes(found: Detections, threshold: float, limit: int | None) -> GoldenBoxes:
    """Return detections with their cut: the worst score of a full list, else the threshold."""
    full = len(found) > 0 and len(found) == limit
    return GoldenBoxes(max(threshold, float(found.scores.min())) if full else threshold, found)


def _check_heads(bundle: Bundle, record: NcnnRecord, inputs: F32, loc: F32, conf: F32) -> None:
    from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415 -- ONNX Runtime

    expected = OnnxModel(bundle.body_path).run(inputs)
    limit = HEAD_LIMITS[Storage(record.storage)]
    for name, reference, actual in (("loc", expected.loc, loc), ("conf", expected.conf, conf)):
        error = _relative_error(reference, actual)
        if not error <= limit:  # also for NaN
            raise BundleError(
                f"{PARAM} and {BIN} give another {name} than body.onnx: off by {error:.2g} of its "
                f"root mean square, {limit:g} is allowed",
                where=str(bundle.directory),
                hint="`mbv3ssd-deploy verify` finds the cause; `to-ncnn` makes the files again",
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
            "the detector finds nothing on these images, so that a self-test would prove nothing",
            hint="give --images with objects that it was trained on",
        )


def render_golden(golden: Golden) -> bytes:
    """Return the bytes of a `golden.mbv3g` file."""
    spec = golden.spec
    body = b"".join(
        (
            utf8(spec.name),
            utf8(golden.made_by),
            u32(_OUTPUTS.index(golden.outputs)),
            u32(spec.input.width, spec.input.height, spec.priors.count, spec.num_classes),
            f64(*spec.input.std),
            *map(utf8, (golden.param, golden.bin, golden.contract)),
            _list(utf8(f.name) + u32(f.size) + bytes.fromhex(f.sha256) for f in golden.files),
            f64(golden.exact.levels, golden.exact.score, golden.exact.pixels),
            _list(_limits(row) for row in golden.limits),
            _list(_image(image) for image in golden.images),
        )
    )
    return with_header(_MAGIC, VERSION, body)


def _list(items: Iterable[bytes]) -> bytes:
    data = tuple(items)
    return u32(len(data)) + b"".join(data)


def _limits(row: Limits) -> bytes:
    boxes = f64(row.box_iou, row.box_share, row.box_score, row.margin)
    return utf8(row.arithmetic) + f64(row.heads, row.priors) + boxes


def _image(image: GoldenImage) -> bytes:
    numbers = (_floats(each) for each in (image.tensor, image.loc, image.conf))
    lists = (_boxes(each) for each in (image.own, image.detection_out))
    return b"".join((utf8(image.file), u32(image.width, image.height), *numbers, *lists))


def _boxes(boxes: GoldenBoxes | None) -> bytes:
    if boxes is None:
        return f64(0.0) + u32(0)
    found = boxes.found
    rows = np.empty(len(found), np.dtype([("label", "<u4"), ("numbers", "<f4", 5)]))
    rows["label"] = found.labels
    rows["numbers"] = np.column_stack((found.scores, found.boxes))
    return f64(boxes.cut) + u32(len(rows)) + rows.tobytes()


def _floats(array: F32) -> bytes:
    return array.astype("<f4").tobytes()
