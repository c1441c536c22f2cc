"""What a packaged model must compute, as bytes for C++: `golden.mbv3g`.

`docs/formats/golden.md` describes it; `cpp_postprocess/selftest/golden.cpp` reads it. It vouches
for the files of the package, states what each arithmetic may err by, and holds, image by image, the
input tensor, the raw heads and the boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.device.fields import real, sealed, text, whole
from mbv3ssd_deploy.ncnn_graph.priors import PRIOR_TOLERANCE
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

GOLDEN = "golden.mbv3g"
VERSION = 1

_MAGIC = b"MBV3SSDG"
# The number of each form is its place here.
_OUTPUTS = (Outputs.DETECTIONS, Outputs.CONCAT, Outputs.LEVELS)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a network may err by when it computes in one arithmetic.

    Attributes:
        arithmetic: "fp32"; "fp16s", halves in memory and float32 in the registers; "fp16", halves
            in both; "bf16".
        heads: the root mean square of the raw heads' error over that of the heads themselves.
        priors: the largest distance of a prior's corner, in units of the image, and of a variance.
        box_iou: the overlap at which a box is found again.
        box_share: the share of the boxes that must be, and of the found ones that must be known.
        box_score: how far the score of a box that is found again may be off.
        margin: boxes whose score lies this near to the cut of their list are not counted.
    """

    arithmetic: str
    heads: float
    priors: float
    box_iou: float
    box_share: float
    box_score: float
    margin: float


# A half keeps 11 bits of a number, a bfloat16 8; priors beside 1 are rounded by half a unit of the
# last of them, 2**-12 and 2**-9. Heads and boxes: a little above the worst that healthy code was
# seen to do to five untrained networks, and in float16 below the least that its faulty kernel did
# (docs/devices.md); trained networks err several times less.
LIMITS = (
    #      arithmetic  heads  priors  IoU  share  score  margin
    Limits("fp32", 1e-4, PRIOR_TOLERANCE, 0.99, 0.98, 0.002, 0.02),
    Limits("fp16s", 1e-2, 5e-4, 0.95, 0.90, 0.02, 0.05),
    Limits("fp16", 1.5e-2, 5e-4, 0.90, 0.85, 0.05, 0.05),
    Limits("bf16", 0.15, 4e-3, 0.70, 0.75, 0.15, 0.1),
)


@dataclass(frozen=True, slots=True)
class ExactLimits:
    """What the library may err by, on the same numbers: rounding.

    Attributes:
        levels: of the input tensor, in grey levels before normalisation.
        score: of a detection.
        pixels: of a corner of its box.
    """

    levels: float
    score: float
    pixels: float


USUAL = next(row for row in LIMITS if row.arithmetic == "fp16")
"""Those of what ncnn does if nobody says otherwise."""

EXACT = ExactLimits(levels=1.0, score=1e-6, pixels=1e-3)


@dataclass(frozen=True, slots=True)
class GoldenFile:
    """A file of the package: its name beside the golden file, and its bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GoldenBoxes:
    """Detections in pixels of the image, and the score below which the list holds nothing."""

    cut: float
    found: Detections

    def counted(self, margin: float) -> int:
        """Return how many scores lie more than `margin` above the cut: those that are judged."""
        return int((self.found.scores > self.cut + margin).sum())


@dataclass(frozen=True, slots=True, eq=False)
class GoldenImage:
    """What belongs to one image.

    Attributes:
        file: a binary PPM, one of the package's files.
        width: in pixels.
        height: in pixels.
        tensor: (3, input height, input width), the network's input.
        loc: (P, 4) raw offsets.
        conf: (P, C) logits.
        own: what the family's own rules make of these heads.
        detection_out: what the network's DetectionOutput gives; None where it ends in raw heads.
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
    """All that a package promises. `param`, `bin` and `contract` are names among `files`."""

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


def render_golden(golden: Golden) -> bytes:
    """Return the bytes of a `golden.mbv3g` file."""
    spec = golden.spec
    body = b"".join(
        (
            text(spec.name),
            text(golden.made_by),
            whole(_OUTPUTS.index(golden.outputs)),
            whole(spec.input.width, spec.input.height, spec.priors.count, spec.num_classes),
            real(*spec.input.std),
            *map(text, (golden.param, golden.bin, golden.contract)),
            _list(_file(file) for file in golden.files),
            real(golden.exact.levels, golden.exact.score, golden.exact.pixels),
            _list(_limits(row) for row in golden.limits),
            _list(_image(image) for image in golden.images),
        )
    )
    return sealed(_MAGIC, VERSION, body)


def _list(things: Iterable[bytes]) -> bytes:
    each = tuple(things)
    return whole(len(each)) + b"".join(each)


def _file(file: GoldenFile) -> bytes:
    return text(file.name) + whole(file.size) + bytes.fromhex(file.sha256)


def _limits(row: Limits) -> bytes:
    boxes = real(row.box_iou, row.box_share, row.box_score, row.margin)
    return text(row.arithmetic) + real(row.heads, row.priors) + boxes


def _image(image: GoldenImage) -> bytes:
    numbers = (_floats(each) for each in (image.tensor, image.loc, image.conf))
    lists = (_boxes(each) for each in (image.own, image.detection_out))
    return b"".join((text(image.file), whole(image.width, image.height), *numbers, *lists))


def _boxes(boxes: GoldenBoxes | None) -> bytes:
    if boxes is None:
        return real(0.0) + whole(0)
    found = boxes.found
    rows = np.empty(len(found), np.dtype([("label", "<u4"), ("numbers", "<f4", 5)]))
    rows["label"] = found.labels
    rows["numbers"] = np.column_stack((found.scores, found.boxes))
    return real(boxes.cut) + whole(len(rows)) + rows.tobytes()


def _floats(array: F32) -> bytes:
    return array.astype("<f4").tobytes()
