"""From what a training script saved to the state_dict inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mbv3ssd_deploy.checkpoint.keymap import listed
from mbv3ssd_deploy.errors import CheckpointError

# Plain weights come before averaged ones: they are what a training script saves under every name.
PLAIN = ("state_dict", "model", "model_state_dict", "net", "module")
AVERAGED = ("model_ema", "ema", "ema_state_dict", "shadow")
# DistributedDataParallel, DataParallel and AveragedModel; torch.compile
PREFIXES = ("module.", "_orig_mod.")
AVERAGE_COUNTER = "n_averaged"
DEPTH = 4
"""How many wrappings may lie around a state_dict."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A bare state_dict, what was taken off it, and what a user should know."""

    tensors: dict[str, torch.Tensor]
    wrapping: tuple[str, ...]
    notices: tuple[str, ...]


def unwrap(saved: object) -> Unwrapped:
    """Return the state_dict within `saved`.

    Raises:
        CheckpointError: there is none.
    """
    wrapping: list[str] = []
    notices: list[str] = []
    inner = saved
    for _ in range(DEPTH):
        name = _wrapper_of(inner)
        if name is None or not isinstance(inner, Mapping):
            break
        notices += _notices_on_averages(name, inner)
        wrapping.append(f"weights taken from {name!r}")
        inner = inner[name]
    tensors = _tensors_of(inner, notices)
    prefixes = _common_prefixes(tensors)
    wrapping += [f"prefix {prefix!r} taken off every key" for prefix in prefixes]
    length = len("".join(prefixes))
    stripped = {key[length:]: t for key, t in tensors.items() if key != AVERAGE_COUNTER}
    return Unwrapped(stripped, tuple(wrapping), tuple(notices))


def _wrapper_of(saved: object) -> str | None:
    if not isinstance(saved, Mapping):
        return None
    return next((k for k in (*PLAIN, *AVERAGED) if isinstance(saved.get(k), Mapping)), None)


def _notices_on_averages(name: str, saved: Mapping[str, object]) -> list[str]:
    if name in AVERAGED:
        return [f"only averaged (EMA) weights are here, under {name!r}; they were taken"]
    also = [k for k in AVERAGED if isinstance(saved.get(k), Mapping)]
    return [f"averaged (EMA) weights under {k!r} were left; the plain ones taken" for k in also]


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
