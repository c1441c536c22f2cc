"""From a bundle or a checkpoint to the models that are evaluated."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.core.average_precision import Protocol
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.data.dataset import Split, every_problem, remark_on_more, summary_of_problems
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import BundleError, CheckpointError, DeployError
from mbv3ssd_deploy.evaluate.diagnosis import with_diagnosis
from mbv3ssd_deploy.evaluate.evaluate import evaluate
from mbv3ssd_deploy.evaluate.report import EvaluationReport
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.runtimes.open_model import (
    MODELS,
    ModelSource,
    OpenedModel,
    bundle_source,
    open_model,
)

USUAL = ("torch", "onnx", "ncnn", "ncnn-fp16")
"""The default; of these, what the bundle has."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A detector that is ready to be evaluated.

    Attributes:
        spec: how images are prepared and heads are decoded.
        models: in the order of the request.
        left_out: why a usual model is not among them, in sentences.
    """

    spec: DetectorSpec
    models: tuple[OpenedModel, ...]
    left_out: tuple[str, ...]


@contextmanager
def opened(
    source: Path,
    names: Sequence[str] = (),
    *,
    checkpoint: Path | None = None,
    options: LoadOptions | None = None,
) -> Iterator[Evaluated]:
    """Yield the models `names` (by default the usual ones) of a bundle or a checkpoint file.

    A checkpoint runs in PyTorch only. Files that are made for a model live as long as the context.

    Args:
        source: a bundle folder or a checkpoint file.
        names: keys of `MODELS`.
        checkpoint: of the bundle, if it was moved.
        options: how a checkpoint file is read.

    Raises:
        BundleError: the bundle is broken, or has no files for a model that was named.
        CheckpointError: the checkpoint cannot be read, or a model other than PyTorch was named.
        RuntimeUnavailableError: a package or a device for a model that was named is missing.
        ValueError: a name is not in the table.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise ValueError(f"unknown runtime: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        if is_checkpoint(source):
            found = _checkpoint_source(source, options, Path(scratch))
        else:
            found = bundle_source(read_bundle(source), Path(scratch), checkpoint)
        yield _evaluated(found, names)


def is_checkpoint(source: Path) -> bool:
    """Return whether `source`, which need not exist, names a checkpoint file and not a bundle."""
    return not source.is_dir() and source.suffix not in ("", ".json")


def _checkpoint_source(path: Path, options: LoadOptions | None, scratch: Path) -> ModelSource:
    from mbv3ssd_deploy.checkpoint.load import load_detector  # noqa: PLC0415 -- imports PyTorch

    loaded = load_detector(path, options)
    return ModelSource(loaded.spec, None, lambda: loaded, scratch)


def _evaluated(source: ModelSource, names: Sequence[str]) -> Evaluated:
    if source.bundle is None:
        more = [name for name in names if name not in ("torch", "torch-cuda")]
        if more:
            raise CheckpointError(
                f"a checkpoint runs in PyTorch only, not in {', '.join(more)}",
                where=str(source.load().checkpoint.path),
                hint="make a bundle of it with `mbv3ssd-deploy convert` and evaluate that",
            )
        names = names or ("torch",)
    models, left_out = [], []
    for name in names or USUAL:
        try:
            models.append(open_model(source, name))
        except DeployError as error:
            if names:
                error.hint = error.hint.replace("use --device cpu", f"leave {name} out")
                raise
            left_out.append(f"{name} is left out: {error.message}")
    if not models:
        where = "" if source.bundle is None else str(source.bundle.directory)
        raise BundleError("\n  ".join(["none of its runtimes runs here", *left_out]), where=where)
    return Evaluated(source.spec, tuple(models), tuple(left_out))


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
        split: which part.
        runtimes: keys of `runtimes.open_model.MODELS`; by default the usual ones that exist.
        protocol: whose rules; by default those of the data's format (`USUAL_PROTOCOL`).
        checkpoint: of the bundle, if it moved.
        options: how a checkpoint file is read.
        limit: use the first so many images only.
        progress: called after every step.

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
