"""The native checkpoint file: weights with their spec, in torch's container or in safetensors."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from mbv3ssd_deploy.core.spec import ClassifierSpec, DetectorSpec
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.io.files import write_file
from mbv3ssd_deploy.io.records import Json, json_from_record

FORMAT = "mbv3ssd-deploy/native"
CLASSIFIER_FORMAT = "mbv3ssd-deploy/native-classifier"
"""What `train-backbone` makes: a classifier, from whose backbone a training starts."""
SCHEMA = 1
_KEYS = ("format", "schema", "spec")
_METADATA_PREFIX = "mbv3ssd_deploy."
_SCHEMA_BITS = 64
_MOST_JSON = 100_000
_JSON_DEPTH = 32
"""Values of a spec, and how deep they nest: far beyond what a real one has."""


def write_native(
    path: Path,
    net: torch.nn.Module,
    spec: DetectorSpec | ClassifierSpec,
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `net` with its `spec` to `path`, whole or not at all.

    A name that ends in `.safetensors` gets that container, every other torch's.

    Args:
        path: the file to make or replace.
        net: the network; its state_dict is written, moved to the CPU.
        spec: of `net`; a classifier's spec makes a classifier's file.
        extra: more entries of the torch container, such as optimiser state; readers ignore them.

    Raises:
        OutputError: no space or no permission; an older file is untouched.
        ValueError: `extra` with a safetensors name, or a key of ours in it.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    kind = FORMAT if isinstance(spec, DetectorSpec) else CLASSIFIER_FORMAT
    head: Json = {"format": kind, "schema": SCHEMA, "spec": json_from_record(spec)}
    if path.suffix == ".safetensors":
        if extra:
            raise ValueError("safetensors files hold tensors only")
        write_file(path, safetensors.torch.save(weights, metadata=_metadata(head)))
        return
    if extra and not extra.keys().isdisjoint({*_KEYS, "state_dict"}):
        raise ValueError(f"extra entries must not be called {', '.join(_KEYS)} or state_dict")
    buffer = io.BytesIO()
    torch.save({**head, "state_dict": weights, **(extra or {})}, buffer)
    write_file(path, buffer.getvalue())


def spec_json_from_mapping(entries: Mapping[str, object], kind: str = FORMAT) -> Json | None:
    """Return the spec JSON of a native file's entries; None if the file is not of that kind.

    Raises:
        CheckpointError: a native file of a newer schema, or one without a usable spec.
    """
    found = entries.get("format")
    if not isinstance(found, str) or found != kind:
        return None
    schema, spec = entries.get("schema"), entries.get("spec")
    if type(schema) is not int or schema.bit_length() > _SCHEMA_BITS:
        raise CheckpointError("the file claims to be native, but its schema is not a number")
    if schema != SCHEMA:
        raise CheckpointError(
            f"the file has native schema {schema}; this version reads {SCHEMA}",
            hint="update mbv3ssd-deploy",
        )
    if not isinstance(spec, dict):
        raise CheckpointError("the file claims to be native, but has no spec")
    return plain_json(spec, what="the spec")


def plain_json(value: Mapping[object, object], *, what: str) -> Json:
    """Return a copy of `value`, of dictionaries, lists, texts, numbers and None only.

    Args:
        value: what a file holds in place of JSON.
        what: for the error: what it should be.

    Raises:
        CheckpointError: other objects, or more than JSON of this kind needs.
    """
    count = 0

    def copied(part: object, depth: int) -> Any:  # noqa: ANN401 -- any JSON value
        nonlocal count
        count += 1
        if count > _MOST_JSON or depth > _JSON_DEPTH:
            raise CheckpointError(f"{what} in the file is too large or nests too deep")
        if isinstance(part, dict) and all(isinstance(key, str) for key in part):
            return {key: copied(one, depth + 1) for key, one in part.items()}
        if isinstance(part, list | tuple):
            return [copied(one, depth + 1) for one in part]
        if part is None or isinstance(part, bool | int | float | str):
            return part
        raise CheckpointError(f"{what} in the file holds a {type(part).__name__}")

    plain: Json = copied(value, 0)
    return plain


def entries_from_metadata(metadata: Mapping[str, str]) -> dict[str, object]:
    """Return the entries of a native file that a safetensors header holds as text.

    Raises:
        CheckpointError: they are not valid JSON.
    """
    try:
        return {
            key: json.loads(metadata[_METADATA_PREFIX + key])
            for key in _KEYS
            if _METADATA_PREFIX + key in metadata
        }
    except (ValueError, RecursionError) as error:  # ValueError: integers of thousands of digits
        raise CheckpointError("the metadata of the file is not valid JSON") from error


def _metadata(head: Json) -> dict[str, str]:
    return {_METADATA_PREFIX + key: json.dumps(value) for key, value in head.items()}
