"""Where the training runs, and in which precision."""

from __future__ import annotations

import enum
import re

import torch

from mbv3ssd_deploy.errors import RuntimeUnavailableError
from mbv3ssd_deploy.train.distributed import Team


class Precision(enum.StrEnum):
    """The arithmetic of convolutions; weights, losses and BatchNorm stay in float32."""

    AUTO = "auto"
    """bfloat16 on a GPU that has it, float16 on another one, float32 on a CPU."""
    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"


def device_named(name: str, team: Team) -> torch.device:
    """Return the device: "auto" takes a GPU where there is one; each process its own.

    Raises:
        RuntimeUnavailableError: PyTorch sees no such device, or `name` is none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise RuntimeUnavailableError(
            f"nothing can be trained on a device {name!r}",
            hint="--device is auto, cpu, cuda, or cuda:1 for the second GPU",
        )
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = team.local_rank if ":" not in name else int(name.partition(":")[2])
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        build = torch.version.cuda or "none"
        raise RuntimeUnavailableError(
            f"PyTorch {torch.__version__} sees no GPU number {index} (its CUDA build: {build})",
            hint="use --device cpu, or install a PyTorch built for this machine's driver",
        )
    torch.cuda.set_device(index)
    # algorithms that add up in a fixed order, and are not chosen by a race of timings
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda", index)


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the type that convolutions run in; None for float32.

    Raises:
        RuntimeUnavailableError: float16 on a CPU, whose gradients nobody scales.
    """
    if precision is Precision.AUTO:
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision is Precision.FP16 and device.type == "cpu":
        raise RuntimeUnavailableError(
            "fp16 trains on a GPU only", hint="use --precision float32 or bf16"
        )
    return {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(precision)
