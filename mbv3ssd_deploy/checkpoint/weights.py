"""Are these tensors weights that a network can run on?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from mbv3ssd_deploy.checkpoint.keymap import counted, is_counter, listed
from mbv3ssd_deploy.errors import CheckpointError

_CONVERTED = (torch.float64, torch.float16, torch.bfloat16)


def checked_weights(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return `tensors` as dense float32 (counters as int64), and a notice on each conversion.

    Raises:
        CheckpointError: with every tensor that is no dense float, or holds NaN or infinity.
    """
    problems = {key: why for key, tensor in tensors.items() if (why := _form_problem(key, tensor))}
    if problems:
        raise CheckpointError(
            f"{counted(problems, 'tensor')} unusable: "
            + listed(f"{key} {why}" for key, why in problems.items()),
            hint="give the file that the training saved, not a converted or quantised copy",
        )
    broken = {
        key: count for key, t in tensors.items() if not is_counter(key) and (count := _bad(t))
    }
    if broken:
        raise CheckpointError(
            f"{counted(broken, 'tensor')} not finite: "
            + listed(f"{key} ({count} NaN or Inf)" for key, count in broken.items()),
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
    """Return why `tensor` is no dense float (or counter); empty when it is."""
    stored = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    if not stored:
        return _storage_problem(tensor)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "has more elements than the file holds"
    if is_counter(key):
        return "" if not tensor.is_floating_point() and tensor.numel() == 1 else "is no counter"
    usable = tensor.dtype in (torch.float32, *_CONVERTED)
    return "" if usable else f"is {_name(tensor.dtype)}, not a float"


def _storage_problem(tensor: torch.Tensor) -> str:
    if tensor.is_meta:
        return "has a shape but no values"
    if tensor.is_quantized:
        return f"is quantised ({_name(tensor.dtype)})"
    return f"is sparse ({_name(tensor.layout)})"


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


def _name(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")
