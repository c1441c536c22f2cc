"""Thresholds and limits as the families' own code calls them, and as a `DecodeSpec` does."""

import dataclasses

OWN_NAMES = {
    "score_thresh": "score_threshold",
    "prob_threshold": "score_threshold",
    "min_score": "score_threshold",
    "score_thr": "score_threshold",
    "confidence_threshold": "score_threshold",
    "nms_thresh": "iou_threshold",
    "iou_threshold": "iou_threshold",
    "max_overlap": "iou_threshold",
    "iou_thr": "iou_threshold",
    "nms_threshold": "iou_threshold",
    "topk_candidates_per_class": "candidates_per_class",
    "candidate_size": "candidates_per_class",
    "top_k_per_class": "keep_per_class",
    "detections_per_img": "keep_total",
    "top_k": "keep_total",
    "max_per_img": "keep_total",
    "max_per_image": "keep_total",
}


def rules(setting):
    """The fields of a `DecodeSpec` that a recorded setting changes; -1 there means no limit."""
    named = {OWN_NAMES[key]: value for key, value in setting.items() if key in OWN_NAMES}
    return {key: None if value == -1 else value for key, value in named.items()}


def with_rules(spec, **changes):
    return dataclasses.replace(spec, decode=dataclasses.replace(spec.decode, **changes))
