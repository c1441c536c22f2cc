"""Detections, and how raw heads become them by a family's own rules (`DecodeSpec`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64, I64
from mbv3ssd_deploy.core.boxes import decode_boxes
from mbv3ssd_deploy.core.nms import (
    best_of_each_class,
    candidates_above,
    in_result_order,
    suppressed,
)
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import BoxEdges, DecodeSpec, DetectorSpec


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector found, in the order of its `DecodeSpec` (usually best first).

    `boxes` (n, 4) float32 are corners, in [0, 1] units of the image or, after `scaled`, in pixels;
    `scores` (n,) float32; `labels` (n,) int64, the background being 0. The arrays are read-only
    copies.
    """

    boxes: F32
    scores: F32
    labels: I64

    def __post_init__(self) -> None:
        boxes = np.array(self.boxes, dtype=np.float32)
        scores = np.array(self.scores, dtype=np.float32)
        labels = np.array(self.labels, dtype=np.int64)
        shapes = (boxes.shape, scores.shape, labels.shape)
        if shapes != ((len(scores), 4), (len(scores),), (len(scores),)):
            raise ValueError(f"boxes, scores, labels have shapes {shapes}, not (n, 4), (n,), (n,)")
        for name, array in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.scores)


def softmax(logits: F32) -> F32:
    """Return the softmax over the classes of `logits` (P, C), in float32.

    A row that holds NaN or +inf becomes NaN.
    """
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: F32 = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32, copy=False)
    return shares


def detections_from_heads(
    loc: F32, conf: F32, spec: DetectorSpec, priors_cxcywh: F32 | F64 | None = None
) -> Detections:
    """Return the detections of one image by the family's own rules, in normalised corners.

    Softmax, decoding and IoU are evaluated in float32. A prior whose score or box is not finite is
    dropped before sorting.

    Args:
        loc: (P, 4) raw offsets.
        conf: (P, C) logits, background first.
        spec: the coder, the rules, and the priors if none are passed.
        priors_cxcywh: (P, 4) normalised, for instance those that a runtime computed.

    Raises:
        ValueError: the shapes do not belong together.
    """
    priors = build_priors(spec.priors) if priors_cxcywh is None else priors_cxcywh
    if conf.shape != (len(loc), spec.num_classes):
        raise ValueError(f"logits {conf.shape} are not ({len(loc)}, {spec.num_classes})")
    boxes, input_size = decode_boxes(loc, priors, spec.coder), (spec.input.width, spec.input.height)
    return detections_from_scores(boxes, softmax(conf), spec.decode, input_size)


def detections_from_scores(
    boxes: F32, scores: F32, decode: DecodeSpec, input_size: tuple[int, int]
) -> Detections:
    """Return the detections among decoded boxes, by the thresholds and limits of `decode`.

    Class by class, the candidates above the score threshold are ranked by score, then prior index,
    and cut to `candidates_per_class`. In its scope, each suppresses what it overlaps; the best
    `keep_per_class` of each class remain. Over all classes the best `keep_total` by score, then
    prior index, then label remain. A prior whose box or score is not finite is dropped before
    sorting. Where nothing is found, the list is empty, whatever the family's own code returned.

    Args:
        boxes: (P, 4) normalised corners.
        scores: (P, C) probabilities; column 0 is the background and never reported.
        decode: the rules.
        input_size: width and height of the network's input, for rules that count pixels.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if boxes.shape != (len(scores), 4) or scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"boxes {boxes.shape} and scores {scores.shape} are not (P, 4), (P, C)")
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores.T)
    inside = _last_pixel(decode, input_size)
    boxes = boxes - _at_ends(inside)
    if decode.clip_before_nms:
        boxes = boxes.clip(0.0, 1.0 - inside)
    found = candidates_above(np.where(finite, scores.T, np.nan).T, decode)
    found = suppressed(found, boxes + _at_ends(inside), decode, input_size)
    found = in_result_order(best_of_each_class(found, decode), decode)
    return Detections(boxes[found.priors], found.scores, found.labels)


def scaled(detections: Detections, width: int, height: int) -> Detections:
    """Return normalised `detections` in pixels of an image `width` x `height` large."""
    size = np.array((width, height, width, height), dtype=np.float32)
    return Detections(detections.boxes * size, detections.scores, detections.labels)


def _last_pixel(decode: DecodeSpec, input_size: tuple[int, int]) -> F32:
    """Return the distance of the last pixel of a box from its end (4,), normalised."""
    if decode.box_edges is BoxEdges.CONTINUOUS:
        return np.zeros(4, dtype=np.float32)
    return np.reciprocal(np.array(input_size * 2, dtype=np.float32))


def _at_ends(distance: F32) -> F32:
    """Return `distance` (4,) for x2 and y2 only."""
    return distance * np.array((0, 0, 1, 1), dtype=np.float32)
