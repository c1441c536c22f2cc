"""What lies in a checkpoint file, before anybody knows its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mbv3ssd_deploy.checkpoint.container import Container
from mbv3ssd_deploy.checkpoint.keymap import Shape, listed
from mbv3ssd_deploy.checkpoint.unwrap import MIXED_PREFIX, partial_prefix
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.io.records import Json


@dataclass(frozen=True, slots=True)
class Contents:
    """Tensors of a file under its own keys, wrappings taken off.

    Attributes:
        path: the file.
        sha256: of the whole file.
        container: how the file is built.
        wrapping: what was taken off, in words.
        tensors: on the CPU, values not yet checked.
        spec_json: the spec that a native file carries, else None.
        notices: what a user should know.
        classifier_json: the spec that a native classifier carries, else None.
        class_names: as the file's `meta` names them, mostly without the background; empty where it
            does not.
    """

    path: Path
    sha256: str
    container: Container
    wrapping: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]
    spec_json: Json | None
    notices: tuple[str, ...]
    classifier_json: Json | None = None
    class_names: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor, by key."""
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}

    def channels(self, *keys: str) -> tuple[int, ...]:
        """Return the first dimension of each of `keys`.

        Raises:
            CheckpointError: with every key that is missing or has no dimension.
        """
        known = self.shapes
        shapes = {key: known.get(key, ()) for key in keys}
        absent = [key for key, shape in shapes.items() if not shape]
        if absent:
            mixed = partial_prefix(self.tensors)
            raise CheckpointError(
                f"tensors are missing that tell the network: {listed(absent)}"
                + (f"; {mixed}" if mixed else ""),
                hint=MIXED_PREFIX if mixed else "",
            )
        return tuple(shape[0] for shape in shapes.values())
