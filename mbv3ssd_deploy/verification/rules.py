"""What every check must keep: one table, and the sentence that states it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mbv3ssd_deploy.ncnn_graph.priors import PRIOR_TOLERANCE
from mbv3ssd_deploy.verification.detections import FLICKER, TEETER, TIE, DetectionDiff
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.tensors import TensorDiff, Tolerance

MIN_REFERENCE_BOXES = 20
"""Fewer boxes of the reference, over all images, prove nothing."""


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

    BIND = "bind"
    """Breaking it fails the check."""
    TELL = "tell"
    """It is only told; boxes and cosine decide."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a runtime must keep to.

    Attributes:
        heads: the tolerance of every element of the raw heads.
        heads_are: what becomes of a check whose heads break it.
        min_cosine: the smallest cosine that the raw heads of any image may have.
        box_iou: the IoU at which boxes must be found again.
        box_share: the share of the counted boxes that must be.
        flicker_share: the largest share of the reference's boxes that may flicker.
        score: how far the score of a box that is found again may lie from the reference's.
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
        heads = f"raw heads within {self.heads}, " if self.heads_are is Heads.BIND else ""
        return (
            f"{heads}{self.box_share:.0%} of the boxes at IoU {self.box_iou:g}, "
            f"their scores within {self.score:g}"
        )


_NEAREST = Tolerance(1e-4, 1e-3, scaled=True)

# As shipped, heads only tell. A half keeps 11 bits: with half weights heads lie 1e-2 away and more.
# With float32 weights nearly as much is possible, because ncnn's default options still take halves
# for inner products (the gates of MobileNetV3). Whether the graph is right, "exact" has to prove.
# Only 1e-4 is near enough to float32's own error to be scaled: a head in halves needs 1.1e-3.
# Scores likewise: over matches at any IoU, random weights in halves reach 0.17. At the IoU of the
# row 0.008 was measured in halves, 0.0032 with float32 weights, and 4e-6 in the exact rows.
RULES: Mapping[Check, Rule] = {
    #                                   raw heads                 cosine  IoU   share flicker score
    Check.ONNX_CPU: Rule(_NEAREST, Heads.BIND, 0.9999, 0.99, 1.00, 0.02, 2e-3),
    Check.ONNX_CUDA: Rule(Tolerance(1e-3, 1e-3), Heads.BIND, 0.9999, 0.99, 0.99, 0.02, 5e-3),
    Check.TORCH_CUDA: Rule(Tolerance(1e-3, 1e-3), Heads.BIND, 0.9999, 0.99, 0.99, 0.02, 5e-3),
    Check.NCNN_EXACT: Rule(Tolerance(1e-3, 1e-3), Heads.BIND, 0.9999, 0.99, 1.00, 0.02, 2e-3),
    Check.NCNN_SHIPPED_FP32: Rule(Tolerance(1e-2, 1e-2), Heads.TELL, 0.9999, 0.99, 0.97, 0.05, 0.1),
    Check.NCNN_SHIPPED_FP16: Rule(Tolerance(1e-2, 1e-2), Heads.TELL, 0.999, 0.95, 0.97, 0.10, 0.25),
}

PASS_RULE = (
    "PASS means: the bundle's contract, graph and weights are the checkpoint's; all priors lie "
    f"within {PRIOR_TOLERANCE:g} of the image; in every runtime that ran, raw heads, boxes and "
    "their scores keep to the tolerances of its row, boxes being matched class by class at the "
    f"IoU of the row and those counted apart that come or go within {FLICKER} of the score cut, "
    f"within {TEETER} of the IoU that suppresses them, or in the reference's own heads, too, when "
    f"its scores move by {TIE:g} or less; every self-test of a board that was handed in passed; "
    "rms is the root mean square of the reference's tensor; and PyTorch found at least "
    f"{MIN_REFERENCE_BOXES} boxes."
)


def head_reasons(rule: Rule, heads: tuple[TensorDiff, ...]) -> tuple[Reason, ...]:
    """Return a reason for each tensor that breaks `rule`."""
    found = []
    for diff in heads:
        if diff.actual_not_finite > diff.expected_not_finite:
            text = f"{diff.name}: {diff.actual_not_finite} of {diff.elements} values are NaN or Inf"
            found.append(Reason(Code.NOT_FINITE, text))
        if rule.heads_are is Heads.BIND and not diff.passed:
            found.append(Reason(Code.HEADS_DIFFER, diff.sentence()))
        elif not diff.cosine >= rule.min_cosine:  # NaN is not
            text = f"{diff.name}: cosine {diff.cosine:.6f}, below {rule.min_cosine}"
            found.append(Reason(Code.HEADS_DIFFER, text))
    return tuple(found)


def box_reasons(rule: Rule, diff: DetectionDiff) -> tuple[Reason, ...]:
    """Return why the boxes break `rule`, or why there are too few of them to tell."""
    if diff.reference < MIN_REFERENCE_BOXES:
        return (too_few_boxes(diff.reference),)
    found = []
    if diff.share_at(rule.box_iou) < rule.box_share:
        text = (
            f"{diff.matched_at(rule.box_iou)} of {diff.counted} boxes found again at IoU "
            f"{rule.box_iou}, not {rule.box_share:.0%}; {diff.lost} lost, {diff.new} new"
        )
        found.append(Reason(Code.BOXES_DIFFER, text))
    # a box of the reference that is found again leaves no room for a spurious one to be excused
    if diff.new > (1 - rule.box_share) * diff.actual:
        text = f"{diff.new} of {diff.actual} boxes are new: the reference does not have them"
        found.append(Reason(Code.BOXES_DIFFER, text))
    off = diff.score_at(rule.box_iou)
    if not off <= rule.score:  # NaN is not
        text = (
            f"the score of a box found again at IoU {rule.box_iou} is off by {off:.2g}; at most "
            f"{rule.score:g} is allowed"
        )
        found.append(Reason(Code.SCORES_DIFFER, text))
    flicker = max(diff.flicker_lost, diff.flicker_new)
    if flicker > rule.flicker_share * diff.reference:
        text = (
            f"{diff.flicker_lost} boxes went and {diff.flicker_new} came at the very score or "
            f"IoU that decides, or by a tie, of {diff.reference}; at most "
            f"{rule.flicker_share:.0%} may"
        )
        found.append(Reason(Code.TOO_MUCH_FLICKER, text))
    return tuple(found)


def too_few_boxes(count: int) -> Reason:
    """Return the reason of a verdict that cannot be given."""
    text = (
        f"the reference found {count} boxes in all; fewer than {MIN_REFERENCE_BOXES} prove nothing"
    )
    return Reason(Code.TOO_FEW_BOXES, text)
