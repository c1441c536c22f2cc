"""What is really in an image: the objects that training and evaluation measure against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, I64, Bools


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The annotated objects of one image, in the annotation's order. Arrays are read-only.

    Attributes:
        boxes: float32 (n, 4), corners x1, y1, x2, y2 in pixels with continuous edges: a box
            around the whole image is 0, 0, width, height.
        labels: int64 (n,), indices into the class names; 0 is the background and never occurs.
        difficult: bool (n,), VOC's `difficult`: neither a hit nor a miss.
        crowd: bool (n,), COCO's `iscrowd`: a region that holds many objects.
        areas: float32 (n,), in square pixels: the segmentation's where the annotation gives it,
            the box's otherwise.

    Raises:
        ValueError: the arrays do not belong together.
    """

    boxes: F32
    labels: I64
    difficult: Bools
    crowd: Bools
    areas: F32

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.boxes.shape != (count, 4) or any(
            array.shape != (count,) for array in (self.difficult, self.crowd, self.areas)
        ):
            raise ValueError("boxes, labels, difficult, crowd and areas differ in length")
        if count and self.labels.min() < 1:
            raise ValueError("label 0 is the background, which nobody annotates")
        for array in (self.boxes, self.labels, self.difficult, self.crowd, self.areas):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)


def truth_from_boxes(boxes: F32, labels: I64, *, difficult: Bools | None = None) -> GroundTruth:
    """Return the truth of plain boxes: no crowds, areas from the boxes.

    Args:
        boxes: (n, 4) corners in pixels.
        labels: (n,), from 1.
        difficult: (n,); none is where it is left out.

    Raises:
        ValueError: the arrays do not belong together.
    """
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return GroundTruth(
        boxes=boxes,
        labels=np.array(labels, np.int64).reshape(-1),
        difficult=np.zeros(count, bool) if difficult is None else np.array(difficult, bool),
        crowd=np.zeros(count, bool),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
    )
