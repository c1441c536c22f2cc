"""Why a check did not pass: a code that scripts may rely on, and a sentence for people."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mbv3ssd_deploy.ncnn_graph.priors import PRIOR_TOLERANCE
from mbv3ssd_deploy.verification.detections import NMS_MARGIN, SCORE_MARGIN, TIE, DetectionDiff
from mbv3ssd_deploy.verification.tensors import TensorDiff, Tolerance


class Code(enum.StrEnum):
    """What was found. The codes are part of verify.json; they are added to, never renamed."""

    INPUT_SIZE = "input_size"
    CHANNEL_ORDER = "channel_order"
    NORMALISATION = "normalisation"
    RESIZE_RULE = "resize_rule"
    INPUT_TENSOR = "input_tensor"
    """Both specs were used on the same image and gave different network inputs."""
    CLASS_NAMES = "class_names"
    PRIOR_SPEC = "prior_spec"
    BOX_CODER = "box_coder"
    DECODE_RULES = "decode_rules"
    SPEC = "spec"
    """Any other field of the contract."""
    THRESHOLDS = "thresholds"
    """DetectionOutput has other numbers than detector.json."""

    MODEL_UNREADABLE = "model_unreadable"
    """The strict reader refused the file: cut short, too long, or not of its format."""
    RUNTIME_FAILED = "runtime_failed"
    """The runtime refused the model, crashed, or ended without an answer."""
    OUTPUT_MISSING = "output_missing"
    OUTPUT_SHAPE = "output_shape"

    NOT_FINITE = "not_finite"
    HEADS_DIFFER = "heads_differ"
    HEAD_TRANSPOSED = "head_transposed"
    CLASSES_EXCHANGED = "classes_exchanged"
    CHANNELS_REVERSED = "channels_reversed"
    """The model is right when red and blue of its input are exchanged."""
    SCORES_NOT_SOFTMAX = "scores_not_softmax"
    GRAPH_DIFFERS = "graph_differs"
    """A layer of the ncnn graph differs from that of body.onnx lowered again."""
    RECORD_DIFFERS = "record_differs"
    """detector.json describes the ncnn files wrongly."""
    WEIGHTS_DIFFER = "weights_differ"
    PRIORS_DIFFER = "priors_differ"
    VARIANCES_DIFFER = "variances_differ"
    BOXES_DIFFER = "boxes_differ"
    SCORES_DIFFER = "scores_differ"
    """Matched boxes have other scores."""
    TOO_MUCH_FLICKER = "too_much_flicker"

    DEVICE_FAILED = "device_failed"
    """The self-test on the board failed, or its numbers are outside the limits."""

    TOO_FEW_BOXES = "too_few_boxes"
    """Not a failure: too few boxes for a verdict."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding, and where."""

    code: Code
    text: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.text}"


MIN_REFERENCE_BOXES = 20
"""A verdict needs at least as many boxes of the reference, over all images."""


class Check(enum.StrEnum):
    """The rows of a report, by their names in verify.json."""

    CONTRACT = "contract"
    ONNX_CPU = "onnx_cpu"
    ONNX_CUDA = "onnx_cuda"
    TORCH_CUDA = "torch_cuda"
    NCNN_WEIGHTS = "ncnn_weights"
    NCNN_PRIORS = "ncnn_priors"
    NCNN_EXACT = "ncnn_exact"
    NCNN_SHIPPED_FP32 = "ncnn_shipped_fp32"
    NCNN_SHIPPED_FP16 = "ncnn_shipped_fp16"
    NCNN_RULES = "ncnn_rules"
    DEVICE = "device"
    """A row of a self-test on a board; there may be several."""


class Heads(enum.StrEnum):
    """How much the tolerance of the raw heads counts."""

    ENFORCED = "bind"
    """Breaking it fails the check."""
    REPORTED = "tell"
    """For information; boxes and cosine decide."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The tolerances of a runtime.

    Attributes:
        heads: the tolerance of every element of the raw heads.
        heads_are: whether heads beyond it fail the check.
        min_cosine: the smallest cosine that the raw heads of any image may have.
        box_iou: the IoU at which boxes must match.
        box_share: the smallest share of the counted boxes that match.
        flicker_share: the largest share of the reference's boxes that may be borderline.
        score: the largest difference of a matched box's score.
    """

    heads: Tolerance
    heads_are: Heads
    min_cosine: float
    box_iou: float
    box_share: float
    flicker_share: float
    score: float

    def sentence(self) -> str:
        """Return the rule in words, with its numbers."""
        heads = f"raw heads within {self.heads}, " if self.heads_are is Heads.ENFORCED else ""
        return (
            f"{heads}{self.box_share:.0%} of the boxes at IoU {self.box_iou:g}, "
            f"their scores within {self.score:g}"
        )


_NEAREST = Tolerance(1e-4, 1e-3, scaled=True)

# As shipped, heads are for information: float16 has 11 bits, so heads differ by 1e-2 and more.
# With float32 weights nearly as much is possible, because ncnn's default options still take halves
# for inner products (the gates of MobileNetV3). Whether the graph is right, "exact" has to prove.
# Only 1e-4 is near enough to float32's own error to be scaled: a head in halves needs 1.1e-3.
# Scores likewise: over matches at any IoU, random weights in halves reach 0.17. At the IoU of the
# row 0.008 was measured in halves, 0.0032 with float32 weights, and 4e-6 in the exact rows.
RULES: Mapping[Check, Rule] = {
    #                                   raw heads                 cosine  IoU   share flicker score
    Check.ONNX_CPU: Rule(_NEAREST, Heads.ENFORCED, 0.9999, 0.99, 1.00, 0.02, 2e-3),
    Check.ONNX_CUDA: Rule(Tolerance(1e-3, 1e-3), Heads.ENFORCED, 0.9999, 0.99, 0.99, 0.02, 5e-3),
    Check.TORCH_CUDA: Rule(Tolerance(1e-3, 1e-3), Heads.ENFORCED, 0.9999, 0.99, 0.99, 0.02, 5e-3),
    Check.NCNN_EXACT: Rule(Tolerance(1e-3, 1e-3), Heads.ENFORCED, 0.9999, 0.99, 1.00, 0.02, 2e-3),
    Check.NCNN_SHIPPED_FP32: Rule(
        Tolerance(1e-2, 1e-2), Heads.REPORTED, 0.9999, 0.99, 0.97, 0.05, 0.1
    ),
    Check.NCNN_SHIPPED_FP16: Rule(
        Tolerance(1e-2, 1e-2), Heads.REPORTED, 0.999, 0.95, 0.97, 0.10, 0.25
    ),
}

PASS_RULE = (
    "PASS means: the bundle's contract, graph and weights are the checkpoint's; all priors lie "
    f"within {PRIOR_TOLERANCE:g} of the image; in every runtime that ran, raw heads, boxes and "
    "their scores are within the tolerances of its row, boxes being matched class by class at the "
    f"IoU of the row, except borderline ones: within {SCORE_MARGIN} of the end of the list, "
    f"within {NMS_MARGIN} of the IoU that suppresses them, or equal in the reference's heads when "
    f"its scores move by {TIE:g} or less; every self-test of a board passed; "
    "rms is the root mean square of the reference's tensor; and PyTorch found at least "
    f"{MIN_REFERENCE_BOXES} boxes."
)


def head_reasons(rule: Rule, heads: tuple[TensorDiff, ...]) -> tuple[Reason, ...]:
    """Return a reason for each tensor that violates `rule`."""
    found = []
    for diff in heads:
        if diff.actual_not_finite > diff.expected_not_finite:
            text = f"{diff.name}: {diff.actual_not_finite} of {diff.elements} values are NaN or Inf"
            found.append(Reason(Code.NOT_FINITE, text))
        if rule.heads_are is Heads.ENFORCED and not diff.passed:
            found.append(Reason(Code.HEADS_DIFFER, diff.sentence()))
        elif not diff.cosine >= rule.min_cosine:  # NaN is not
            text = f"{diff.name}: cosine {diff.cosine:.6f}, below {rule.min_cosine}"
            found.append(Reason(Code.HEADS_DIFFER, text))
    return tuple(found)


def box_reasons(rule: Rule, diff: DetectionDiff) -> tuple[Reason, ...]:
    """Return why the boxes violate `rule`, or are too few for a verdict."""
    if diff.reference < MIN_REFERENCE_BOXES:
        return (too_few_boxes(diff.reference),)
    found = []
    if diff.share_at(rule.box_iou) < rule.box_share:
        text = (
            f"{diff.matched_at(rule.box_iou)} of {diff.counted} boxes match at IoU "
            f"{rule.box_iou}, not {rule.box_share:.0%}; {diff.lost} lost, {diff.new} new"
        )
        found.append(Reason(Code.BOXES_DIFFER, text))
    # matched boxes of the reference do not excuse spurious ones
    if diff.new > (1 - rule.box_share) * diff.actual:
        text = f"{diff.new} of {diff.actual} boxes are new: the reference does not have them"
        found.append(Reason(Code.BOXES_DIFFER, text))
    off = diff.score_at(rule.box_iou)
    if not off <= rule.score:  # NaN is not
        text = (
            f"the score of a box matched at IoU {rule.box_iou} is off by {off:.2g}; at most "
            f"{rule.score:g} is allowed"
        )
        found.append(Reason(Code.SCORES_DIFFER, text))
    flicker = max(diff.flicker_lost, diff.flicker_new)
    if flicker > rule.flicker_share * diff.reference:
        text = (
            f"{diff.flicker_lost} lost and {diff.flicker_new} new boxes of {diff.reference} are "
            "borderline: near the score or IoU that decides, or by a tie; at most "
            f"{rule.flicker_share:.0%} may be"
        )
        found.append(Reason(Code.TOO_MUCH_FLICKER, text))
    return tuple(found)


def too_few_boxes(count: int) -> Reason:
    """Return the reason for which there is no verdict."""
    text = f"only {count} reference boxes; at least {MIN_REFERENCE_BOXES} are needed for a verdict"
    return Reason(Code.TOO_FEW_BOXES, text)
