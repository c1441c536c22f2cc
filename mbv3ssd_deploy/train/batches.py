"""Batches of training images, the same whatever the number of worker processes.

Which images stand in the batch of a step is a function of seed and step; what augmentation does to
an image is a function of seed, epoch and image. So a run can go on from any step, in any number of
processes, and sees the same pixels.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mbv3ssd_deploy.data.loader import TrainingSample, TrainingSamples, epoch_order, start_worker
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.train.distributed import Team
from mbv3ssd_deploy.train.matching import Truths

_FLIP_STREAM = 1
"""Keeps the random numbers of the vertical flip apart from those of the augmentation."""


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        places: which images of the data set these are.
        inputs: float32 (N, 3, H, W), normalised.
        truths: their objects.
        problems: the images of this batch that could not be read, a sentence each.
    """

    places: tuple[int, ...]
    inputs: torch.Tensor
    truths: Truths
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which images each step sees.

    Attributes:
        images: how many there are.
        batch: images a step, over all processes; never more than there are.
        seed: of the order.
    """

    images: int
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: the images left over are others in every epoch."""
        return max(1, self.images // self.batch)

    def images_of_step(self, step: int) -> tuple[int, list[int]]:
        """Return the epoch of `step` (both from 0) and the images of its batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = epoch_order(self.images, seed=self.seed, epoch=epoch)
        return epoch, order[place * self.batch : (place + 1) * self.batch].tolist()


class Examples(Dataset["Example"]):
    """Training samples by (epoch, index), turned upside down as chance has it.

    Args:
        samples: read and augmented.
        image_ids: what their images are called.
        seed: of the turns.
        vertical_flip: how likely an image is turned upside down.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        *,
        image_ids: tuple[str, ...],
        seed: int,
        vertical_flip: float,
    ) -> None:
        self.image_ids = image_ids
        self._samples, self._seed, self._vertical_flip = samples, seed, vertical_flip

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, at: tuple[int, int]) -> Example:
        """Return the sample, or what is wrong with it: workers raise no errors."""
        made = self._samples.attempt(at)
        if isinstance(made, DatasetError):
            return Example(at[1], None, str(made))
        epoch, index = at
        seeds = np.random.SeedSequence((self._seed, epoch, index + 1, _FLIP_STREAM))
        if np.random.Generator(np.random.PCG64(seeds)).random() < self._vertical_flip:
            made = _upside_down(made)
        return Example(index, made, "")


class Example(NamedTuple):
    """A sample, or None and what is wrong with the image at this place."""

    place: int
    sample: TrainingSample | None
    problem: str


def open_batches(
    examples: Examples, plan: BatchPlan, steps: range, *, team: Team, workers: int
) -> Iterable[Batch]:
    """Return the batches of `steps`, one after the other; with workers, prepared ahead.

    Of each batch, a process gets every `team.size`-th image from its rank on.
    """
    return DataLoader(
        examples,
        batch_sampler=StepSampler(plan, steps, team),
        num_workers=workers,
        collate_fn=_batch_from_examples,
        worker_init_fn=start_quietly if workers else None,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
    )


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The images of each step, as (epoch, index): this process's share of the plan."""

    def __init__(self, plan: BatchPlan, steps: range, team: Team) -> None:
        self._plan, self._steps, self._team = plan, steps, team

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self._steps:
            epoch, images = self._plan.images_of_step(step)
            yield [(epoch, image) for image in images[self._team.rank :: self._team.size]]

    def __len__(self) -> int:
        return len(self._steps)


def _upside_down(sample: TrainingSample) -> TrainingSample:
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = 1 - sample.boxes[:, [3, 1]]
    return TrainingSample(np.ascontiguousarray(sample.input[:, ::-1]), boxes, sample.labels)


def _batch_from_examples(examples: Sequence[Example]) -> Batch:
    """Return a batch of the samples; images that could not be read are left out and named."""
    good = [(one.place, one.sample) for one in examples if one.sample is not None]
    most = max((len(sample.labels) for _, sample in good), default=0)
    boxes = np.zeros((len(good), most, 4), np.float32)
    labels = np.zeros((len(good), most), np.int64)
    for row, (_, sample) in enumerate(good):
        boxes[row, : len(sample.labels)] = sample.boxes
        labels[row, : len(sample.labels)] = sample.labels
    inputs = [torch.from_numpy(sample.input) for _, sample in good]
    return Batch(
        places=tuple(place for place, _ in good),
        inputs=torch.stack(inputs) if inputs else torch.zeros((0, 3, 0, 0)),
        truths=Truths(torch.from_numpy(boxes), torch.from_numpy(labels)),
        problems=tuple(one.problem for one in examples if one.problem),
    )


def start_quietly(number: int) -> None:
    """Prepare a worker process: one thread, deaf to Ctrl-C, ended by SIGTERM.

    Ctrl-C reaches every process of a terminal; the workers go on until the parent has saved. A
    forked worker has the parent's handlers, which would only note what they are told.
    """
    start_worker(number)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
