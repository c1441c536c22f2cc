"""What ncnn's DetectionOutput layer computes, in numpy.

Source: ncnn's src/layer/detectionoutput.cpp, the branch where the variances come with the priors.
Two things there are left to chance, and have an order here:

* ncnn's sort is not stable. Equal scores rank by prior index, then by label, as in `core`.
* ncnn does not decode a prior whose background reaches 1 - confidence threshold. With a softmax no
  class of it can then be above the threshold, up to rounding; where one is, ncnn shows whatever the
  memory held, and this a box of zeros.
"""

from __future__ import annotations

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, I64
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.nms import best_first, nms

ROW = 6


def detections_from_detection_output(  # noqa: PLR0913 -- the layer's blobs and parameters
    loc: F32,
    scores: F32,
    priors_corners: F32,
    variances: F32 | tuple[float, float, float, float],
    *,
    nms_threshold: float,
    nms_top_k: int,
    keep_top_k: int,
    confidence_threshold: float,
) -> Detections:
    """Return the detections, best first, in normalised corners that may lie outside 0..1.

    `loc` (P, 4) are raw offsets, `scores` (P, C) after the softmax, `priors_corners` (P, 4), and
    `variances` (P, 4) or (4,). Class by class (the background, class 0, is skipped) the scores
    strictly above the threshold are ranked, the best `nms_top_k` kept, and a box dropped whose IoU
    with a better one is strictly above `nms_threshold`; the best `keep_top_k` over all classes
    remain. Thresholds are float32.

    Raises:
        ValueError: shapes that do not belong together, or a top-k below 1 (ncnn throws on it).
    """
    if not loc.shape == priors_corners.shape == (len(scores), 4) or scores.ndim != 2:
        shapes = f"loc {loc.shape}, scores {scores.shape}, priors {priors_corners.shape}"
        raise ValueError(f"{shapes} are not (P, 4), (P, C), (P, 4)")
    if min(nms_top_k, keep_top_k) < 1:
        raise ValueError(f"nms_top_k {nms_top_k} and keep_top_k {keep_top_k} must be at least 1")
    threshold = np.float32(confidence_threshold)
    boxes = _decoded(loc, priors_corners, np.asarray(variances, dtype=np.float32))
    # in double precision, as ncnn compares it: a hair below the threshold decides here
    boxes[scores[:, 0].astype(np.float64) >= 1.0 - float(threshold)] = 0.0
    kept = [
        _kept_in_class(boxes, class_scores, threshold, nms_threshold, nms_top_k)
        for class_scores in scores.T[1:]
    ]
    labels = np.repeat(np.arange(1, scores.shape[1]), [len(found) for found in kept])
    priors = np.concatenate(kept)
    found = scores[priors, labels]
    # the last key of lexsort ranks first
    order = np.lexsort((labels, priors, -found))[:keep_top_k]
    return Detections(boxes[priors[order]], found[order], labels[order])


def detections_from_rows(rows: F32 | None) -> Detections:
    """Return the rows of the blob `detection_out` (K, 6): label, score, x1, y1, x2, y2.

    ncnn leaves the blob empty when it found nothing: None and an array without numbers are read as
    no detections.

    Raises:
        ValueError: rows that are not six numbers long.
    """
    table = np.zeros((0, ROW), dtype=np.float32) if rows is None or not rows.size else rows
    if table.ndim != 2 or table.shape[1] != ROW:
        raise ValueError(f"detections {table.shape} are not (K, {ROW})")
    return Detections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))


def _decoded(loc: F32, priors: F32, variances: F32) -> F32:
    """Return corners (P, 4): the centre moves by v * t * size, the size grows by exp(v * t)."""
    size = priors[:, 2:] - priors[:, :2]
    centre = (priors[:, :2] + priors[:, 2:]) * np.float32(0.5)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = variances[..., :2] * loc[:, :2] * size + centre
        half = np.exp(variances[..., 2:] * loc[:, 2:]) * size * np.float32(0.5)
        return np.concatenate((moved - half, moved + half), axis=1)


def _kept_in_class(
    boxes: F32, scores: F32, threshold: np.float32, nms_threshold: float, nms_top_k: int
) -> I64:
    """Return the prior indices that one class keeps."""
    above = np.flatnonzero(scores > threshold)
    ranked = above[best_first(scores[above])][:nms_top_k]
    # An IoU with an infinite box is 0 or NaN, and neither is above a threshold: ncnn keeps it.
    endless = ranked[~np.isfinite(boxes[ranked]).all(axis=1)]
    return np.concatenate((ranked[nms(boxes[ranked], scores[ranked], nms_threshold)], endless))
