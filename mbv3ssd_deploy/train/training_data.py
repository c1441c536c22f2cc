"""The two data sets of a run: what it learns from, and what it is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mbv3ssd_deploy.data.dataset import Dataset, Sample, Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.data.summary import every_problem, summary_of_training
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent

_LISTED = 8


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run learns from and what it is measured on; the classes are the same.

    Attributes:
        train: images to learn from.
        val: images to be measured on.
        notices: what was left out of either, and what else a user should know, in sentences.
    """

    train: Dataset
    val: Dataset
    notices: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label, background first."""
        return self.train.class_names

    @property
    def details(self) -> tuple[str, ...]:
        """All that was left out, a line each."""
        return every_problem((*self.train.problems, *self.val.problems))

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
    notices = [*summary_of_training(train.problems, val.problems), *_unseen_classes(train)]
    shared = _shared_images(train.samples, val.samples)
    if shared:
        notices.append(
            f"{shared} of {len(val)} validation images are training images too: "
            "the mAP will flatter"
        )
    return TrainingData(train, val, tuple(notices))


def _unseen_classes(train: Dataset) -> Iterator[str]:
    """Yield a sentence on the classes that no object can teach, if there are any."""
    seen: set[int] = set()
    for sample in train.samples:
        truth = sample.truth
        seen.update(truth.labels[~(truth.crowd | truth.difficult)].tolist())
    unseen = [name for label, name in enumerate(train.class_names) if label and label not in seen]
    if unseen:
        some = ", ".join(map(repr, unseen[:_LISTED]))
        more = f" and {len(unseen) - _LISTED} more" if len(unseen) > _LISTED else ""
        yield f"no training image shows {some}{more}: that will never be found"


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
