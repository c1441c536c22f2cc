"""Checkpoints of a run: a native file that deploys, and in it all that the run needs to go on.

The weights under `state_dict` are those that were validated (the average, where there is one), so
`export` takes any snapshot as it is. What only training needs lies under `training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mbv3ssd_deploy.checkpoint.native_file import spec_json_from_mapping, write_native
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.core.spec_json import spec_from_json
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError
from mbv3ssd_deploy.io.records import json_from_record, record_from_json
from mbv3ssd_deploy.nets.ssd import SsdNet
from mbv3ssd_deploy.train.history import EpochRecord
from mbv3ssd_deploy.train.recipes import Recipe

BEST, LAST = "best.pth", "last.pth"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run was asked for besides recipe and spec.

    Attributes:
        data: the training source, as the user wrote it.
        train_split: of that source.
        val_data: the validation source.
        val_split: of that source.
        images: how many images it trains on.
        fingerprint: of their names and annotations: a resumed run must see the same.
        seed: of everything random.
        precision: of the convolutions.
        validate_every: epochs between validations.
        versions: of the packages that compute.
    """

    data: str
    train_split: str
    val_data: str
    val_split: str
    images: int
    fingerprint: str
    seed: int
    precision: str
    validate_every: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run at some moment: all of it is plain JSON.

    Attributes:
        recipe: how it trains.
        settings: on what.
        step: how many steps were made.
        history: of the epochs that are complete.
        best: the best mAP so far; below 0 where nobody measured.
        epoch_sums: losses, matched priors and seconds of the epoch that is not complete.
    """

    recipe: Recipe
    settings: RunSettings
    step: int
    history: tuple[EpochRecord, ...]
    best: float
    epoch_sums: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RunTensors:
    """The state that changes with every step, as PyTorch's parts give it."""

    net: Mapping[str, torch.Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, torch.Tensor] | None
    average_steps: int
    scaler: Mapping[str, Any]
    random: torch.Tensor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run that can go on."""

    spec: DetectorSpec
    record: RunRecord
    tensors: RunTensors


def write_snapshot(
    path: Path, net: SsdNet, spec: DetectorSpec, record: RunRecord, tensors: RunTensors | None
) -> None:
    """Write the native checkpoint of `net` with the run's record, whole or not at all.

    Args:
        path: the file to make or replace.
        net: what is deployed.
        spec: of the net.
        record: of the run.
        tensors: what is needed to go on; without it, the file is for deployment only.

    Raises:
        OutputError: no space or no permission; an older file is untouched.
    """
    training: dict[str, Any] = {"schema": SCHEMA, "record": json_from_record(record)}
    if tensors is not None:
        training |= {
            "net": dict(tensors.net),
            "optimiser": dict(tensors.optimiser),
            "average": None if tensors.average is None else dict(tensors.average),
            "average_steps": tensors.average_steps,
            "scaler": dict(tensors.scaler),
            "random": tensors.random,
        }
    write_native(path, net, spec, extra={"training": training})


def read_snapshot(path: Path) -> Snapshot:
    """Read a run that can go on.

    Nothing in the file is run: torch's `weights_only` reading is all that is needed.

    Raises:
        CheckpointError: there is no such file, or no run that can go on in it.
        UnsafeCheckpointError: it wants to run code; nothing was run.
        SpecError: its spec or record contradicts itself.
    """
    entries = _read_entries(path)
    spec_json, training = spec_json_from_mapping(entries), entries.get("training")
    if spec_json is None or not isinstance(training, Mapping):
        raise CheckpointError(
            "is no snapshot of a training run",
            where=str(path),
            hint=f"--resume takes {LAST} of a run; use --pretrained to start from a detector",
        )
    if training.get("schema") != SCHEMA:
        raise CheckpointError(
            f"the snapshot is of schema {training.get('schema')!r}; this version reads {SCHEMA}",
            where=str(path),
            hint="update mbv3ssd-deploy",
        )
    if "optimiser" not in training:
        raise CheckpointError(
            "holds a result, not a run that can go on",
            where=str(path),
            hint=f"give {LAST} of the same folder to --resume",
        )
    where = f"{path}: training"
    return Snapshot(
        spec=spec_from_json(spec_json, where=str(path)),
        record=record_from_json(RunRecord, training["record"], where=where, error=CheckpointError),
        tensors=RunTensors(
            **{name: training[name] for name in RunTensors.__dataclass_fields__},
        ),
    )


def _read_entries(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError("there is no such file", where=str(path))
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken bytes make torch raise nearly anything
        _check_safe(path)
        raise CheckpointError(
            "the file is damaged, or no snapshot of a training run",
            where=str(path),
            hint=f"--resume takes {LAST} of a run",
        ) from error
    return entries if isinstance(entries, Mapping) else {}


def _check_safe(path: Path) -> None:
    """Check that the file at `path`, which cannot be read, does not want to run code.

    Raises:
        UnsafeCheckpointError: it does; the message names what it would run.
    """
    try:
        read_checkpoint(path)
    except UnsafeCheckpointError:
        raise
    except CheckpointError:
        return
