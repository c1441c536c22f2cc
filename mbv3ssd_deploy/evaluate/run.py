"""From what a user types to a report: read the data, open the runtimes, evaluate, explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.core.average_precision import Protocol
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.data.summary import every_problem, remark_on_more, summary_of_problems
from mbv3ssd_deploy.evaluate.diagnosis import with_diagnosis
from mbv3ssd_deploy.evaluate.evaluate import evaluate
from mbv3ssd_deploy.evaluate.opening import opened
from mbv3ssd_deploy.evaluate.report import EvaluationReport
from mbv3ssd_deploy.io.progress import Progress, silent

USUAL_PROTOCOL: Mapping[str, Protocol] = MappingProxyType(
    {"voc": Protocol.VOC07, "coco": Protocol.COCO, "yolo": Protocol.VOC_AREA}
)
"""The metric that people quote for data in a format, by the word before the colon."""


def evaluate_files(  # noqa: PLR0913 -- one argument a decision of the user
    source: Path,
    data: str,
    split: Split = Split.TEST,
    *,
    runtimes: Sequence[str] = (),
    protocol: Protocol | None = None,
    checkpoint: Path | None = None,
    options: LoadOptions | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> EvaluationReport:
    """Return how well a bundle or a checkpoint finds what is in a data set.

    Args:
        source: a bundle folder or a checkpoint file.
        data: as `data.sources.read_dataset` takes it.
        split: which part of it.
        runtimes: keys of `runtimes.open_model.MODELS`; by default the usual ones that exist.
        protocol: whose rules; by default those of the data's format (`USUAL_PROTOCOL`).
        checkpoint: of the bundle, if it moved.
        options: how a checkpoint file is read.
        limit: look at the first so many images only.
        progress: told how far it is.

    Raises:
        DeployError: as `read_dataset`, `opened` and `evaluate` do.
    """
    protocol = protocol or USUAL_PROTOCOL.get(data.partition(":")[0], Protocol.VOC_AREA)
    dataset = read_dataset(data, split, progress=progress)
    dataset = replace(dataset, samples=dataset.samples[:limit])
    with opened(source, runtimes, checkpoint=checkpoint, options=options) as ready:
        report = evaluate(dataset, ready.spec, ready.models, protocol=protocol, progress=progress)
        report = with_diagnosis(report, dataset, ready.spec, ready.models)
    wrong = (*summary_of_problems(dataset.problems), *remark_on_more(dataset.problems))
    return replace(
        report,
        data=f"{split} of {dataset.name}",
        notices=(*wrong, *report.notices, *ready.left_out),
        problems=every_problem(dataset.problems),
    )
