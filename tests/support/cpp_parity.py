"""Comparison of lists of detections, up to rounding."""

import numpy as np

# neighbours whose scores are nearer than this may have changed places
SCORE_TIE = 1e-6


def as_array(detections):
    array = np.zeros(len(detections), [("box", "f4", 4), ("score", "f4"), ("label", "i4")])
    array["box"], array["score"] = detections.boxes, detections.scores
    array["label"] = detections.labels
    return array


def differences(found, expected):
    """Return how two lists differ, beyond rounding and the order of ties."""
    if len(found) != len(expected):
        return f"{len(found)} detections, not {len(expected)}"
    if not len(found):
        return ""
    if np.abs(found["score"] - expected["score"]).max() > SCORE_TIE:
        return "scores differ"
    unmatched = []
    for row in np.flatnonzero(
        (found["label"] != expected["label"])
        | (np.abs(found["box"] - expected["box"]).max(axis=1) > 1e-3)
    ):
        same = (
            (np.abs(found["score"] - expected["score"][row]) <= SCORE_TIE)
            & (found["label"] == expected["label"][row])
            & (np.abs(found["box"] - expected["box"][row]).max(axis=1) <= 1e-3)
        )
        if not same.any():
            unmatched.append(int(row))
    return f"rows {unmatched} are others" if unmatched else ""
