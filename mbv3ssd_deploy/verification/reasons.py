"""Why a check did not pass: a code that scripts may rely on, and a sentence for people."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
    """DetectionOutput has other numbers than detector.json says."""

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
    """The model gives the right answer when red and blue of its input are exchanged."""
    SCORES_NOT_SOFTMAX = "scores_not_softmax"
    GRAPH_DIFFERS = "graph_differs"
    """A layer of the ncnn graph is not the one that lowering body.onnx again gives."""
    RECORD_DIFFERS = "record_differs"
    """What detector.json says of the ncnn files is not what they are."""
    WEIGHTS_DIFFER = "weights_differ"
    PRIORS_DIFFER = "priors_differ"
    VARIANCES_DIFFER = "variances_differ"
    BOXES_DIFFER = "boxes_differ"
    SCORES_DIFFER = "scores_differ"
    """Boxes were found again, with other scores."""
    TOO_MUCH_FLICKER = "too_much_flicker"

    DEVICE_FAILED = "device_failed"
    """The self-test on the board said so, or its numbers do."""

    TOO_FEW_BOXES = "too_few_boxes"
    """Not a failure: there was too little to compare, so nothing is proven."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found, and where."""

    code: Code
    text: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.text}"
