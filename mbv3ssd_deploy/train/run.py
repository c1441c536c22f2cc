"""A training run from its request to its files: the room's story on one page.

request -> data -> net -> (batch -> step) x epochs -> validation -> snapshots and history

A resumed run keeps its settings; a request that contradicts them is refused, each setting by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.errors import CheckpointError, OutputError, SpecError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.records import json_from_record
from mbv3ssd_deploy.train.backbone import BackboneTask
from mbv3ssd_deploy.train.batches import BatchPlan
from mbv3ssd_deploy.train.config import (
    BACKBONE_RECIPE,
    DEFAULT_RECIPE,
    RECIPES,
    Observer,
    Precision,
    Recipe,
    TrainRequest,
)
from mbv3ssd_deploy.train.detector import DetectorTask
from mbv3ssd_deploy.train.history import CHART, TABLE, best_epoch
from mbv3ssd_deploy.train.process import World, autocast_type, training_process, worker_count
from mbv3ssd_deploy.train.snapshot import (
    DETECTOR,
    LAST,
    Kind,
    RunRecord,
    RunSettings,
    Snapshot,
    read_snapshot,
)
from mbv3ssd_deploy.train.state import TrainState
from mbv3ssd_deploy.train.trainer import Task, Trainer

PLAN = "run.json"
_VALIDATIONS = 50
"""The approximate number of validations of a detector's training by default."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of a run.

    Attributes:
        folder: of all files.
        spec: a `DetectorSpec`, or of a backbone the `ClassifierSpec`.
        record: of the run, with its history.
        report: the `ApReport` of a detector's last validation; None if there was none in this part
            of the run.
        interrupted: whether the run was stopped before its end.
        files: what was written; empty if the run to resume had already ended.
    """

    folder: Path
    spec: Any
    record: RunRecord
    report: Any
    interrupted: bool
    files: tuple[Path, ...]

    @property
    def best(self) -> Any:  # noqa: ANN401 -- `EpochRecord`, or of a backbone `BackboneEpoch`
        """The first epoch with the highest score; None without validation."""
        return best_epoch(self.record.history)


def train_detector(request: TrainRequest, observer: Observer | None = None) -> TrainReport:
    """Train a detector, or resume a run; write its snapshots and history.

    With several processes (`torchrun`), only the first writes and reports.

    Raises:
        DatasetError: the data cannot be used.
        SpecError: settings contradict each other.
        CheckpointError: a file to start from or to resume does not fit.
        OutputError: the folder cannot be written to, or holds another run.
        RuntimeUnavailableError: there is no such device.
        TrainingError: the loss is NaN or infinite.
    """
    return _train(DetectorTask, request, observer)


def train_backbone(request: TrainRequest, observer: Observer | None = None) -> TrainReport:
    """Train a classifier, or resume a run; `train --backbone` starts from the best one.

    Raises as `train_detector` does.
    """
    return _train(BackboneTask, request, observer)


def _train(kind: type[Task], request: TrainRequest, observer: Observer | None) -> TrainReport:
    with training_process(request.device, request.threads) as (world, device):
        if observer is None or not world.is_main:
            observer = Observer()
        return _run(kind, request, observer, world, device)


def _run(
    task_type: type[Task],
    request: TrainRequest,
    observer: Observer,
    world: World,
    device: torch.device,
) -> TrainReport:
    _check_folder(request, task_type)
    snapshot = _resumed(request, task_type.kind)
    known = None if snapshot is None else snapshot.record
    recipe = _recipe_of(request, task_type.kind) if known is None else known.recipe
    settings = _settings_of(request, task_type.kind, recipe, known)
    task = task_type(request, recipe, observer)
    task.read_data(settings, request.class_names if snapshot is None else snapshot.spec.class_names)
    images = len(task.image_ids)
    settings = dataclasses.replace(settings, images=images, fingerprint=task.fingerprint)
    if snapshot is not None:
        _check_same_data(task, snapshot, settings)
    record = known or RunRecord(recipe, settings)
    plan = BatchPlan(images, _check_batch(recipe, images, world.size), settings.seed)
    torch.manual_seed(settings.seed)
    net = task.start() if snapshot is None else task.restart(snapshot.spec)
    if world.is_main:
        _write_plan(request.output, task.spec, record)
    precision = Precision(settings.precision)
    state = TrainState(
        net,
        recipe,
        task.parts,
        world=world,
        device=device,
        autocast=autocast_type(precision, device),
    )
    if snapshot is not None:
        state.restore(snapshot.tensors, str(request.resume))
    names = (task.best_name, LAST, TABLE, CHART)
    # a backbone stays until there is another one
    others = _existing(request.output, names if task.kind is DETECTOR else names[1:])
    replaced = () if _continues_in_place(request) else others
    workers = worker_count(request.workers, device)
    trainer = Trainer(task, state, record, plan, workers, replaced)
    interrupted = trainer.run()
    measured = trainer.record.best > -math.inf
    files = _existing(request.output, (*(names if measured else names[1:]), PLAN))
    return TrainReport(
        folder=request.output,
        spec=task.spec,
        record=trainer.record,
        report=task.report,
        interrupted=interrupted,
        files=() if trainer.record == record else files,
    )


def _recipe_of(request: TrainRequest, kind: Kind) -> Recipe:
    name = request.recipe or DEFAULT_RECIPE
    if kind is not DETECTOR:
        return BACKBONE_RECIPE.changed(**request.changes)
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        raise SpecError(
            f"there is no recipe {name!r}",
            hint=f"did you mean {close[0]}?" if close else f"one of {', '.join(RECIPES)}",
        )
    return RECIPES[name].changed(**request.changes)


def _settings_of(
    request: TrainRequest, kind: Kind, recipe: Recipe, record: RunRecord | None
) -> RunSettings:
    """Return the settings of a run before its data is read; a resumed run has a `record`."""
    if record is not None:  # its data may have been moved
        known = record.settings
        data = request.data or known.data
        val_data = request.val_data or (data if known.val_data == known.data else known.val_data)
        return dataclasses.replace(known, data=data, val_data=val_data)
    if request.data is None:
        raise SpecError("there is no data to train on", hint="add --data voc:FOLDER")
    of_detector = kind is DETECTOR
    validate_every = max(1, recipe.epochs // _VALIDATIONS) if of_detector else 1
    return RunSettings(
        data=request.data,
        train_split=request.train_split or Split.TRAIN,
        val_data=request.val_data or request.data,
        val_split=request.val_split or Split.VAL,
        images=0,
        fingerprint="",
        seed=request.seed or 0,
        precision=request.precision or (Precision.AUTO if of_detector else Precision.FLOAT32),
        validate_every=request.validate_every or validate_every,
        versions={
            "mbv3ssd-deploy": importlib.metadata.version("mbv3ssd-deploy"),
            "torch": str(torch.__version__),
        },
    )


def _continues_in_place(request: TrainRequest) -> bool:
    resume = request.resume
    return resume is not None and resume.parent.resolve() == request.output.resolve()


def _existing(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(path for name in names if (path := folder / name).exists())


def _check_folder(request: TrainRequest, task_type: type[Task]) -> None:
    """Check, before anything is read, that no run would be lost."""
    if request.overwrite or _continues_in_place(request):
        return
    last, best = request.output / LAST, request.output / task_type.best_name
    if last.exists():
        what, resume = "run", f"resume it (--resume {last}), "
    elif task_type.kind is not DETECTOR and best.exists():
        what, resume = "backbone", ""
    else:
        return
    raise OutputError(
        f"there is a {what} already",
        where=str(request.output),
        hint=f"{resume}replace it (--overwrite), or choose another --output",
    )


def _write_plan(folder: Path, spec: object, record: RunRecord) -> None:
    """Write what is going to be done: a folder that cannot be written to is found now."""
    plan = {
        "recipe": json_from_record(record.recipe),
        "settings": json_from_record(record.settings),
        "spec": json_from_record(spec),
    }
    write_file(folder / PLAN, (json.dumps(plan, indent=1) + "\n").encode())


def _resumed(request: TrainRequest, kind: Kind) -> Snapshot | None:
    """Return the snapshot to resume, or None for a new run.

    Raises:
        CheckpointError: the file does not hold such a run; or with every setting that differs.
    """
    if request.resume is None:
        return None
    snapshot = read_snapshot(request.resume, kind)
    differences = [
        f"{name} is {has}, not {asked}"
        for name, asked, has in _asked_settings(request, snapshot)
        if asked is not None and asked != has
    ]
    starts = {
        "--pretrained": request.pretrained,
        "--backbone" if kind is DETECTOR else kind.initial_flag: request.backbone_file,
    }
    differences += [
        f"{flag} is for new runs only" for flag, path in starts.items() if path is not None
    ]
    if differences:
        raise CheckpointError(
            f"the run cannot be resumed with other settings: {'; '.join(differences)}",
            where=str(request.resume),
            hint=f"leave those flags out, or start a new run from it with {kind.initial_flag}",
        )
    return snapshot


def _asked_settings(request: TrainRequest, snapshot: Snapshot) -> Iterator[tuple[str, Any, Any]]:
    """Yield names with what was asked for (None for nothing) and what the run has."""
    spec, recipe, settings = snapshot.spec, snapshot.record.recipe, snapshot.record.settings
    yield "the architecture", request.backbone, spec.arch.backbone
    yield "the width", request.width_mult, spec.arch.width_mult
    yield "the image size", request.image_size, (spec.input.height, spec.input.width)
    yield "the recipe", request.recipe, recipe.name
    yield "the seed", request.seed, settings.seed
    yield "the precision", request.precision, settings.precision
    yield "the training split", request.train_split, settings.train_split
    yield "the validation split", request.val_split, settings.val_split
    yield "val-every", request.validate_every, settings.validate_every
    names = request.class_names
    yield "the list of classes", names and ", ".join(names[1:]), ", ".join(spec.class_names[1:])
    for field, value in request.changes.items():
        yield field, value, getattr(recipe, field)


def _check_same_data(task: Task, snapshot: Snapshot, settings: RunSettings) -> None:
    """Check that a resumed run gets the images and annotations that it had before."""
    before = snapshot.record.settings
    if task.class_names != snapshot.spec.class_names:
        had, has = (
            ", ".join(name for name in names if name != "background")
            for names in (snapshot.spec.class_names, task.class_names)
        )
        reason = f"its classes are {had}, those of the data {has}"
    elif settings.images != before.images:
        reason = f"it was trained on {before.images} images, and now there are {settings.images}"
    elif settings.fingerprint != before.fingerprint:
        reason = "names or annotations of the training images have changed"
    else:
        return
    raise CheckpointError(
        f"the run cannot be resumed with other data: {reason}",
        where=str(task.request.resume),
        hint=f"start a new run from it with {task.kind.initial_flag}",
    )


def _check_batch(recipe: Recipe, images: int, processes: int) -> int:
    """Return the batch size: the recipe's, or all images of a small data set."""
    batch = min(recipe.batch, images)
    if processes > 1 and batch % processes:
        raise SpecError(f"a batch of {batch} cannot be divided evenly among {processes} processes")
    if batch // processes < 2:
        raise SpecError(
            f"a batch has {batch // processes} image in a process, and BatchNorm needs two",
            hint="give a larger --batch, or more images",
        )
    return batch
