"""Which class of the data a class of the model is: by name, in whatever order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64, I64, U8
from mbv3ssd_deploy.core.average_precision import Protocol, average_precision
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import BoxEdges, DetectorSpec
from mbv3ssd_deploy.core.truth import GroundTruth
from mbv3ssd_deploy.data.dataset import Dataset, Sample, class_key
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import DatasetError, FormatError, first_few
from mbv3ssd_deploy.evaluate.report import EvaluationReport, LeftOutImage, RuntimeRow
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.runtimes.model import Output
from mbv3ssd_deploy.runtimes.open_model import OpenedModel

_LISTED = 8


@dataclass(frozen=True, slots=True, eq=False)
class ClassMatch:
    """The model's classes in terms of the data's.

    Attributes:
        labels: (C,) the data's label of each label of the model; 0 where the data has no such
            class, and for the background.
        respelled: (model's name, data's name) of classes that differ by case, blanks, - or _ only.
        unknown: names of the data that the model does not know.
        unused: names of the model that the data does not have.
    """

    labels: I64
    respelled: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]
    unused: tuple[str, ...]

    def notices(self) -> tuple[str, ...]:
        """Return what a user should know, in sentences."""
        notices = []
        if self.unknown:
            notices.append(
                f"the model does not know {listed(self.unknown)}: such objects count as missed"
            )
        if self.unused:
            notices.append(f"the data has no {listed(self.unused)}: its detections do not count")
        if self.respelled:
            pairs = [f"{ours!r} is {theirs!r}" for ours, theirs in self.respelled]
            notices.append(f"different spellings: {', '.join(pairs)}")
        return tuple(notices)

    def of_data(self, detections: Detections) -> Detections:
        """Return the detections with the data's labels, those of its classes only."""
        labels = self.labels[detections.labels]
        kept = labels > 0
        return Detections(detections.boxes[kept], detections.scores[kept], labels[kept])


def match_classes(model: Sequence[str], data: Sequence[str]) -> ClassMatch:
    """Return which class of `data` each class of `model` is; both begin with the background.

    Names are equal as they are written, or failing that without case, blanks, hyphens and
    underscores.

    Raises:
        DatasetError: no class of the data is a class of the model.
    """
    exact = {name: label for label, name in enumerate(data) if label}
    loose = {class_key(name): label for name, label in exact.items() if name not in model[1:]}
    labels = np.zeros(len(model), np.int64)
    respelled = []
    for index, name in enumerate(model[1:], 1):
        label = exact.get(name, 0)
        if not label:
            label = loose.get(class_key(name), 0)
            respelled += [(name, data[label])] if label else []
        labels[index] = label
    used = set(labels.tolist())
    unknown = tuple(name for name, label in exact.items() if label not in used)
    if len(unknown) == len(exact):
        raise DatasetError(
            f"no class of the data is a class of the model: the data has {listed(data[1:])}; "
            f"the model has {listed(model[1:])}",
            hint="where the model's names are made up, export its checkpoint again with "
            "`--labels FILE`, the names one a line in the order of training",
        )
    unused = tuple(model[i] for i in range(1, len(model)) if not labels[i])
    return ClassMatch(labels, tuple(respelled), unknown, unused)


def listed(names: Sequence[str]) -> str:
    """Return the names in a row, quoted; the first few of many."""
    return first_few([repr(name) for name in names], _LISTED)


SCORE_THRESHOLD = 0.01
"""A curve needs the unsure boxes, too; a family with a lower threshold keeps it."""
CHUNK = 32
"""How many images are in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How raw heads are read for the metric.

    Attributes:
        spec: the family's rules, the score threshold lowered.
        priors: (P, 4).
        classes: the model's in terms of the data's.
    """

    spec: DetectorSpec
    priors: F64
    classes: ClassMatch

    def detections(self, loc: F32, conf: F32, sample: Sample) -> Detections:
        """Return one image's detections in pixels of the annotation, by the data's labels."""
        try:
            found = detections_from_heads(loc, conf, self.spec, self.priors)
        except ValueError as error:
            raise FormatError(f"the model's heads are not those of its record: {error}") from error
        return self.in_data(self._with_continuous_edges(found), sample)

    def in_data(self, found: Detections, sample: Sample) -> Detections:
        """Return normalised detections in pixels of the annotation, by the data's labels."""
        return scaled(self.classes.of_data(found), sample.width, sample.height)

    def _with_continuous_edges(self, found: Detections) -> Detections:
        """Truth ends where a box ends; some families name the last pixel inside instead."""
        if self.spec.decode.box_edges is BoxEdges.CONTINUOUS:
            return found
        wanted = self.spec.input
        ends = np.array((0, 0, 1 / wanted.width, 1 / wanted.height), np.float32)
        return Detections(found.boxes + ends, found.scores, found.labels)


@dataclass(slots=True)
class _Tally:
    """What one runtime has found so far, image by image."""

    opened: OpenedModel
    found: list[Detections] = field(default_factory=list)
    deployed: list[Detections] = field(default_factory=list)
    seconds: float = 0.0
    ran: str = ""

    def add(self, output: Output, samples: Sequence[Sample], reading: Reading) -> None:
        self.seconds, self.ran = self.seconds + output.seconds, output.ran
        for index, sample in enumerate(samples):
            self.found.append(reading.detections(output.loc[index], output.conf[index], sample))
            if output.detections is not None:
                self.deployed.append(reading.in_data(output.detections[index], sample))

    def row(
        self, truths: Sequence[GroundTruth], class_count: int, protocol: Protocol
    ) -> RuntimeRow:
        report = average_precision(self.found, truths, class_count, protocol)
        deployed = None
        if self.deployed:
            deployed = average_precision(self.deployed, truths, class_count, protocol)
        return RuntimeRow(
            name=self.opened.name,
            title=self.opened.title,
            ran=self.ran,
            ap=report,
            deployed=deployed,
            ms_per_image=1000 * self.seconds / len(truths),
            file_bytes=self.opened.file_bytes,
        )


def evaluate(
    dataset: Dataset,
    spec: DetectorSpec,
    models: Sequence[OpenedModel],
    *,
    protocol: Protocol,
    progress: Progress = silent,
) -> EvaluationReport:
    """Return how well each of `models` finds what is in `dataset`.

    Args:
        dataset: one split.
        spec: how images are prepared and heads are decoded; the same for all models.
        models: the first is the reference of all drops, unless one is called "torch".
        protocol: whose rules.
        progress: called after every chunk of images.

    Raises:
        DatasetError: no class of the data is a class of the model, no image can be read, or the
            images hold no object that counts.
        RuntimeFailedError: a runtime refused the model or crashed.
        FormatError: a runtime's heads are not what the spec promises.
        ValueError: no models.
    """
    if not models:
        raise ValueError("no runtime to evaluate")
    began = time.perf_counter()
    reading = reading_of(spec, dataset)
    samples = dataset.samples
    tallies = [_Tally(opened) for opened in models]
    used: list[Sample] = []
    left_out: list[LeftOutImage] = []
    progress("evaluate", 0, len(samples))
    for chunk, images in _chunks(samples, left_out):
        inputs = np.stack([input_from_image(image, spec.input) for image in images])
        for tally in tallies:
            tally.add(tally.opened.model.run(inputs), chunk, reading)
        used += chunk
        progress("evaluate", len(used) + len(left_out), len(samples))
    truths = [sample.truth for sample in used]
    _check_truths(dataset, truths, left_out)
    progress("evaluate", len(samples), len(samples))
    return EvaluationReport(
        data=dataset.name,
        model=spec.name,
        class_names=dataset.class_names,
        images=len(used),
        left_out=tuple(left_out),
        protocol=protocol,
        score_threshold=reading.spec.decode.score_threshold,
        rows=tuple(tally.row(truths, len(dataset.class_names), protocol) for tally in tallies),
        notices=reading.classes.notices(),
        seconds=time.perf_counter() - began,
    )


def reading_of(spec: DetectorSpec, dataset: Dataset) -> Reading:
    """Return how the heads of `spec` are read for the metric on `dataset`.

    Raises:
        DatasetError: no class of the data is a class of the model.
    """
    threshold = min(spec.decode.score_threshold, SCORE_THRESHOLD)
    low = replace(spec, decode=replace(spec.decode, score_threshold=threshold))
    classes = match_classes(spec.class_names, dataset.class_names)
    return Reading(low, build_priors(spec.priors), classes)


def _chunks(
    samples: Sequence[Sample], left_out: list[LeftOutImage]
) -> Iterator[tuple[list[Sample], list[U8]]]:
    """Yield a few images at a time; those that cannot be read go into `left_out`."""
    for first in range(0, len(samples), CHUNK):
        chunk, images = [], []
        for sample in samples[first : first + CHUNK]:
            try:
                images.append(read_image(sample.image_path))
                chunk.append(sample)
            except DatasetError as error:
                left_out.append(LeftOutImage(str(sample.image_path), error.message))
        if chunk:
            yield chunk, images


def _check_truths(
    dataset: Dataset, truths: Sequence[GroundTruth], left_out: Sequence[LeftOutImage]
) -> None:
    if not truths:
        reasons = [f"{one.image}: {one.reason}" for one in left_out[:5]]
        raise DatasetError(
            "\n  ".join(["none of the images could be read", *reasons]), where=dataset.name
        )
    if not any((~one.difficult & ~one.crowd).any() for one in truths):
        raise DatasetError(
            f"the {len(truths)} images hold no object that counts", where=dataset.name
        )
