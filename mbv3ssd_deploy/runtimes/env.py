"""What is installed and what this machine has: the facts that an issue report needs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "mbv3ssd-deploy": ("mbv3ssd-deploy",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxsim": ("onnxsim",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "ncnn": ("ncnn",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "safetensors": ("safetensors",),
}
"""Each package by the distributions that may have brought it; the first that is there counts."""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One place where a runtime may run, and what it answered when it was asked."""

    runtime: str
    device: str
    usable: bool
    detail: str


@dataclass(frozen=True, slots=True)
class EnvironmentReport:
    """The machine, the packages ("missing" where one is not installed), and the devices.

    `devices` is empty where they were not asked for.
    """

    python: str
    system: str
    cores: int
    packages: Mapping[str, str]
    devices: tuple[DeviceRow, ...]


def environment_report(*, devices: bool = False) -> EnvironmentReport:
    """Return the report; only with `devices` are PyTorch and ONNX Runtime loaded (seconds)."""
    return EnvironmentReport(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=platform.platform(),
        cores=os.cpu_count() or 1,
        packages=package_versions(),
        devices=probe_devices() if devices else (),
    )


def package_versions() -> Mapping[str, str]:
    """Return the installed version of every package that matters, read without importing it."""
    return MappingProxyType({name: _version(names) for name, names in _PACKAGES.items()})


def probe_devices() -> tuple[DeviceRow, ...]:
    """Ask PyTorch and ONNX Runtime what they can run on.

    ncnn is not asked for Vulkan: without a driver the question alone writes to stderr, and some
    versions then crash at exit.
    """
    return (*_torch_rows(), *_onnxruntime_rows())


def _torch_rows() -> tuple[DeviceRow, ...]:
    try:
        import torch  # noqa: PLC0415 -- two seconds that only this question costs
    except ImportError as error:
        return (DeviceRow("torch", "cpu", usable=False, detail=str(error)),)
    cpu = DeviceRow("torch", "cpu", usable=True, detail=f"{torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        detail = f"{build}; no usable GPU"
        return (cpu, DeviceRow("torch", "cuda", usable=False, detail=detail))
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    detail = f"CUDA {torch.version.cuda}: {', '.join(names)}"
    return (cpu, DeviceRow("torch", "cuda", usable=True, detail=detail))


def _onnxruntime_rows() -> tuple[DeviceRow, ...]:
    try:
        import onnxruntime  # noqa: PLC0415 -- as above
    except ImportError as error:
        return (DeviceRow("onnxruntime", "cpu", usable=False, detail=str(error)),)
    providers = onnxruntime.get_available_providers()
    detail = f"providers: {', '.join(providers)}"
    return tuple(
        DeviceRow("onnxruntime", device, usable=provider in providers, detail=detail)
        for device, provider in (
            ("cpu", "CPUExecutionProvider"),
            ("cuda", "CUDAExecutionProvider"),
        )
    )


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "missing"
