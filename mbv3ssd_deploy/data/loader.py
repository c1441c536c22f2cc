"""From a data set to training samples, the same for any worker and order.

A sample is a pure function of (data set, input spec, options, seed, epoch, index): it does not
matter how many worker processes there are, nor which of them makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, I64, U8
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import InputSpec
from mbv3ssd_deploy.data.augment import SSD_AUGMENTATION, AugmentOptions, augment
from mbv3ssd_deploy.data.dataset import Dataset
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import DatasetError


class TrainingSample(NamedTuple):
    """One image as input of the network and the loss.

    Attributes:
        input: float32 (3, height, width), normalised by the input spec.
        boxes: float32 (n, 4) corners as shares of width and height, 0..1; n may be 0.
        labels: int64 (n,), from 1.
    """

    input: F32
    boxes: F32
    labels: I64


class TrainingSamples:
    """The augmented samples of a data set; `samples[epoch, index]` makes one.

    Torch's `DataLoader` takes it as it is when its batch sampler gives lists of (epoch, index).
    What a worker process raises reaches the main process as a traceback in words: let the worker
    call `attempt`, and raise in the main process what comes back as an error.
    """

    def __init__(
        self,
        dataset: Dataset,
        input_spec: InputSpec,
        *,
        seed: int,
        options: AugmentOptions = SSD_AUGMENTATION,
        cache_bytes: int = 0,
    ) -> None:
        """Take note of everything; no image is read yet.

        Args:
            dataset: which images and objects; crowds are never trained on, and objects that are
                flagged as difficult only if the options include them.
            input_spec: the network's input.
            seed: the source of every choice.
            options: the augmentation.
            cache_bytes: decoded images are kept until they take so much, in each process.
        """
        self._dataset = dataset
        self._input_spec = input_spec
        self._seed = seed
        self._options = options
        self._images = ImageCache(cache_bytes)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, at: tuple[int, int]) -> TrainingSample:
        """Return the sample of (epoch, index).

        Raises:
            DatasetError: the image cannot be read; `where` is its file.
            IndexError: no such index.
        """
        epoch, index = at
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample = self._dataset.samples[index]
        image, truth = self._images.read(sample.image_path), sample.truth
        wanted = ~truth.crowd
        if not self._options.keep_difficult:
            wanted = wanted & ~truth.difficult
        rng = generator_for(self._seed, epoch, index + 1)
        image, boxes, labels = augment(
            rng, image, truth.boxes[wanted], truth.labels[wanted], self._options
        )
        height, width = image.shape[:2]
        shares = (boxes / np.array([width, height, width, height])).astype(np.float32)
        return TrainingSample(input_from_image(image, self._input_spec), shares, labels)

    def attempt(self, at: tuple[int, int]) -> TrainingSample | DatasetError:
        """Return the sample of (epoch, index), or the error that names the file it failed on."""
        try:
            return self[at]
        except DatasetError as error:
            return error
        except (cv2.error, ValueError, MemoryError) as error:
            path = self._dataset.samples[at[1]].image_path
            return DatasetError(f"no sample can be made of it: {error}", where=str(path))


class ImageCache:
    """Reads pictures, and keeps the first ones that fit into `limit_bytes`.

    Nothing is ever dropped for another: an epoch comes to each image once, so that dropping the
    oldest would always drop the one that is wanted next.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._kept: dict[Path, U8] = {}

    def read(self, path: Path) -> U8:
        """Return the picture as RGB uint8 (H, W, 3), not to be written to.

        Raises:
            DatasetError: it cannot be read.
        """
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        image = read_image(path)
        if image.nbytes <= self._left:
            image.setflags(write=False)
            self._kept[path] = image
            self._left -= image.nbytes
        return image


def epoch_order(count: int, *, seed: int, epoch: int) -> I64:
    """Return the indices 0..count-1 in the random order of this epoch: int64 (count,)."""
    return generator_for(seed, epoch, 0).permutation(count).astype(np.int64)


def generator_for(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Return the source of chance for one sample (number = index + 1) or the order (0)."""
    # SeedSequence fills up with zeros, so that a shorter tuple would repeat sample 0's numbers
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, number))))


def start_worker(_number: int = 0) -> None:
    """Keep OpenCV to one thread in a worker process; torch's `worker_init_fn`.

    The processes share the work already, and OpenCV's threads do not survive a fork.
    """
    cv2.setNumThreads(1)
