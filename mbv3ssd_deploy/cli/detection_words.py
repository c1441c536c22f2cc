"""What `detect` says of one image: as JSON and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbv3ssd_deploy.core.detections import Detections


def json_from_detections(detections: Detections, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one image's detections as plain JSON."""
    rows = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )
    return [
        {"box": box, "score": score, "label": label, "name": names[label]}
        for box, score, label in rows
    ]


def in_words(detections: Detections, names: tuple[str, ...]) -> str:
    """Return one image's detections in a few words."""
    if not len(detections):
        return "nothing"
    counts = {
        label: int((detections.labels == label).sum()) for label in set(detections.labels.tolist())
    }
    best = f"best {detections.scores.max():.2f}"
    return ", ".join(f"{counts[k]} {names[k]}" for k in sorted(counts)) + f" ({best})"
