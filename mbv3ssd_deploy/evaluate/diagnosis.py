"""Why mAP is low: the usual mistakes, each tried on a sample of the images.

A mistake is named only where undoing it really finds the objects again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, U8
from mbv3ssd_deploy.core.average_precision import Protocol, average_precision
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.data.dataset import Dataset, Sample
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.evaluate.evaluate import Reading, reading_of
from mbv3ssd_deploy.evaluate.report import EvaluationReport, RuntimeRow
from mbv3ssd_deploy.runtimes.model import Output
from mbv3ssd_deploy.runtimes.open_model import OpenedModel

NEAR_ZERO = 0.05
"""Below this mAP something is wrong, not just weak."""
LOW = 0.15
"""Below this the mistakes are tried; with few classes, and by VOC's 11 points, which credit a class
0.09 for one lucky hit, labels that are one off come to 0.1."""
SAMPLE = 64
"""How many images with objects the mistakes are tried on."""
MENDED = 0.1
"""The least mAP that counts as fixed; it must also be `TIMES` the original."""
TIMES = 5.0
AS_GOOD = 0.5
"""A fix that reaches this share of the best one's mAP is named with it."""

Undo = Callable[[F32], F32]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A usual mistake.

    Attributes:
        sentence: what fixes it, after "it rises to .. when".
        fix: what to do.
        swaps_colours: undone by looking again, red and blue exchanged.
        undo: the logits (N, P, C) without the mistake, background first.
    """

    sentence: str
    fix: str
    swaps_colours: bool = False
    undo: Undo = lambda conf: conf


def _one_up(conf: F32) -> F32:
    """What was called label 1 is label 2, and so on; the last is label 1."""
    return np.concatenate([conf[..., :1], conf[..., -1:], conf[..., 1:-1]], axis=-1)


def _one_down(conf: F32) -> F32:
    return np.concatenate([conf[..., :1], conf[..., 2:], conf[..., 1:2]], axis=-1)


def _background_last(conf: F32) -> F32:
    return np.concatenate([conf[..., -1:], conf[..., :-1]], axis=-1)


_NAMES = "the class names are one off: export the checkpoint again with the right `--labels`"
# Of equally good fixes the first is named first.
MISTAKES: tuple[Mistake, ...] = (
    Mistake("every label is moved up by one", _NAMES, undo=_one_up),
    Mistake("every label is moved down by one", _NAMES, undo=_one_down),
    Mistake(
        "the last class is read as the background instead of the first",
        "the checkpoint has its background last: move that class to the front of its heads",
        undo=_background_last,
    ),
    Mistake(
        "red and blue are exchanged",
        "the checkpoint expects the other channel order: export it again with (or without) `--bgr`",
        swaps_colours=True,
    ),
)


def with_diagnosis(
    report: EvaluationReport, dataset: Dataset, spec: DetectorSpec, models: Sequence[OpenedModel]
) -> EvaluationReport:
    """Return the report with a sentence for each runtime whose mAP is low and can be fixed.

    Near zero there is a sentence even if nothing helps. If the reference is low, only it is tried.

    Args:
        report: of `evaluate` on the same three.
        dataset: where the sample is from.
        spec: how images are prepared and heads are decoded.
        models: in the order of the report's rows.
    """
    reference = report.reference
    rows = [reference] if reference.ap.mean < LOW else report.rows
    by_name = {model.name: model for model in models}
    sentences = [
        _sentence(row, by_name[row.name], dataset, spec) for row in rows if row.ap.mean < LOW
    ]
    return replace(report, diagnosis=tuple(filter(None, sentences)))


def _sentence(row: RuntimeRow, model: OpenedModel, dataset: Dataset, spec: DetectorSpec) -> str:
    is_near_zero = row.ap.mean < NEAR_ZERO
    low = f"{row.name}: mAP is {'near zero' if is_near_zero else 'low'} ({row.ap.mean:.4f})"
    classes = len(dataset.class_names)
    trial = _Trial(reading_of(spec, dataset), model, classes, *_sample(dataset))
    output, swapped = trial.run(), trial.run(swap_colours=True)
    before = trial.mean(output)
    means = [trial.mean(swapped if one.swaps_colours else output, one.undo) for one in MISTAKES]
    wanted = max(MENDED, TIMES * before, AS_GOOD * max(means))
    fixes = sorted((-mean, index) for index, mean in enumerate(means) if mean >= wanted)
    if not fixes and not is_near_zero:
        return ""
    if not fixes:
        return (
            f"{low}; neither labels moved by one, nor the background at the other end, nor "
            f"exchanged colours would fix it"
        )
    rises = [
        f"to {means[index]:.3f} when {MISTAKES[index].sentence} ({MISTAKES[index].fix})"
        for _, index in fixes
    ]
    return f"{low}; on {len(trial.samples)} images it rises from {before:.3f} {', or '.join(rises)}"


def _sample(dataset: Dataset) -> tuple[list[Sample], list[U8]]:
    samples: list[Sample] = []
    images: list[U8] = []
    for sample in dataset.samples:
        if len(samples) == SAMPLE:
            break
        if not len(sample.truth):
            continue
        try:
            images.append(read_image(sample.image_path))
            samples.append(sample)
        except DatasetError:
            continue  # the evaluation has reported it
    return samples, images


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One runtime and the sample that the mistakes are tried on."""

    reading: Reading
    model: OpenedModel
    class_count: int
    samples: list[Sample]
    images: list[U8]

    def run(self, *, swap_colours: bool = False) -> Output:
        step = -1 if swap_colours else 1
        spec = self.reading.spec.input
        planes = [input_from_image(image[..., ::step], spec) for image in self.images]
        return self.model.model.run(np.stack(planes))

    def mean(self, output: Output, undo: Undo = lambda conf: conf) -> float:
        found: list[Detections] = [
            self.reading.detections(loc, conf, sample)
            for loc, conf, sample in zip(output.loc, undo(output.conf), self.samples, strict=True)
        ]
        truths = [sample.truth for sample in self.samples]
        return average_precision(found, truths, self.class_count, Protocol.VOC_AREA).mean
