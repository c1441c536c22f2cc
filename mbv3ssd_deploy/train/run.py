"""A training run from its request to its files: the room's story on one page.

data -> priors -> net -> (batch -> step) x epochs -> validation -> snapshots and history
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from mbv3ssd_deploy.core.average_precision import ApReport
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.data.loader import TrainingSamples
from mbv3ssd_deploy.data.made_split import SPLIT_SEED
from mbv3ssd_deploy.errors import OutputError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.records import json_from_record
from mbv3ssd_deploy.nets.build import build_net
from mbv3ssd_deploy.train.batches import BatchPlan, Examples
from mbv3ssd_deploy.train.board import board_if_installed
from mbv3ssd_deploy.train.device import Precision, autocast_type, device_named
from mbv3ssd_deploy.train.distributed import Team, joined, team_from_environment
from mbv3ssd_deploy.train.epochs import Epochs
from mbv3ssd_deploy.train.history import CHART, PLAN, TABLE
from mbv3ssd_deploy.train.learner import build_learner
from mbv3ssd_deploy.train.request import Observer, TrainRequest
from mbv3ssd_deploy.train.settle import (
    check_batch,
    check_resumable,
    check_same_data,
    settled_recipe,
    settled_settings,
    settled_sources,
)
from mbv3ssd_deploy.train.snapshot import BEST, LAST, RunRecord, Snapshot, read_snapshot
from mbv3ssd_deploy.train.start import Start, new_start
from mbv3ssd_deploy.train.training_data import TrainingData, read_training_data

_CACHE_BYTES = 256 * 2**20
"""Decoded images that each process keeps: reading a small data set again costs more than a step."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of a run.

    Attributes:
        folder: of all files.
        spec: of the detector.
        record: of the run, with its history.
        report: of the last validation; None if there was none in this part of the run.
        interrupted: whether it was asked to stop before its end.
        files: what was written; nothing where a run that had ended was asked to go on.
    """

    folder: Path
    spec: DetectorSpec
    record: RunRecord
    report: ApReport | None
    interrupted: bool
    files: tuple[Path, ...]


def train_detector(request: TrainRequest, observer: Observer | None = None) -> TrainReport:
    """Train a detector, or go on with a run; write its snapshots and history.

    Of several processes (`torchrun`), only the first writes and talks.

    Raises:
        DatasetError: the data cannot be used.
        SpecError: settings contradict each other.
        CheckpointError: a file to start from or to go on with does not fit.
        OutputError: the folder cannot be written, or holds another run.
        RuntimeUnavailableError: there is no such device.
        TrainingError: the loss is no longer a number.
    """
    team = team_from_environment()
    observer = observer if observer is not None and team.leads else Observer()
    device = device_named(request.device, team)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    with joined(team, device):
        return _train(request, observer, team, device)


def _train(
    request: TrainRequest, observer: Observer, team: Team, device: torch.device
) -> TrainReport:
    _check_folder(request)
    snapshot = None if request.resume is None else read_snapshot(request.resume)
    if snapshot is not None:
        check_resumable(request, snapshot)
    recipe = settled_recipe(request, snapshot)
    sources = settled_sources(request, snapshot)
    seed = (request.seed or 0) if snapshot is None else snapshot.record.settings.seed
    data = read_training_data(
        *sources,
        class_names=request.class_names if snapshot is None else snapshot.spec.class_names,
        seed=SPLIT_SEED,  # not this run's: `eval` has to find the same test images
        progress=observer.progress,
    )
    for notice in data.notices:
        observer.note(notice)
    for line in data.details:
        observer.detail(line)
    if snapshot is not None:
        check_same_data(data, snapshot, str(request.resume))
    batch = check_batch(recipe, len(data.train), team.size)
    torch.manual_seed(seed)
    start = new_start(request, recipe, data) if snapshot is None else _start_again(snapshot)
    for notice in start.notices:
        observer.note(notice)
    record = (
        RunRecord(recipe, settled_settings(request, recipe, sources, data), 0, (), -math.inf, ())
        if snapshot is None
        else snapshot.record
    )
    if team.leads:
        _write_plan(request.output, start.spec, record)
    learner = build_learner(
        start.net,
        start.spec,
        recipe,
        team=team,
        device=device,
        autocast=autocast_type(Precision(record.settings.precision), device),
    )
    if snapshot is not None:
        learner.restore(snapshot.tensors)
    epochs = Epochs(
        learner=learner,
        spec=start.spec,
        examples=_examples(data, start.spec, record),
        val=data.val,
        plan=BatchPlan(len(data.train), batch, seed),
        workers=_worker_count(request, device),
        folder=request.output,
        observer=observer,
        board=board_if_installed(request.output, record.step) if team.leads else None,
        record=record,
        others=() if _goes_on_there(request) else _files_in(request.output),
    )
    outcome = epochs.run()
    files = () if outcome.record == record else (*_files_in(request.output), request.output / PLAN)
    return TrainReport(
        folder=request.output,
        spec=start.spec,
        record=outcome.record,
        report=outcome.report,
        interrupted=outcome.interrupted,
        files=files,
    )


def _start_again(snapshot: Snapshot) -> Start:
    return Start(build_net(snapshot.spec), snapshot.spec, ())


def _examples(data: TrainingData, spec: DetectorSpec, record: RunRecord) -> Examples:
    seed, recipe = record.settings.seed, record.recipe
    samples = TrainingSamples(
        data.train,
        spec.input,
        seed=seed,
        options=recipe.augmentation,
        cache_bytes=_CACHE_BYTES,
    )
    return Examples(
        samples,
        image_ids=tuple(sample.image_id for sample in data.train.samples),
        seed=seed,
        vertical_flip=recipe.vertical_flip,
    )


def _worker_count(request: TrainRequest, device: torch.device) -> int:
    """Return how many processes prepare images: on a CPU they share the cores with the steps."""
    if request.workers is not None:
        return request.workers
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // 2) if device.type == "cpu" else min(8, cores)


def _files_in(folder: Path) -> tuple[Path, ...]:
    """Return what a run has left in `folder`, its plan left out."""
    return tuple(path for name in (BEST, LAST, TABLE, CHART) if (path := folder / name).exists())


def _goes_on_there(request: TrainRequest) -> bool:
    """Tell whether the run in the folder is the one that goes on."""
    resume = request.resume
    return resume is not None and resume.parent.resolve() == request.output.resolve()


def _check_folder(request: TrainRequest) -> None:
    """Check, before anything is read, that the folder holds no run that would be lost.

    Raises:
        OutputError: it does.
    """
    last = request.output / LAST
    if last.exists() and not (request.overwrite or _goes_on_there(request)):
        raise OutputError(
            "holds a run already",
            where=str(request.output),
            hint=f"go on with it (--resume {last}), replace it (--overwrite), "
            "or choose another --output",
        )


def _write_plan(folder: Path, spec: DetectorSpec, record: RunRecord) -> None:
    """Write down what is going to be done: a folder that cannot be written to shows itself now.

    Raises:
        OutputError: the folder cannot be written to.
    """
    plan = {
        "recipe": json_from_record(record.recipe),
        "settings": json_from_record(record.settings),
        "spec": json_from_record(spec),
    }
    write_file(folder / PLAN, (json.dumps(plan, indent=1) + "\n").encode())
