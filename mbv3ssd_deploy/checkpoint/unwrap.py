"""From what a training script saved to the state_dict inside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from mbv3ssd_deploy.checkpoint.keymap import listed
from mbv3ssd_deploy.checkpoint.meta import is_of_mmengine
from mbv3ssd_deploy.errors import CheckpointError

# Plain weights come before averaged ones: they are what a training script saves under every name.
PLAIN = ("state_dict", "model", "model_state_dict", "net", "module")
AVERAGED = ("model_ema", "ema", "ema_state_dict", "state_dict_ema", "ema_model", "shadow")
# DistributedDataParallel, DataParallel and AveragedModel; torch.compile; modules around a network
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "detector.")
AVERAGE_COUNTER = "n_averaged"
HOOKS_COPY = "ema_"
"""What the keys of the second copy begin with that mmdetection 2.x's EMA hook keeps."""
MIXED_PREFIX = "save the state_dict of one network: a prefix comes off only where every key has it"
"""What to do about a prefix that some keys have and others lack."""
DEPTH = 4
"""How many wrappings may lie around a state_dict."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A bare state_dict, what was taken off it, and what a user should know."""

    tensors: dict[str, torch.Tensor]
    wrapping: tuple[str, ...]
    notices: tuple[str, ...]


def unwrap(saved: object, *, averaged: bool = False) -> Unwrapped:
    """Return the state_dict within `saved`; the averaged (EMA) one if `averaged`.

    Raises:
        CheckpointError: there is none.
    """
    wrapping: list[str] = []
    notices: list[str] = []
    inner = saved
    # mmengine's EMA hook saves the averaged weights as the state_dict, and the plain ones as EMA
    exchanged = is_of_mmengine(saved)
    for _ in range(DEPTH):
        name = _wrapper_of(inner, averaged_first=averaged and not exchanged)
        if name is None or not isinstance(inner, Mapping):
            break
        notices += _notices_on_averages(name, inner, exchanged=exchanged)
        wrapping.append(f"weights taken from {name!r}")
        inner = inner[name]
    has_averages = bool(notices)
    tensors = _tensors_of(inner, notices)
    if averaged and not (has_averages or AVERAGE_COUNTER in tensors or _has_hooks_copy(tensors)):
        raise _without_averages()
    if AVERAGE_COUNTER in tensors and not has_averages:
        notices.append(f"the weights are averaged (EMA) ones: {AVERAGE_COUNTER} is among them")
    prefixes = _common_prefixes(tensors)
    wrapping += [f"prefix {prefix!r} taken off every key" for prefix in prefixes]
    length = len("".join(prefixes))
    stripped = {key[length:]: t for key, t in tensors.items() if key != AVERAGE_COUNTER}
    return Unwrapped(stripped, tuple(wrapping), tuple(notices))


def _without_averages() -> CheckpointError:
    return CheckpointError(
        "--ema asks for averaged weights, and the file holds none",
        hint="leave --ema out, and the weights that are there are taken",
    )


def _has_hooks_copy(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether mmdetection 2.x's EMA hook kept a second copy of the weights among them."""
    return any(key.startswith(HOOKS_COPY) for key in tensors)


def _wrapper_of(saved: object, *, averaged_first: bool) -> str | None:
    if not isinstance(saved, Mapping):
        return None
    names = (*AVERAGED, *PLAIN) if averaged_first else (*PLAIN, *AVERAGED)
    return next((k for k in names if isinstance(saved.get(k), Mapping)), None)


def _notices_on_averages(name: str, saved: Mapping[str, object], *, exchanged: bool) -> list[str]:
    """Return which of plain and averaged weights were taken, where a file has averaged ones."""
    averages, plain = (
        [k for k in names if isinstance(saved.get(k), Mapping)] for names in (AVERAGED, PLAIN)
    )
    if name in AVERAGED:
        if not plain:
            return [f"only averaged (EMA) weights are here, under {name!r}; they were taken"]
        return [f"averaged (EMA) weights under {name!r} were taken, the plain ones left"]
    if exchanged:
        return [
            f"the averaged (EMA) weights were taken: mmengine saves them under {name!r}, and the "
            f"plain ones under {k!r}"
            for k in averages
        ]
    return [
        f"averaged (EMA) weights under {k!r} were left and the plain ones taken; --ema takes "
        "the averaged ones"
        for k in averages
    ]


def _tensors_of(inner: object, notices: list[str]) -> dict[str, torch.Tensor]:
    if not isinstance(inner, Mapping):
        raise CheckpointError(
            f"the file holds a {type(inner).__name__}, not a state_dict",
            hint="save the network's weights: torch.save(model.state_dict(), 'weights.pth')",
        )
    tensors = {str(k): v.detach() for k, v in inner.items() if isinstance(v, torch.Tensor)}
    others = [str(k) for k, v in inner.items() if not isinstance(v, torch.Tensor)]
    if not tensors:
        raise CheckpointError(
            "the file holds no weights"
            + (f", only the entries {listed(others)}" if others else ": its dictionary is empty"),
            hint="save the network's weights: torch.save(model.state_dict(), 'weights.pth')",
        )
    if others:
        notices.append(f"entries that are no tensors were ignored: {listed(others)}")
    return tensors


def _common_prefixes(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    keys = [key for key in tensors if key != AVERAGE_COUNTER]
    found: list[str] = []
    while keys and (
        prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in keys)), None)
    ):
        found.append(prefix)
        keys = [key.removeprefix(prefix) for key in keys]
    return found


def partial_prefix(keys: Iterable[str]) -> str:
    """Return, in words, the prefix that only some of `keys` have; empty where there is none.

    Such a prefix does not come off by itself: nobody can tell whether the other keys are of the
    same network.
    """
    keys = list(keys)
    for prefix in PREFIXES:
        count = sum(key.startswith(prefix) for key in keys)
        if 0 < count < len(keys):
            return f"only {count} of the {len(keys)} keys begin with {prefix!r}"
    return ""
