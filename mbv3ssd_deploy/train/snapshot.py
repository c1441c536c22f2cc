"""Snapshots of a run: a native checkpoint, and in it all that is needed to resume the run.

The weights under `state_dict` are those that were validated (the average, if there is one), so
`export` and `train --backbone` take any snapshot as it is. What only training needs is under
`training`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mbv3ssd_deploy.checkpoint.keymap import printable
from mbv3ssd_deploy.checkpoint.native_file import (
    CLASSIFIER_FORMAT,
    FORMAT,
    spec_json_from_mapping,
    write_native,
)
from mbv3ssd_deploy.checkpoint.reader import read_saved
from mbv3ssd_deploy.core.spec import ClassifierSpec, DetectorSpec
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError
from mbv3ssd_deploy.io.records import json_from_record, record_from_json
from mbv3ssd_deploy.train.config import Recipe
from mbv3ssd_deploy.train.history import BackboneEpoch, EpochRecord

LAST = "last.pth"
SCHEMA = 1
NetSpec = DetectorSpec | ClassifierSpec


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run was asked for besides recipe and spec; a resumed run needs the same.

    Attributes:
        data: the training source, as the user wrote it.
        images: the number of training images.
        fingerprint: a hash of their names and annotations.
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
    """The progress of a run, as plain JSON.

    Attributes:
        step: the number of steps made.
        history: `EpochRecord`s or `BackboneEpoch`s of the complete epochs.
        best: the best score so far; below 0 without validation.
        epoch_sums: of the incomplete epoch: sums of its losses, divisors, steps and seconds.
    """

    recipe: Recipe
    settings: RunSettings
    step: int = 0
    history: tuple[Any, ...] = ()
    best: float = -math.inf
    epoch_sums: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class DetectorRecord(RunRecord):
    """The progress of a detector's training."""

    history: tuple[EpochRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class BackboneRecord(RunRecord):
    """The progress of a backbone's training."""

    history: tuple[BackboneEpoch, ...] = ()


@dataclass(frozen=True, slots=True)
class RunTensors:
    """The state that changes with every step, in PyTorch's own form.

    `random` is the state of PyTorch's CPU generator, `cuda_random` that of a GPU's.
    """

    net: Mapping[str, torch.Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, torch.Tensor] | None
    average_steps: int
    scaler: Mapping[str, Any]
    random: torch.Tensor
    cuda_random: torch.Tensor | None = None


class Kind(NamedTuple):
    """A kind of run: its command, the flag that starts another run from its file, its types."""

    command: str
    initial_flag: str
    format: str
    spec: type[NetSpec]
    record: type[RunRecord]
    epoch: type[Any]


DETECTOR = Kind("train", "--pretrained", FORMAT, DetectorSpec, DetectorRecord, EpochRecord)
BACKBONE = Kind(
    "train-backbone",
    "--initial",
    CLASSIFIER_FORMAT,
    ClassifierSpec,
    BackboneRecord,
    BackboneEpoch,
)


class Snapshot(NamedTuple):
    """A run that can be resumed."""

    spec: Any
    record: RunRecord
    tensors: RunTensors


def write_snapshot(
    path: Path, net: nn.Module, spec: NetSpec, record: RunRecord, tensors: RunTensors | None
) -> None:
    """Write the native checkpoint of `net` with the run's record, whole or not at all.

    Without `tensors`, the file cannot be resumed.

    Raises:
        OutputError: no space or no permission; an older file is untouched.
    """
    training: dict[str, Any] = {"schema": SCHEMA, "record": json_from_record(record)}
    if tensors is not None:
        training |= {name: getattr(tensors, name) for name in RunTensors.__dataclass_fields__}
    write_native(path, net, spec, extra={"training": training})


def read_snapshot(path: Path, kind: Kind) -> Snapshot:
    """Return the run in the file at `path`. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is missing or holds no run of this kind that can be resumed.
        UnsafeCheckpointError: the file would run code; nothing was run.
        SpecError: the spec contradicts itself.
    """
    try:
        entries = read_saved(path)
    except UnsafeCheckpointError:
        raise
    except CheckpointError as error:
        error.hint = error.hint or f"--resume takes {LAST} of a run"
        raise

    def refusal(message: str, hint: str) -> CheckpointError:
        return CheckpointError(message, where=str(path), hint=hint)

    training = entries.get("training") if isinstance(entries, dict) else None
    if not isinstance(entries, dict) or not isinstance(training, dict):
        raise refusal(
            "is not a snapshot of a training run",
            f"--resume takes {LAST} of a run; use {kind.initial_flag} to start from other weights",
        )
    spec_json = spec_json_from_mapping(entries, kind.format)
    if spec_json is None:
        other = BACKBONE if kind is DETECTOR else DETECTOR
        hint = f"mbv3ssd-deploy {other.command} --resume {path}"
        raise refusal(f"is not a snapshot of `{kind.command}`", hint)
    schema = training.get("schema", SCHEMA)
    if type(schema) is not int:
        raise refusal("the schema of the snapshot is not a number", "update mbv3ssd-deploy")
    if schema != SCHEMA:
        has = printable(str(schema))
        message = f"the snapshot has schema {has}; this version reads {SCHEMA}"
        raise refusal(message, "update mbv3ssd-deploy")
    fields = RunTensors.__dataclass_fields__
    if not {"record", *fields} - {"cuda_random"} <= training.keys():
        raise refusal(
            "holds the result of a run, not a run that can be resumed",
            f"give {LAST} of the same folder to --resume",
        )
    where = f"{path}: training"
    return Snapshot(
        record_from_json(kind.spec, spec_json, where=str(path)),
        record_from_json(kind.record, training["record"], where=where, error=CheckpointError),
        RunTensors(**{name: training[name] for name in fields if name in training}),
    )
