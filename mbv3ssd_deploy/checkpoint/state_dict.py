"""From what a training script saved to the weights in it, and whether a network can run on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

import torch

from mbv3ssd_deploy.checkpoint.container import Container
from mbv3ssd_deploy.checkpoint.inert_pickle import Global, Inert
from mbv3ssd_deploy.checkpoint.keymap import Shape, counted, is_counter, listed, printable
from mbv3ssd_deploy.checkpoint.storages import StoredTensor, UnusableTensor
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.io.records import Json

Entry = torch.Tensor | StoredTensor | UnusableTensor
"""A tensor of a file, read or only described."""

# Plain weights come before averaged ones: they are what a training script saves under every name.
PLAIN = ("state_dict", "model", "model_state_dict", "net", "module")
AVERAGED = ("model_ema", "ema", "ema_state_dict", "state_dict_ema", "ema_model", "shadow")
# DistributedDataParallel, DataParallel and AveragedModel; torch.compile; modules around a network
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "detector.")
AVERAGE_COUNTER = "n_averaged"
HOOKS_COPY = "ema_"
"""The prefix of the second copy that mmdetection 2.x's EMA hook keeps."""
MIXED_PREFIX = "save the state_dict of one network: a prefix is removed only where every key has it"
"""The hint on a prefix that some keys have and others lack."""
DEPTH = 4
"""How many wrappers may surround a state_dict."""

_KINDS = ("_parameters", "_buffers", "_modules")
_MODULE_DEPTH = 64
"""No network nests its modules deeper."""
_MODULE_PARTS = 100_000
"""No network has more modules, parameters and buffers; shared ones could make endlessly many names
of a short file."""
_NAME_LENGTH = 200
_CONVERTED = (torch.float64, torch.float16, torch.bfloat16)
_SAVE_WEIGHTS = "save the network's weights: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True, slots=True)
class RawCheckpoint:
    """The weights of a file under its own keys, without their wrappers.

    Attributes:
        path: the file.
        sha256: of the whole file.
        container: how the file is built.
        wrapping: what was removed from around the weights, in words.
        tensors: on the CPU, values not yet checked; of an unusable one only the key.
        spec_json: the spec of a native file, else None.
        notices: what a user should know.
        classifier_json: the spec of a native classifier, else None.
        class_names: those in the file's `meta`, mostly without the background; else empty.
        unusable: why a tensor cannot be used, by key: quantised, sparse, without values.
        module: the whole pickled module, if the file holds one: inert, its attributes readable.
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
    unusable: Mapping[str, str] = field(default_factory=dict)
    module: Inert | None = None

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor, by key."""
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}

    def channels(self, *keys: str) -> tuple[int, ...]:
        """Return the first dimension of each of `keys`.

        Raises:
            CheckpointError: keys are missing or have no dimension; all are named.
        """
        known = self.shapes
        shapes = {key: known.get(key, ()) for key in keys}
        missing = [key for key, shape in shapes.items() if not shape]
        if missing:
            mixed = partial_prefix(self.tensors)
            raise CheckpointError(
                f"tensors that describe the network are missing: {listed(missing)}"
                + (f"; {mixed}" if mixed else ""),
                hint=MIXED_PREFIX if mixed else "",
            )
        return tuple(shape[0] for shape in shapes.values())


@dataclass(frozen=True, slots=True)
class StateDict:
    """A state_dict without its wrappers, what was removed, and what a user should know."""

    tensors: dict[str, Entry]
    wrapping: tuple[str, ...]
    notices: tuple[str, ...]
    module: Inert | None = None


def find_state_dict(saved: object, *, averaged: bool = False) -> StateDict:
    """Return the state_dict within `saved`; the averaged (EMA) one if `averaged`.

    Raises:
        CheckpointError: there is none.
    """
    wrapping: list[str] = []
    notices: list[str] = []
    inner = saved
    # mmengine's EMA hook saves the averaged weights as the state_dict, and the plain ones as EMA
    exchanged = _is_of_mmengine(saved)
    for _ in range(DEPTH):
        name = _wrapper_of(inner, averaged_first=averaged and not exchanged)
        if name is None or not isinstance(inner, Mapping):
            break
        notices += _notices_on_averages(name, inner, exchanged=exchanged)
        wrapping.append(f"weights taken from {name!r}")
        inner = inner[name]
    has_averages = bool(notices)
    module = inner if is_module(inner) else None
    if module is not None:
        notices.append(
            f"the file holds a pickled module ({module.class_name}), not a state_dict: its tensors "
            "were recovered, and nothing in it was run"
        )
        inner = dict(state_of(module))
    tensors = _tensors_of(inner, notices)
    if averaged and not (has_averages or AVERAGE_COUNTER in tensors or _has_hooks_copy(tensors)):
        raise CheckpointError(
            "--ema asks for averaged weights, but the file has none",
            hint="leave out --ema to use the weights that the file has",
        )
    if AVERAGE_COUNTER in tensors and not has_averages:
        notices.append(f"the weights are averaged (EMA) ones: {AVERAGE_COUNTER} is among them")
    prefixes = _common_prefixes(tensors)
    wrapping += [f"prefix {prefix!r} removed from every key" for prefix in prefixes]
    length = len("".join(prefixes))
    stripped = {key[length:]: t for key, t in tensors.items() if key != AVERAGE_COUNTER}
    return StateDict(stripped, tuple(wrapping), tuple(notices), module)


def class_names_in(saved: object) -> tuple[str, ...]:
    """Return the class names of the data set that a file was trained on; empty if it has none.

    mmdetection 1.x and 2.x store `CLASSES` in `meta`, 3.x `dataset_meta` with `classes`.
    """
    meta = _entry(saved, "meta")
    data = _entry(meta, "dataset_meta")
    for entries, key in ((data, "classes"), (data, "CLASSES"), (meta, "CLASSES")):
        named = _entry(entries, key)
        if isinstance(named, str) and named:  # ('person') is not a tuple
            return (named,)
        if isinstance(named, list | tuple) and named:
            return tuple(named) if all(isinstance(name, str) for name in named) else ()
    return ()


def _is_of_mmengine(saved: object) -> bool:
    """Return whether mmengine saved the file; its EMA hook exchanges the two sets of weights."""
    return _entry(_entry(saved, "meta"), "mmengine_version") is not None


def _entry(entries: object, name: str) -> object:
    return entries.get(name) if isinstance(entries, dict) else None


def _has_hooks_copy(keys: Iterable[str]) -> bool:
    return any(key.startswith(HOOKS_COPY) for key in keys)


def _holds_weights(value: object) -> bool:
    return isinstance(value, Mapping) or is_module(value)


def _wrapper_of(saved: object, *, averaged_first: bool) -> str | None:
    if not isinstance(saved, Mapping):
        return None
    names = (*AVERAGED, *PLAIN) if averaged_first else (*PLAIN, *AVERAGED)
    return next((k for k in names if _holds_weights(saved.get(k))), None)


def _notices_on_averages(name: str, saved: Mapping[str, object], *, exchanged: bool) -> list[str]:
    """Return which of plain and averaged weights were taken, if a file has averaged ones."""
    averages, plain = (
        [k for k in names if _holds_weights(saved.get(k))] for names in (AVERAGED, PLAIN)
    )
    if name in AVERAGED:
        if not plain:
            return [f"the file has averaged (EMA) weights only, under {name!r}; they were used"]
        return [f"the averaged (EMA) weights under {name!r} were used, not the plain ones"]
    if exchanged:
        return [
            f"the averaged (EMA) weights were used: mmengine saves them under {name!r}, and the "
            f"plain ones under {k!r}"
            for k in averages
        ]
    return [
        f"the plain weights were used, not the averaged (EMA) ones under {k!r}; --ema uses those"
        for k in averages
    ]


def _tensors_of(inner: object, notices: list[str]) -> dict[str, Entry]:
    if isinstance(inner, Inert | Global):
        name = inner.class_name if isinstance(inner, Inert) else inner.name
        raise CheckpointError(
            f"the file holds {name}, which is neither a module nor a state_dict", hint=_SAVE_WEIGHTS
        )
    if not isinstance(inner, Mapping):
        raise CheckpointError(
            f"the file holds a {_kind_of(inner)}, not a state_dict", hint=_SAVE_WEIGHTS
        )
    tensors = {
        key: value
        for key, value in inner.items()
        if isinstance(key, str) and isinstance(value, Entry)
    }
    others = [key for key in inner if key not in tensors]
    if not tensors:
        raise CheckpointError(
            "the file holds no weights"
            + (f", only the entries {listed(others)}" if others else ": its dictionary is empty"),
            hint=_SAVE_WEIGHTS,
        )
    if others:
        notices.append(f"entries that are not tensors were ignored: {listed(others)}")
    return tensors


def _kind_of(value: object) -> str:
    return "Tensor" if isinstance(value, Entry) else type(value).__name__


def _common_prefixes(tensors: Mapping[str, Entry]) -> list[str]:
    keys = [key for key in tensors if key != AVERAGE_COUNTER]
    found: list[str] = []
    while keys and (
        prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in keys)), None)
    ):
        found.append(prefix)
        keys = [key.removeprefix(prefix) for key in keys]
    return found


def partial_prefix(keys: Iterable[str]) -> str:
    """Return, in words, the prefix that only some of `keys` have; empty if there is none.

    Such a prefix is not removed: the other keys may be of another network.
    """
    keys = list(keys)
    for prefix in PREFIXES:
        count = sum(key.startswith(prefix) for key in keys)
        if 0 < count < len(keys):
            return f"only {count} of the {len(keys)} keys begin with {prefix!r}"
    return ""


# Pickled modules: `torch.save(model)`, and scripts that save {'epoch', 'model', 'optimizer'},
# pickle objects whose classes only the original code has. What makes the state_dict is in plain
# attributes of these objects, which are walked as `torch.nn.Module.state_dict` does.


def is_module(saved: object) -> TypeGuard[Inert]:
    """Return whether an inert object has the attributes of a `torch.nn.Module`."""
    return isinstance(saved, Inert) and all(kind in saved.attributes for kind in _KINDS)


def state_of(module: Inert) -> Iterator[tuple[str, StoredTensor | UnusableTensor]]:
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
        if parts > _MODULE_PARTS:
            raise CheckpointError(f"the module has more than {_MODULE_PARTS} parts")
        if depth > _MODULE_DEPTH:  # also the case of a module that contains itself
            raise CheckpointError(
                f"the module nests more than {_MODULE_DEPTH} deep, or contains itself"
            )
        yield prefix, inner
        for name, child in reversed(_members(inner, "_modules").items()):
            if child is None:
                continue
            if not is_module(child):
                raise CheckpointError(f"{name!r} is among the modules but is not one")
            waiting.append((f"{prefix}{name}.", child, depth + 1))


def _own_state(module: Inert) -> Iterator[tuple[str, StoredTensor | UnusableTensor]]:
    unsaved = module.attributes.get("_non_persistent_buffers_set")
    names = unsaved.elements if isinstance(unsaved, Inert) else []
    left_out = {name for name in names if isinstance(name, str)}
    buffers = _members(module, "_buffers")
    kept = {name: value for name, value in buffers.items() if name not in left_out}
    for name, value in (*_members(module, "_parameters").items(), *kept.items()):
        if isinstance(value, StoredTensor | UnusableTensor):
            yield name, value
        elif value is not None:
            raise CheckpointError(f"{name!r} is among the tensors but is not one")


def _members(module: Inert, kind: str) -> dict[str, object]:
    members = module.attributes[kind]
    if not isinstance(members, dict) or not all(_is_name(name) for name in members):
        raise CheckpointError(f"{kind} of the {module.class_name} is not a dictionary of names")
    return members


def _is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _NAME_LENGTH and name.isprintable()


def checked_weights(
    tensors: Mapping[str, torch.Tensor], unusable: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return `tensors` as dense float32 (counters as int64), and a notice on each conversion.

    Raises:
        CheckpointError: tensors are not dense floats, or hold NaN or infinity; all are named.
    """
    problems = {
        key: why
        for key, tensor in tensors.items()
        if (why := unusable.get(key) or _form_problem(key, tensor))
    }
    if problems:
        raise CheckpointError(
            f"{counted(problems, 'tensor')} unusable: "
            + listed(f"{printable(key)} {why}" for key, why in problems.items()),
            hint="give the file that the training saved, not a converted or quantised copy",
        )
    broken = {
        key: count for key, t in tensors.items() if not is_counter(key) and (count := _bad(t))
    }
    if broken:
        raise CheckpointError(
            f"{counted(broken, 'tensor')} not finite: "
            + listed(f"{printable(key)} ({count} NaN or Inf)" for key, count in broken.items()),
            hint="the training run diverged, or the file is damaged: take an earlier checkpoint",
        )
    wide = {
        key: t.to(torch.int64 if is_counter(key) else torch.float32) for key, t in tensors.items()
    }
    overflown = [k for k, t in wide.items() if tensors[k].dtype == torch.float64 and _bad(t)]
    if overflown:
        raise CheckpointError(f"values beyond float32's range in {listed(overflown)}")
    return wide, _conversion_notices(tensors)


def _form_problem(key: str, tensor: torch.Tensor) -> str:
    """Return why `tensor` is not a dense float (or counter); empty if it is one."""
    if is_counter(key):
        is_integer = not tensor.is_floating_point() and not tensor.is_complex()
        return "" if is_integer and tensor.numel() == 1 else "is not a counter"
    usable = tensor.dtype in (torch.float32, *_CONVERTED)
    return "" if usable else f"is {_name(tensor.dtype)}, not a float"


def _bad(tensor: torch.Tensor) -> int:
    """Return how many elements are NaN or infinite."""
    # one pass in the good case: a sum is finite only if each element is
    if math.isfinite(tensor.to(torch.float32).abs().sum(dtype=torch.float64).item()):
        return 0
    return int((~torch.isfinite(tensor)).sum().item())


def _conversion_notices(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    counts = {dtype: sum(t.dtype == dtype for t in tensors.values()) for dtype in _CONVERTED}
    return tuple(
        f"{count} tensors of {_name(dtype)} became float32"
        for dtype, count in counts.items()
        if count
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
