"""The two data sets of a run: what it learns from, and what it is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mbv3ssd_deploy.core.progress import Progress, silent
from mbv3ssd_deploy.data.dataset import Dataset, Sample, Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.data.summary import summary_of_problems
from mbv3ssd_deploy.errors import DatasetError


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run learns from and what it is measured on; the classes are the same.

    Attributes:
        train: images to learn from.
        val: images to be measured on.
        notices: what was left out of either, in sentences.
    """

    train: Dataset
    val: Dataset
    notices: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label, background first."""
        return self.train.class_names

    @property
    def objects(self) -> int:
        """How many objects stand in the training images."""
        return sum(len(sample.truth) for sample in self.train.samples)


def read_training_data(  # noqa: PLR0913 -- two sources with their splits
    data: str,
    train_split: Split,
    val_data: str,
    val_split: Split,
    *,
    class_names: tuple[str, ...] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> TrainingData:
    """Read both data sets.

    Raises:
        DatasetError: one cannot be read, or there is no object to learn from.
    """
    train = read_dataset(data, train_split, class_names=class_names, seed=seed, progress=progress)
    val = read_dataset(
        val_data, val_split, class_names=train.class_names, seed=seed, progress=progress
    )
    if not any(len(sample.truth) for sample in train.samples):
        raise DatasetError("there is no object to learn from", where=data)
    notices = _notices(summary_of_problems(train.problems), summary_of_problems(val.problems))
    shared = _shared_images(train.samples, val.samples)
    if shared:
        notices.append(
            f"{shared} of {len(val)} validation images are training images too: "
            "the mAP will flatter"
        )
    return TrainingData(train, val, tuple(notices))


def _notices(of_train: Sequence[str], of_val: Sequence[str]) -> list[str]:
    """Say of which data each line is, once where it is of both."""
    both = [line for line in of_train if line in of_val]
    return [
        *(f"training and validation data: {line}" for line in both),
        *(f"training data: {line}" for line in of_train if line not in both),
        *(f"validation data: {line}" for line in of_val if line not in both),
    ]


def fingerprint(samples: Sequence[Sample]) -> str:
    """Return a hash of the images' names and annotations, in their order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.image_id.encode())
        digest.update(sample.truth.boxes.tobytes())
        digest.update(sample.truth.labels.tobytes())
    return digest.hexdigest()


def _shared_images(train: Sequence[Sample], val: Sequence[Sample]) -> int:
    known = {sample.image_path for sample in train}
    return sum(sample.image_path in known for sample in val)
