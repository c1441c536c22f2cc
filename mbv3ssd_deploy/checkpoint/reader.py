"""Reading a checkpoint file without running anything that lies in it.

torch's `weights_only` unpickler builds tensors and plain containers and refuses every other global;
`argparse.Namespace` is allowed for this one call, because training scripts store their arguments.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch

from mbv3ssd_deploy.checkpoint.container import Container, container_of
from mbv3ssd_deploy.checkpoint.contents import Contents
from mbv3ssd_deploy.checkpoint.keymap import listed
from mbv3ssd_deploy.checkpoint.native_file import entries_from_metadata, spec_json_from_mapping
from mbv3ssd_deploy.checkpoint.pickle_scan import foreign_globals
from mbv3ssd_deploy.checkpoint.unwrap import unwrap
from mbv3ssd_deploy.core.files import sha256_of_file
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError

LEGACY_PICKLES = 5
"""Magic number, protocol, system, object, storage keys: the parts of torch's legacy container."""

PROTOCOL_4_OPCODES = range(0x8C, 0x98)
"""SHORT_BINUNICODE to READONLY_BUFFER (Python's pickletools); `weights_only` knows none of them."""


def read_checkpoint(path: Path) -> Contents:
    """Return the weights in the file at `path`, under its own keys.

    Raises:
        CheckpointError: the file is missing, broken, or holds no weights.
        UnsafeCheckpointError: it wants to run code; nothing was run.
    """
    container = container_of(path)
    sha256 = sha256_of_file(path)
    saved = (
        _read_safetensors(path)
        if container is Container.SAFETENSORS
        else _read_torch(path, container)
    )
    spec_json = spec_json_from_mapping(saved) if isinstance(saved, Mapping) else None
    inner = unwrap(saved)
    return Contents(
        path=path,
        sha256=sha256,
        container=container,
        wrapping=inner.wrapping,
        tensors=inner.tensors,
        spec_json=spec_json,
        notices=inner.notices,
    )


def _read_torch(path: Path, container: Container) -> Any:  # noqa: ANN401 -- whatever was saved
    try:
        # torch warns about old protocols and storages; a user cannot act on either
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=container is Container.TORCH_ZIP,
            )
    except MemoryError as error:
        raise CheckpointError("there is not enough memory to read it", where=str(path)) from error
    except Exception as error:  # broken bytes make torch raise nearly anything
        raise _refusal(path, container, error) from error


def _refusal(path: Path, container: Container, error: Exception) -> CheckpointError:
    wanted = _wanted_globals(path, container)
    if not wanted and isinstance(error, pickle.UnpicklingError):
        wanted = tuple(re.findall(r"(?:GLOBAL|class) (\S+) (?:was|is) not", str(error)))
    if wanted:
        return UnsafeCheckpointError(
            f"loading it would run {listed(wanted)}; nothing was run",
            where=str(path),
            hint="if you trust its source, save only the weights with the code that made it: "
            "torch.save(model.state_dict(), 'weights.pth')",
        )
    operand = re.search(r"Unsupported operand (\d+)", str(error))
    if operand and int(operand[1]) in PROTOCOL_4_OPCODES:
        return CheckpointError(
            "the file uses a pickle protocol that PyTorch cannot read safely",
            where=str(path),
            hint="save it again with torch.save's default protocol",
        )
    return CheckpointError(
        f"the file is damaged or no checkpoint: {_reason(error)}",
        where=str(path),
        hint="copy or download it again",
    )


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
    return {**entries_from_metadata(metadata), "state_dict": tensors}
