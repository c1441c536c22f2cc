"""The tensors of a file that holds a whole module, without its classes and without running it.

`torch.save(model)`, and scripts that save {'epoch', 'model', 'optimizer'}, pickle objects whose
classes only the original code has. What makes the state_dict lies in plain attributes of these
objects: `_parameters`, `_buffers` and `_modules`, as `torch.nn.Module.state_dict` walks them.
"""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mbv3ssd_deploy.checkpoint.container import Container
from mbv3ssd_deploy.checkpoint.inert_objects import Global, Inert
from mbv3ssd_deploy.checkpoint.pickled_tensors import StoredTensor, TensorUnpickler
from mbv3ssd_deploy.checkpoint.storages import Values, ZipStorages, legacy_storages
from mbv3ssd_deploy.checkpoint.unwrap import AVERAGED, DEPTH, PLAIN
from mbv3ssd_deploy.errors import CheckpointError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_KINDS = ("_parameters", "_buffers", "_modules")
_DEPTH = 64
"""No network nests its modules deeper."""
_PARTS = 100_000
"""No network has more modules, parameters and buffers; shared ones could make endlessly many names
of a short file."""
_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was saved, modules replaced by their state_dicts, and what a user should know."""

    saved: object
    notices: tuple[str, ...]


def recover(path: Path, container: Container) -> Recovered:
    """Return what lies in the file of torch.save at `path`; nothing in it is run.

    Only where `checkpoint.unwrap` looks for weights are tensors read; all else stays as it was
    described.

    Raises:
        CheckpointError: the file is damaged, or describes tensors that it does not hold.
        UnsafeCheckpointError: it calls what is not in the table of calls.
    """
    if container is Container.PICKLE:
        return _recover_legacy(path)
    return _recover_zip(path)


def _recover_zip(path: Path) -> Recovered:
    with zipfile.ZipFile(path) as archive:
        pickled = next(n for n in archive.namelist() if n.rsplit("/", 1)[-1] == "data.pkl")
        storages = ZipStorages(archive, pickled.removesuffix("data.pkl"), path.stat().st_size)
        if f"{storages.folder}byteorder" in archive.namelist():
            _check_byte_order(is_little=storages.entry("byteorder") == b"little")
        saved = TensorUnpickler().load(io.BytesIO(storages.entry("data.pkl")))
        return _settled(saved, Values(storages))


def _recover_legacy(path: Path) -> Recovered:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        # a memory map reads as BinaryIO does
        magic, protocol, system = (TensorUnpickler().load(data) for _ in range(3))  # type: ignore[arg-type]
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise CheckpointError("it is a pickle, but not one of torch.save")
        is_little = isinstance(system, dict) and system.get("little_endian") is True
        _check_byte_order(is_little=is_little)
        unpickler = TensorUnpickler()
        saved = unpickler.load(data)  # type: ignore[arg-type]
        keys = TensorUnpickler().load(data)  # type: ignore[arg-type]
        return _settled(saved, Values(legacy_storages(data, keys, unpickler.arrays)))


def _check_byte_order(*, is_little: bool) -> None:
    if not is_little:
        raise CheckpointError("its numbers are big-endian, which only PyTorch itself reads")


def _settled(saved: object, values: Values) -> Recovered:
    settling = _Settling(values)
    settled = settling.settled(saved, "of the file")
    if isinstance(settled, Inert | Global):
        name = settled.class_name if isinstance(settled, Inert) else settled.name
        raise CheckpointError(f"the file holds {name}, which is no module and no state_dict")
    return Recovered(settled, tuple(settling.notices))


class _Settling:
    """Puts tensors and state_dicts where `unwrap` looks for them, each object once."""

    def __init__(self, values: Values) -> None:
        self.notices: list[str] = []
        self._values = values
        self._done: dict[int, object] = {}

    def settled(self, saved: object, name: str, depth: int = 0) -> object:
        """Return `saved`, found under `name` and `depth` wrappings, with its tensors read."""
        if isinstance(saved, StoredTensor):
            return self._values.of(saved, name)
        if id(saved) in self._done:
            return self._done[id(saved)]
        if isinstance(saved, Inert) and _is_module(saved):
            self._done[id(saved)] = self._state_dict(saved)
        elif isinstance(saved, dict) and depth <= DEPTH:
            self._fill(saved, depth)
        return self._done.get(id(saved), saved)

    def _state_dict(self, module: Inert) -> dict[str, torch.Tensor]:
        self.notices.append(
            f"the file holds a pickled module ({module.class_name}), not a state_dict: its tensors "
            "were recovered, and nothing in it was run"
        )
        return {name: self._values.of(tensor, name) for name, tensor in state_of(module)}

    def _fill(self, saved: dict[object, object], depth: int) -> None:
        entries: dict[object, object] = {}
        self._done[id(saved)] = entries  # first: a dictionary may lie in itself
        for key, value in saved.items():
            wanted = key in (*PLAIN, *AVERAGED) or isinstance(value, StoredTensor)
            entries[key] = self.settled(value, str(key), depth + 1) if wanted else value


def _is_module(saved: Inert) -> bool:
    return set(_KINDS) <= saved.attributes.keys()


def state_of(module: Inert) -> Iterator[tuple[str, StoredTensor]]:
    """Yield what `state_dict()` of `module` would hold, in its order.

    Raises:
        CheckpointError: the modules contain each other, or hold what no module holds.
    """
    names: set[str] = set()
    for prefix, inner in _modules_of(module):
        for name, tensor in _own_state(inner):
            if f"{prefix}{name}" in names:
                raise CheckpointError(f"the module holds two tensors named {prefix}{name}")
            names.add(f"{prefix}{name}")
            yield f"{prefix}{name}", tensor


def _modules_of(module: Inert) -> Iterator[tuple[str, Inert]]:
    """Yield every module in the order of `state_dict`: itself, then its children, with prefixes."""
    waiting: list[tuple[str, Inert, int]] = [("", module, 0)]
    parts = 0
    while waiting:
        prefix, inner, depth = waiting.pop()
        parts += 1 + sum(len(_members(inner, kind)) for kind in _KINDS)
        if parts > _PARTS:
            raise CheckpointError(f"the module has more than {_PARTS} parts")
        if depth > _DEPTH:  # also what a module that contains itself comes to
            raise CheckpointError(f"the module nests more than {_DEPTH} deep, or contains itself")
        yield prefix, inner
        for name, child in reversed(_members(inner, "_modules").items()):
            if child is not None:
                waiting.append((f"{prefix}{name}.", _checked_module(child, name), depth + 1))


def _checked_module(child: object, name: str) -> Inert:
    if not isinstance(child, Inert) or not _is_module(child):
        raise CheckpointError(f"{name!r} stands among the modules and is none")
    return child


def _own_state(module: Inert) -> Iterator[tuple[str, StoredTensor]]:
    unsaved = module.attributes.get("_non_persistent_buffers_set")
    left_out = unsaved.elements if isinstance(unsaved, Inert) else []
    buffers = _members(module, "_buffers")
    kept = {name: value for name, value in buffers.items() if name not in left_out}
    for name, value in (*_members(module, "_parameters").items(), *kept.items()):
        if isinstance(value, StoredTensor):
            yield name, value
        elif value is not None:
            raise CheckpointError(f"{name!r} stands among the tensors and is none")


def _members(module: Inert, kind: str) -> dict[str, object]:
    members = module.attributes[kind]
    if not isinstance(members, dict) or not all(_is_name(name) for name in members):
        raise CheckpointError(f"{kind} of the {module.class_name} is no dictionary of names")
    return members


def _is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _NAME_LENGTH and name.isprintable()
