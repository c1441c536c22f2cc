"""Training samples for a classifier: a random part of a picture, mirrored now and then.

The crop is that of Inception's training (Szegedy et al., arXiv 1409.4842, section 6): a share of
the area and a ratio of the sides are drawn, the ratio evenly on a logarithmic scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import InputSpec
from mbv3ssd_deploy.data.augment import Window
from mbv3ssd_deploy.data.colours import ColourOptions, distort_colours
from mbv3ssd_deploy.data.folders import ClassificationSet
from mbv3ssd_deploy.data.loader import ImageCache, generator_for
from mbv3ssd_deploy.errors import DatasetError

_TRIES = 10


@dataclass(frozen=True, slots=True)
class ClassAugmentOptions:
    """The augmentation of a classifier's training images.

    Attributes:
        areas: minimum and maximum area of a crop, as a share of the image; (1, 1) for no crop.
        ratios: minimum and maximum width / height of a crop.
        flip_chance: probability of mirroring left and right.
        colours: brightness, contrast, saturation, hue.
    """

    areas: tuple[float, float] = (0.25, 1.0)
    ratios: tuple[float, float] = (3 / 4, 4 / 3)
    flip_chance: float = 0.5
    colours: ColourOptions = ColourOptions()  # noqa: RUF009 -- frozen, so it may be shared


CLASS_AUGMENTATION = ClassAugmentOptions()
"""For training."""

NO_CLASS_AUGMENTATION = ClassAugmentOptions((1.0, 1.0), (0.0, math.inf), 0.0, ColourOptions(0.0))
"""For validation: the whole picture, unchanged."""


class ClassSample(NamedTuple):
    """A classifier's input, float32 (3, height, width), and its label from 0."""

    input: F32
    label: int


class ClassSamples:
    """The augmented samples of a classification set; `samples[epoch, index]` makes one.

    As of `data.loader.TrainingSamples`, a sample depends on arguments, epoch and index only, not on
    the process; worker processes call `attempt`.
    """

    def __init__(
        self,
        images: ClassificationSet,
        input_spec: InputSpec,
        *,
        seed: int,
        options: ClassAugmentOptions = CLASS_AUGMENTATION,
        cache_bytes: int = 0,
    ) -> None:
        """Read no image yet.

        Args:
            images: paths and labels.
            input_spec: the network's input.
            seed: random seed.
            options: the augmentation.
            cache_bytes: the memory for decoded images, in each process.
        """
        self._images = images.images
        self._input_spec = input_spec
        self._seed = seed
        self._options = options
        self._cache = ImageCache(cache_bytes)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, at: tuple[int, int]) -> ClassSample:
        """Return the sample of (epoch, index).

        Raises:
            DatasetError: the image cannot be read; `where` is its file.
            IndexError: there is no such index.
        """
        epoch, index = at
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        item = self._images[index]
        image = self._cache.read(item.image_path)
        if item.window is not None:
            image = _part(image, item.window)
        image = augment_for_class(generator_for(self._seed, epoch, index + 1), image, self._options)
        return ClassSample(input_from_image(image, self._input_spec), item.label)

    def attempt(self, at: tuple[int, int]) -> ClassSample | DatasetError:
        """Return the sample of (epoch, index), or the error that names the file it failed on."""
        try:
            return self[at]
        except DatasetError as error:
            return error
        except (cv2.error, ValueError, MemoryError) as error:
            path = self._images[at[1]].image_path
            return DatasetError(f"cannot be made into a sample: {error}", where=str(path))


def augment_for_class(
    rng: np.random.Generator, image_rgb: U8, options: ClassAugmentOptions = CLASS_AUGMENTATION
) -> U8:
    """Return a random crop of the picture, of any size, randomly mirrored and recoloured.

    Args:
        rng: the random generator.
        image_rgb: uint8 (H, W, 3); not changed.
        options: the augmentation.
    """
    height, width = image_rgb.shape[:2]
    image = _part(image_rgb, draw_part(rng, width, height, options))
    image = distort_colours(rng, image, options.colours)
    if rng.random() < options.flip_chance:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def draw_part(
    rng: np.random.Generator, width: int, height: int, options: ClassAugmentOptions
) -> Window:
    """Return a window of random area and ratio inside the image; the whole if none fits."""
    whole = Window(0, 0, width, height)
    least, most = options.areas
    if least >= 1:
        return whole
    for _ in range(_TRIES):
        area = (least + (most - least) * rng.random()) * width * height
        low, high = map(math.log, options.ratios)
        ratio = math.exp(low + (high - low) * rng.random())
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = int(rng.integers(width - across + 1))
            top = int(rng.integers(height - down + 1))
            return Window(left, top, left + across, top + down)
    return whole


def _part(image: U8, window: Window) -> U8:
    return image[window.top : window.bottom, window.left : window.right]
