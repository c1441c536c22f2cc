"""Batches of training images, the same whatever the number of worker processes.

Which images are in the batch of a step depends on seed and step; what augmentation does to an image
depends on seed, epoch and image. So a run can be resumed at any step, with any number of processes,
and gets the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mbv3ssd_deploy.data.folders import ClassSample, ClassSamples
from mbv3ssd_deploy.data.loader import TrainingSample, TrainingSamples, epoch_order
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.train.loss import Truths
from mbv3ssd_deploy.train.process import World, init_worker

Place = tuple[int, int]
"""Epoch and index of a sample."""
Example = tuple[int, TrainingSample | ClassSample | None, str]
"""The index of a sample; the sample, or None and the reason why there is none."""

CACHE_BYTES = 256 * 2**20
"""Decoded images kept by each process: reading a small data set again costs more than a step."""
_FLIP_STREAM = 1
"""Separates the random numbers of the vertical flip from those of the augmentation."""


class Batch(NamedTuple):
    """The input of a step.

    Attributes:
        indices: of the images in the data set.
        inputs: float32 (N, 3, H, W), normalised.
        targets: `Truths` for a detector, labels int64 (N,) for a classifier.
        problems: a sentence for each image of this batch that could not be read.
    """

    indices: tuple[int, ...]
    inputs: torch.Tensor
    targets: Any
    problems: tuple[str, ...]


class Examples(Dataset[Example]):
    """Training samples by (epoch, index); some are turned upside down.

    Args:
        samples: read and augmented.
        stack_targets: samples -> the targets of a batch, `padded_truths` or `class_labels`.
        seed: random seed of the turns.
        vertical_flip: the probability of turning an image; of detection samples only.
    """

    def __init__(
        self,
        samples: TrainingSamples | ClassSamples,
        stack_targets: Callable[[Sequence[Any]], Any],
        *,
        seed: int = 0,
        vertical_flip: float = 0.0,
    ) -> None:
        self._samples, self._stack_targets = samples, stack_targets
        self._seed, self._vertical_flip = seed, vertical_flip

    def __getitem__(self, at: Place) -> Example:
        """Return the sample, or the reason why there is none: workers raise no errors."""
        epoch, index = at
        sample = self._samples.attempt(at)
        if isinstance(sample, DatasetError):
            return index, None, str(sample)
        if isinstance(sample, TrainingSample) and self._vertical_flip:
            seeds = np.random.SeedSequence((self._seed, epoch, index + 1, _FLIP_STREAM))
            if np.random.Generator(np.random.PCG64(seeds)).random() < self._vertical_flip:
                sample = _upside_down(sample)
        return index, sample, ""

    def batch_of(self, examples: Sequence[Example]) -> Batch:
        """Return a batch; images that could not be read are left out and named."""
        good = [(index, sample) for index, sample, _ in examples if sample is not None]
        inputs = [torch.from_numpy(sample.input) for _, sample in good]
        return Batch(
            indices=tuple(index for index, _ in good),
            inputs=torch.stack(inputs) if inputs else torch.zeros((0, 3, 0, 0)),
            targets=self._stack_targets([sample for _, sample in good]),
            problems=tuple(problem for _, _, problem in examples if problem),
        )


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which images are in the batch of each step.

    Attributes:
        images: the number of images.
        batch: the batch size, over all processes; never more than `images`.
        seed: random seed of the order.
    """

    images: int
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches; the images left over differ from epoch to epoch."""
        return max(1, self.images // self.batch)

    def batches_of(self, steps: range, world: World) -> Iterator[list[Place]]:
        """Yield this process's share of each batch: every `world.size`-th image from its rank."""
        for step in steps:
            epoch, place = divmod(step, self.steps_per_epoch)
            order = epoch_order(self.images, seed=self.seed, epoch=epoch)
            images = order[place * self.batch : (place + 1) * self.batch].tolist()
            yield [(epoch, image) for image in images[world.rank :: world.size]]


def open_batches(
    examples: Examples, places: Iterable[list[Place]], *, workers: int
) -> Iterator[Batch]:
    """Yield a batch for each list of `places`; workers, if there are any, prepare them ahead."""
    loader = DataLoader(
        examples,
        batch_sampler=places,
        num_workers=workers,
        collate_fn=examples.batch_of,
        worker_init_fn=init_worker if workers else None,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # PyTorch's own, which dropout uses, is left as it is
    )
    # in a fork of a process with OpenCV's threads, `cv2.setNumThreads` waits for them for ever
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    batches = iter(loader)
    cv2.setNumThreads(threads)
    yield from batches


def open_in_order(
    examples: Examples, indices: Sequence[int], batch: int, *, workers: int
) -> Iterator[Batch]:
    """Yield the batches of a validation: `indices` in their order."""
    parts = (indices[start : start + batch] for start in range(0, len(indices), batch))
    places = ([(0, index) for index in part] for part in parts)
    return open_batches(examples, places, workers=workers)


def padded_truths(samples: Sequence[TrainingSample]) -> Truths:
    """Return the objects of all samples, padded to equal number."""
    most = max((len(sample.labels) for sample in samples), default=0)
    boxes = np.zeros((len(samples), most, 4), np.float32)
    labels = np.zeros((len(samples), most), np.int64)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.labels)] = sample.boxes
        labels[row, : len(sample.labels)] = sample.labels
    return Truths(torch.from_numpy(boxes), torch.from_numpy(labels))


def class_labels(samples: Sequence[ClassSample]) -> torch.Tensor:
    """Return the labels (N,), from 0."""
    return torch.tensor([sample.label for sample in samples], dtype=torch.int64)


def _upside_down(sample: TrainingSample) -> TrainingSample:
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = 1 - sample.boxes[:, [3, 1]]
    return TrainingSample(np.ascontiguousarray(sample.input[:, ::-1]), boxes, sample.labels)
