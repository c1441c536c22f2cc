"""From annotated images of any format to samples: sizes are read, boxes checked, losses counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mbv3ssd_deploy.data.dataset import Dataset, DatasetProblem, Sample
from mbv3ssd_deploy.data.image_header import read_image_size
from mbv3ssd_deploy.data.objects import AnnotatedObject, truth_from_objects
from mbv3ssd_deploy.data.summary import summary_of_problems
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and what its annotation says, before either is checked against the other.

    Attributes:
        image_id: its name in the data set.
        image_path: the file.
        place: where the annotation stands.
        objects: in the annotation's order.
        declared_size: (width, height) that the annotation gives, if any.
        relative: the boxes are shares of the image's width and height, not pixels.
    """

    image_id: str
    image_path: Path
    place: str
    objects: tuple[AnnotatedObject, ...]
    declared_size: tuple[int, int] | None = None
    relative: bool = False


def checked_samples(
    images: Sequence[AnnotatedImage],
    labels: Mapping[str, int],
    problems: list[DatasetProblem],
    progress: Progress,
) -> Iterator[Sample]:
    """Yield a sample for each image that can be read and is as large as its annotation says.

    Args:
        images: in the data set's order.
        labels: label by class name.
        problems: gets a line for everything that is left out.
        progress: told after each image.
    """
    step = "reading image sizes"
    progress(step, 0, len(images))
    for done, image in enumerate(images, start=1):
        size = _checked_size(image, problems)
        if size is not None:
            objects = _objects_in_pixels(image, size)
            truth = truth_from_objects(objects, size, labels, problems)
            yield Sample(image.image_id, image.image_path, *size, truth)
        progress(step, done, len(images))


def dataset_from_samples(
    name: str,
    class_names: tuple[str, ...],
    samples: Sequence[Sample],
    problems: Sequence[DatasetProblem],
) -> Dataset:
    """Return the data set; without a sample or without an object there is none.

    Raises:
        DatasetError: nothing is left; the message sums up why.
    """
    summary = summary_of_problems(problems)
    if not samples:
        raise DatasetError(f"not one image can be used{_as_reasons(summary)}", where=name)
    if not any(len(sample.truth) for sample in samples):
        raise DatasetError(
            f"not one object is annotated in {len(samples)} images{_as_reasons(summary)}",
            where=name,
        )
    return Dataset(name, class_names, tuple(samples), tuple(problems))


def _as_reasons(summary: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in summary)


def _checked_size(image: AnnotatedImage, problems: list[DatasetProblem]) -> tuple[int, int] | None:
    try:
        size = read_image_size(image.image_path)
    except DatasetError as error:
        kind = "broken-image" if image.image_path.exists() else "missing-image"
        problems.append(DatasetProblem(str(image.image_path), error.message, kind))
        return None
    declared = image.declared_size
    if declared is not None and min(declared) > 0 and declared != size:
        reason = (
            f"drawn for an image of {declared[0]} x {declared[1]}, "
            f"but {image.image_path.name} has {size[0]} x {size[1]} pixels"
        )
        problems.append(DatasetProblem(image.place, reason, "size-mismatch"))
        return None
    return size


def _objects_in_pixels(image: AnnotatedImage, size: tuple[int, int]) -> tuple[AnnotatedObject, ...]:
    if not image.relative:
        return image.objects
    width, height = size
    return tuple(
        replace(
            thing,
            box=(
                thing.box[0] * width,
                thing.box[1] * height,
                thing.box[2] * width,
                thing.box[3] * height,
            ),
        )
        for thing in image.objects
    )
