"""Pictures with one class each: a folder per class, or the objects cut out of a detection set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import InputSpec
from mbv3ssd_deploy.data.augment import ColourOptions, Window, distort_colours
from mbv3ssd_deploy.data.dataset import (
    Dataset,
    DatasetProblem,
    Split,
    check_class_names,
    summary_of_problems,
)
from mbv3ssd_deploy.data.hash_split import (
    SPLIT_SEED,
    belongs_to,
    made_half,
    made_split,
    part_folders,
)
from mbv3ssd_deploy.data.images import IMAGE_EXTENSIONS, read_image_size
from mbv3ssd_deploy.data.loader import ImageCache, generator_for
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture, or a window of one, that shows one class.

    Attributes:
        image_path: the file.
        label: index into the class names, from 0, without a background.
        window: the part that counts, in pixels; None for the whole picture.
    """

    image_path: Path
    label: int
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class ClassificationSet:
    """The pictures of one split.

    Attributes:
        name: what it was read from.
        class_names: by label, without a background.
        images: in the order of classes, then of names.
        problems: what was left out.
    """

    name: str
    class_names: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    problems: tuple[DatasetProblem, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def read_image_folder(
    root: Path, split: Split, *, seed: int = SPLIT_SEED, progress: Progress = silent
) -> ClassificationSet:
    """Read ROOT/PART/CLASS/*.jpg, PART being train, val (or valid) or test; or ROOT/CLASS/*.jpg.

    Where there is no val, it is taken from train by a hash of the file names, and without any
    parts all three are made so.

    Args:
        root: the folder.
        split: which part; trainval is train and val.
        seed: of the split that is made.
        progress: called after every step.

    Raises:
        DatasetError: no such folder, fewer than two classes, duplicate names, or
            the split has no image that can be read.
    """
    if not root.is_dir():
        raise DatasetError("no such folder", where=str(root), hint="it holds train/CLASS/*.jpg")
    problems: list[DatasetProblem] = []
    parts = part_folders(root)
    class_names = _class_names(parts.values() or (root,), root, problems)
    files = [
        (path, class_names.index(path.parent.name))
        for path in _files_of_split(root, parts, split, seed, problems)
    ]
    step = "reading image sizes"
    progress(step, 0, len(files))
    images = []
    for done, (path, label) in enumerate(files, start=1):
        try:
            read_image_size(path)
            images.append(LabelledImage(path, label))
        except DatasetError as error:
            problems.append(DatasetProblem(str(path), error.message, "broken-image"))
        progress(step, done, len(files))
    name = f"folder:{root}"
    if not images:
        reasons = "".join(f"\n  {line}" for line in summary_of_problems(problems))
        raise DatasetError(f"no image of {str(split)!r} can be used{reasons}", where=name)
    return ClassificationSet(name, class_names, tuple(images), tuple(problems))


def crops_of_objects(
    dataset: Dataset, *, margin: float = 0.1, least_side_px: int = 8
) -> ClassificationSet:
    """Return the objects of a detection set as pictures of one class each.

    Args:
        dataset: whose objects; crowds and difficult ones are left out.
        margin: so much of the box's sides is added around it, as far as the image goes.
        least_side_px: smaller objects show nothing and are left out.

    Raises:
        DatasetError: no object is left.
    """
    images: list[LabelledImage] = []
    for sample in dataset.samples:
        truth = sample.truth
        sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        wanted = ~(truth.crowd | truth.difficult) & np.all(sides >= least_side_px, axis=1)
        grown = truth.boxes + margin * np.concatenate([-sides, sides], axis=1)
        limits = (sample.width, sample.height, sample.width, sample.height)
        corners = np.clip(np.round(grown), 0, limits).astype(int)
        images += [
            LabelledImage(sample.image_path, int(label) - 1, Window(*map(int, box)))
            for box, label in zip(corners[wanted], truth.labels[wanted], strict=True)
        ]
    if not images:
        raise DatasetError(
            "no object can be cut out: those below "
            f"{least_side_px} x {least_side_px} pixels, difficult ones and crowds are left out",
            where=dataset.name,
        )
    return ClassificationSet(
        f"objects of {dataset.name}", dataset.class_names[1:], tuple(images), dataset.problems
    )


def _class_names(
    parents: Iterable[Path], root: Path, problems: list[DatasetProblem]
) -> tuple[str, ...]:
    """Return the folders that hold an image in any part, sorted; the others are counted."""
    folders = [folder for parent in parents for folder in _class_folders(parent)]
    names = sorted({folder.name for folder in folders if _images_in(folder)})
    problems += [
        DatasetProblem(str(folder), "it has no image", "empty-class")
        for folder in folders
        if folder.name not in names
    ]
    if len(names) < 2:
        raise DatasetError(
            f"a folder with images for each class is needed, and there are {len(names)}",
            where=str(root),
            hint="lay the images out as ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg",
        )
    check_class_names(names, where=str(root))
    return tuple(names)


def _class_folders(parent: Path) -> Iterator[Path]:
    for folder in sorted(parent.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            yield folder


def _files_of_split(
    root: Path,
    parts: Mapping[Split, Path],
    split: Split,
    seed: int,
    problems: list[DatasetProblem],
) -> list[Path]:
    if not parts:
        reason = (
            "no train, val or test in it: the hash of each file name decides, "
            f"about 70 % train, 15 % val, 15 % test (seed {seed})"
        )
        problems.append(DatasetProblem(str(root), reason, "split-made"))
        return [path for path in _files_in(root) if belongs_to(made_split(_key(path), seed), split)]
    if split is Split.TRAINVAL:
        wanted = [parts[part] for part in (Split.TRAIN, Split.VAL) if part in parts]
        return [path for folder in wanted for path in _files_in(folder)]
    if split is Split.TEST or Split.VAL in parts:
        if split not in parts:
            raise DatasetError(
                f"no folder {str(split)!r}", where=str(root), hint=f"make ROOT/{split}"
            )
        return _files_in(parts[split])
    reason = (
        "no val: it is taken from train, where the hash of each file name decides, "
        f"about 85 % train, 15 % val (seed {seed})"
    )
    problems.append(DatasetProblem(str(root), reason, "split-made"))
    return [
        path
        for path in _files_in(parts[Split.TRAIN])
        if belongs_to(made_half(_key(path), seed), split)
    ]


def _files_in(parent: Path) -> list[Path]:
    return [path for folder in _class_folders(parent) for path in _images_in(folder)]


def _images_in(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".")
    ]


def _key(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


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
            IndexError: no such index.
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
