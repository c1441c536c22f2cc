"""Images with one class each, as batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from mbv3ssd_deploy.data.classification import ClassSample, ClassSamples
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.folders import ClassificationSet, crops_of_objects, read_image_folder
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.train.batches import BatchPlan, StepSampler, start_quietly
from mbv3ssd_deploy.train.distributed import Team

_VALIDATION_BATCH = 32


class ClassBatch(NamedTuple):
    """`inputs` float32 (N, 3, H, W), normalised; `labels` int64 (N,), from 0; what was left out."""

    inputs: torch.Tensor
    labels: torch.Tensor
    problems: tuple[str, ...]


def read_classes(
    source: str, split: Split, *, seed: int, progress: Progress = silent
) -> ClassificationSet:
    """Read `folder:ROOT`, or cut the objects out of a detection source.

    Raises:
        DatasetError: the source cannot be used.
    """
    kind, _, place = source.partition(":")
    if kind == "folder":
        return read_image_folder(Path(place), split, seed=seed, progress=progress)
    try:
        return crops_of_objects(read_dataset(source, split, seed=seed, progress=progress))
    except DatasetError as error:
        if not place:
            error.hint = f"{error.hint}; a folder a class is folder:{source}"
        raise


def training_batches(
    samples: ClassSamples, plan: BatchPlan, epoch: int, workers: int
) -> Iterable[ClassBatch]:
    """Return the batches of an epoch (from 0); images that cannot be read are left out."""
    per_epoch = plan.steps_per_epoch
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return _loader(samples, StepSampler(plan, steps, Team()), workers)


def validation_batches(samples: ClassSamples, workers: int) -> Iterable[ClassBatch]:
    """Return all images once, in their order."""
    places = [
        [(0, index) for index in range(first, min(first + _VALIDATION_BATCH, len(samples)))]
        for first in range(0, len(samples), _VALIDATION_BATCH)
    ]
    return _loader(samples, places, workers)


class _Attempts(Dataset["ClassSample | DatasetError"]):
    def __init__(self, samples: ClassSamples) -> None:
        self._samples = samples

    def __getitem__(self, at: tuple[int, int]) -> ClassSample | DatasetError:
        return self._samples.attempt(at)


def _loader(
    samples: ClassSamples, order: Iterable[list[tuple[int, int]]], workers: int
) -> Iterator[ClassBatch]:
    loader = DataLoader(
        _Attempts(samples),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_batch_of,
        worker_init_fn=start_quietly if workers else None,
    )
    yield from loader


def _batch_of(found: Sequence[ClassSample | DatasetError]) -> ClassBatch:
    good = [one for one in found if isinstance(one, ClassSample)]
    problems = tuple(str(one) for one in found if isinstance(one, DatasetError))
    inputs = [torch.from_numpy(one.input) for one in good]
    return ClassBatch(
        torch.stack(inputs) if inputs else torch.zeros((0, 3, 0, 0)),
        torch.tensor([one.label for one in good], dtype=torch.int64),
        problems,
    )
