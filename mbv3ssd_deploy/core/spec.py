"""DetectorSpec: all that is needed to build a detector and to prepare and decode its data.

It is made once, when a checkpoint is recognised, and travels with every artifact. Nothing
downstream asks the user again for what is in it.

Frames: sizes and steps of priors are in units of `PriorSpec.frame_width` x `frame_height`; mean and
std are on 0..255 pixels in the spec's channel order; class 0 is the background.
"""

from __future__ import annotations

import enum
import math
import unicodedata
from collections import Counter
from dataclasses import dataclass

from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.io.records import Json, json_from_record, merged_json, record_from_json


class ChannelOrder(enum.StrEnum):
    """The order of the three planes of the network's input."""

    RGB = "rgb"
    BGR = "bgr"


class ResizeRule(enum.StrEnum):
    """How an image becomes the input size. Each family has one; they differ by many grey levels."""

    CV2_U8 = "cv2_u8"
    """`cv2.resize` INTER_LINEAR on uint8 pixels, then normalise."""
    PIL_U8_ANTIALIAS = "pil_u8_antialias"
    """Pillow's BILINEAR (a triangle filter as wide as the reduction) on uint8, then normalise."""
    FLOAT_AFTER_NORMALISE = "float_after_normalise"
    """Normalise at the original size, then `torch.nn.functional.interpolate` bilinear,
    align_corners=False, no antialias."""


class ClipRule(enum.StrEnum):
    """What a family clamps after it has computed its priors."""

    NONE = "none"
    CORNERS = "corners"
    """x1, y1, x2, y2 to [0, 1] (Caffe, ncnn's `clip`)."""
    CENTRE_FORM = "centre_form"
    """cx, cy, w, h to [0, 1] (qfgaohao/pytorch-ssd, amdegroot)."""
    SIZES = "sizes"
    """w, h to [0, 1] (torchvision)."""


class PriorRounding(enum.StrEnum):
    """What a family rounds before it normalises its priors."""

    NONE = "none"
    PIXEL_CORNERS = "pixel_corners"
    """mmdetection 1.x: the first and the last pixel inside a prior of the first cell, in frame
    units, are x1 = rint(cx - w / 2) and x2 = rint(cx + w / 2 - 1), half to even; the prior reaches
    from x1 to x2 + 1, and the other cells repeat it, one step apart. The same for y."""


class Backbone(enum.StrEnum):
    """The two networks of the MobileNetV3 paper (arXiv 1905.02244, tables 1 and 2)."""

    LARGE = "large"
    SMALL = "small"


class TapPlace(enum.StrEnum):
    """Where inside a block a feature map is tapped."""

    EXPANSION = "expansion"
    """After the block's 1x1 expansion, its BatchNorm and activation."""
    BEFORE_ACTIVATION = "before_activation"
    """The output of the wide convolution behind the last one, before its activation; the extra
    levels go on from behind the activation."""
    OUTPUT = "output"


class BoxEdges(enum.StrEnum):
    """Where a decoded box ends."""

    CONTINUOUS = "continuous"
    """At x2, y2: its width is x2 - x1."""
    INCLUSIVE = "inclusive"
    """x2, y2 are the last pixel inside, counted in pixels of the input from 0: a pixel before the
    end that the coder gives. A width is x2 - x1 + 1 pixels, for the IoU too, and a clip goes to the
    last pixel of the input."""


class NmsScope(enum.StrEnum):
    """Which boxes compete with each other."""

    CLASS = "class"
    """Those of one class."""
    ALL_CLASSES = "all_classes"
    """All of them at once, in pixels of the input and shifted apart: those of label l by
    l * (m + 1), m being the largest coordinate of any candidate. Boxes of different classes meet
    only where one reaches below 0."""


class ResultOrder(enum.StrEnum):
    """The order of the final detections; a list that `keep_total` had to cut is in SCORE order."""

    SCORE = "score"
    """Score descending over all classes, then prior index, then label."""
    CLASS = "class"
    """Label ascending; inside a label as SCORE."""
    CLASS_PRIOR = "class_prior"
    """Label ascending, then prior index."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The input of the network. `mean` and `std` are for 0..255 pixels, in `channel_order`."""

    height: int
    width: int
    channel_order: ChannelOrder
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: ResizeRule

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise SpecError(f"the input size {self.height} x {self.width} has no pixels")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise SpecError(f"mean {self.mean} and std {self.std} must be finite, std above 0")


@dataclass(frozen=True, slots=True)
class Tap:
    """A feature map that the heads read: block `feature` (0 is the stem) at `place`."""

    feature: int
    place: TapPlace


@dataclass(frozen=True, slots=True)
class ArchSpec:
    """Which network: all that decides the shape of a weight besides classes and priors.

    `layout` names a row of `nets/layouts.py` (how blocks, extras and heads are wired).
    `extras` are the output channels of the extra levels after the last backbone map.
    """

    layout: str
    backbone: Backbone
    width_mult: float
    reduced_tail: bool
    taps: tuple[Tap, ...]
    extras: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0.0 < self.width_mult <= 4.0:
            raise SpecError(f"the width multiplier {self.width_mult} is not within (0, 4]")
        if not self.taps:
            raise SpecError("a detector needs at least one tap in its backbone")


@dataclass(frozen=True, slots=True)
class PriorLevel:
    """The priors of one feature map; sizes and steps in units of the prior frame.

    A cell has, in this order: the square `min_size`; the square sqrt(min_size * max_size) if
    there is a `max_size`; then for each `ratio` r the box (min_size * sqrt r, min_size / sqrt r).
    A tall box is a ratio below 1.
    """

    rows: int
    cols: int
    step_x: float
    step_y: float
    min_size: float
    max_size: float | None
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise SpecError(f"a prior level of {self.rows} x {self.cols} cells has no priors")
        numbers = (self.step_x, self.step_y, self.min_size, *self.ratios)
        if self.max_size is not None:
            numbers = (*numbers, self.max_size)
        if not all(math.isfinite(n) and n > 0 for n in numbers):
            raise SpecError("steps, sizes and ratios of priors must be finite and above 0")

    @property
    def boxes_per_cell(self) -> int:
        """The number of priors in one cell."""
        return 1 + (self.max_size is not None) + len(self.ratios)

    @property
    def count(self) -> int:
        """How many priors the level has."""
        return self.rows * self.cols * self.boxes_per_cell


@dataclass(frozen=True, slots=True)
class PriorSpec:
    """All priors of a detector: level by level, row, column, box within the cell.

    A cell's centre is ((col + 0.5) * step_x, (row + 0.5) * step_y), in units of an image that is
    `frame_width` x `frame_height` large. The boxes are rounded, normalised, then clipped.
    """

    frame_width: float
    frame_height: float
    levels: tuple[PriorLevel, ...]
    clip: ClipRule
    rounding: PriorRounding = PriorRounding.NONE

    def __post_init__(self) -> None:
        if not self.levels:
            raise SpecError("a detector needs at least one prior level")
        if not all(math.isfinite(n) and n > 0 for n in (self.frame_width, self.frame_height)):
            raise SpecError("the prior frame must be finite and larger than 0")

    @property
    def count(self) -> int:
        """How many priors there are in all: P."""
        return sum(level.count for level in self.levels)


@dataclass(frozen=True, slots=True)
class BoxCoder:
    """How a regression becomes a box (SSD, arXiv 1512.02325, section 2.2).

    centre = offset * centre_variance * size_prior + centre_prior
    size   = exp(offset * size_variance, within min_log_size..max_log_size) * size_prior
    """

    centre_variance: float
    size_variance: float
    max_log_size: float | None = None
    min_log_size: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v > 0 for v in (self.centre_variance, self.size_variance)):
            raise SpecError("box variances must be finite and above 0")
        if self.max_log_size is not None and not math.isfinite(self.max_log_size):
            raise SpecError("the largest log size must be finite, or none for no limit")
        if self.min_log_size is not None and not math.isfinite(self.min_log_size):
            raise SpecError("the smallest log size must be finite, or none for no limit")

    @property
    def variances(self) -> tuple[float, float, float, float]:
        """Per coordinate: cx, cy, w, h."""
        c, s = self.centre_variance, self.size_variance
        return (c, c, s, s)


@dataclass(frozen=True, slots=True)
class DecodeSpec:
    """From raw heads to detections, by the family's own evaluation rules.

    Softmax over classes; class 0 is the background. `None` means no limit. A score must be strictly
    above `score_threshold`; a box is suppressed when its IoU with a better one of its `nms_scope`
    is strictly above `iou_threshold`, or reaches it if `suppress_at_threshold`;
    IoU = inter / (union + iou_epsilon), the epsilon in normalised units. The rules that most
    families share are the defaults.
    """

    score_threshold: float
    iou_threshold: float
    candidates_per_class: int | None
    keep_per_class: int | None
    keep_total: int | None
    clip_before_nms: bool
    iou_epsilon: float
    order: ResultOrder
    box_edges: BoxEdges = BoxEdges.CONTINUOUS
    nms_scope: NmsScope = NmsScope.CLASS
    suppress_at_threshold: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.score_threshold <= 1.0 or not 0.0 <= self.iou_threshold <= 1.0:
            raise SpecError("score and IoU thresholds must be within 0..1")
        limits = (self.candidates_per_class, self.keep_per_class, self.keep_total)
        if any(limit is not None and limit < 1 for limit in limits):
            raise SpecError("a top-k must be at least 1, or none for no limit")
        if not (math.isfinite(self.iou_epsilon) and self.iou_epsilon >= 0):
            raise SpecError(f"the IoU epsilon {self.iou_epsilon} must be finite and at least 0")


_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, surrogates, line and paragraph separators."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A whole detector: name, network, preprocessing, priors and decoding."""

    name: str
    family: str
    arch: ArchSpec
    input: InputSpec
    class_names: tuple[str, ...]
    priors: PriorSpec
    coder: BoxCoder
    decode: DecodeSpec

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise SpecError("a detector needs the background and at least one class")
        for name in (self.name, self.family, *self.class_names):
            if any(unicodedata.category(character) in _CONTROLS for character in name):
                raise SpecError(
                    f"the name {name[:40]!a} contains control characters",
                    hint="give other class names with --labels",
                )
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice:
            raise SpecError(f"duplicate class names: {', '.join(twice[:5])}")

    @property
    def num_classes(self) -> int:
        """C: the number of classes, the background counted."""
        return len(self.class_names)


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """A classifier's spec. `arch` is that of detectors with its backbone.

    `class_names` have no background, unlike a detector's.
    """

    name: str
    arch: ArchSpec
    input: InputSpec
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.class_names:
            raise SpecError("a classifier needs at least one class", where="class_names")
        if len(set(self.class_names)) != len(self.class_names):
            raise SpecError("duplicate class names", where="class_names")

    @property
    def num_classes(self) -> int:
        """The number of classes, without a background."""
        return len(self.class_names)


__all__ = ["Json", "json_from_spec", "merged_json", "spec_from_json"]


def json_from_spec(spec: DetectorSpec) -> Json:
    """Return `spec` as a dict of plain JSON values, in the order of its fields."""
    return json_from_record(spec)


def spec_from_json(data: object, *, where: str = "spec") -> DetectorSpec:
    """Return the spec that `json_from_spec` wrote.

    Raises:
        SpecError: with every key that is missing, unknown or of the wrong type.
    """
    return record_from_json(DetectorSpec, data, where=where)
