"""Reading a checkpoint file without running anything that lies in it.

torch's `weights_only` unpickler builds tensors and plain containers and refuses every other global;
`argparse.Namespace` is allowed for this one call, because training scripts store their arguments.
Files that it refuses for their classes or their pickle protocol are read a second time by
`pickled_module`, which takes out the tensors and runs nothing either.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch

from mbv3ssd_deploy.checkpoint.container import Container, container_of
from mbv3ssd_deploy.checkpoint.contents import Contents
from mbv3ssd_deploy.checkpoint.meta import class_names_in
from mbv3ssd_deploy.checkpoint.native_file import (
    CLASSIFIER_FORMAT,
    entries_from_metadata,
    spec_json_from_mapping,
)
from mbv3ssd_deploy.checkpoint.pickle_scan import foreign_globals
from mbv3ssd_deploy.checkpoint.pickled_module import Recovered, recover
from mbv3ssd_deploy.checkpoint.unwrap import unwrap
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.io.files import sha256_of_file

LEGACY_PICKLES = 5
"""Magic number, protocol, system, object, storage keys: the parts of torch's legacy container."""


def read_checkpoint(path: Path, *, averaged: bool = False) -> Contents:
    """Return the weights in the file at `path`, under its own keys.

    Args:
        path: the file.
        averaged: take the averaged (EMA) weights, not the plain ones.

    Raises:
        CheckpointError: the file is missing, broken, or holds no weights.
        UnsafeCheckpointError: it wants to run code; nothing was run.
    """
    container = container_of(path)
    sha256 = sha256_of_file(path)
    found = (
        Recovered(_read_safetensors(path), ())
        if container is Container.SAFETENSORS
        else _read_torch(path, container)
    )
    saved = found.saved
    entries = saved if isinstance(saved, Mapping) else {}
    try:
        inner = unwrap(saved, averaged=averaged)
    except CheckpointError as error:
        error.where = str(path)
        raise
    if container is Container.SAFETENSORS:  # it holds tensors only, nothing was wrapped around them
        inner = dataclasses.replace(
            inner, wrapping=tuple(w for w in inner.wrapping if w.startswith("prefix"))
        )
    return Contents(
        path=path,
        sha256=sha256,
        container=container,
        wrapping=inner.wrapping,
        tensors=inner.tensors,
        spec_json=spec_json_from_mapping(entries),
        notices=(*found.notices, *inner.notices),
        class_names=class_names_in(saved),
        classifier_json=spec_json_from_mapping(entries, CLASSIFIER_FORMAT),
    )


def _read_torch(path: Path, container: Container) -> Recovered:
    try:
        # torch warns about old protocols and storages; a user cannot act on either
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            saved = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=container is Container.TORCH_ZIP,
            )
    except MemoryError as error:
        raise _too_large(path) from error
    except Exception as error:  # noqa: BLE001 -- broken bytes make torch raise nearly anything
        return _second_reading(path, container, error)
    return Recovered(saved, ())


def _second_reading(path: Path, container: Container, error: Exception) -> Recovered:
    """Return what `weights_only` could not read: unknown classes, and opcodes that it lacks.

    Raises:
        CheckpointError: neither is what `error` is about.
    """
    if _wants_unknown(path, container, error):
        try:
            return recover(path, container)
        except CheckpointError as refusal:
            refusal.where = str(path)
            refusal.hint = refusal.hint or "copy or download it again"
            raise
        except MemoryError as large:
            raise _too_large(path) from large
        except Exception as broken:  # broken bytes make zipfile raise nearly anything
            raise _damaged(path, _reason(broken)) from broken
    raise _damaged(path, _reason(error))


def _too_large(path: Path) -> CheckpointError:
    return CheckpointError("there is not enough memory to read it", where=str(path))


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the file is damaged or no checkpoint: {reason}",
        where=str(path),
        hint="copy or download it again",
    )


def _wants_unknown(path: Path, container: Container, error: Exception) -> bool:
    told = re.search(r"(GLOBAL|class) \S+ (was|is) not|Unsupported operand", str(error))
    return told is not None or bool(_wanted_globals(path, container))


def _reason(error: Exception) -> str:
    """Return the one line of torch's error that says what is wrong with the file."""
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it ends too early")
    return line.split("  (")[0][:200]  # torch goes on to ask for bug reports


def _wanted_globals(path: Path, container: Container) -> tuple[str, ...]:
    try:
        if container is Container.PICKLE:
            with path.open("rb") as file:
                return foreign_globals(file, LEGACY_PICKLES)
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.rsplit("/", 1)[-1] == "data.pkl")
            with archive.open(name) as file:
                return foreign_globals(file)  # type: ignore[arg-type]  # it reads as BinaryIO does
    except Exception:  # noqa: BLE001 -- broken bytes make zipfile raise nearly anything too
        return ()


def _read_safetensors(path: Path) -> dict[str, object]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the safetensors file is damaged: {error}",
            where=str(path),
            hint="copy or download it again",
        ) from error
    entries = entries_from_metadata(metadata)
    return {**entries, "state_dict": tensors} if entries else tensors
