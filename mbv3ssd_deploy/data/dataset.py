"""A data set in memory: where the images lie, what is in them, and what was wrong with it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.core.truth import GroundTruth


class Split(enum.StrEnum):
    """Which part of a data set is asked for; each format has its own way of naming them."""

    TRAIN = "train"
    VAL = "val"
    TRAINVAL = "trainval"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its objects. The image itself is read when it is needed.

    Attributes:
        image_id: its name in the data set (VOC's file stem, COCO's id as text).
        image_path: the file.
        width: in pixels.
        height: in pixels.
        truth: the objects.
    """

    image_id: str
    image_path: Path
    width: int
    height: int
    truth: GroundTruth


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """Something in the annotations that was left out.

    Attributes:
        place: file, and line where there is one.
        reason: one clause, e.g. "a box of zero area".
        kind: a short code to count by, e.g. "empty-box".
    """

    place: str
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one split.

    Attributes:
        name: what it was read from, as the user wrote it.
        class_names: by label; `class_names[0]` is "background".
        samples: in the order of the data set's own list.
        problems: what was left out, in the order of reading.
    """

    name: str
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    problems: tuple[DatasetProblem, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)
