"""The machine in a few words, for the head of a table."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

_CPU_INFO: Final = Path("/proc/cpuinfo")
_TOLD: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "asimdhp", "asimddp")
"""The instruction sets that decide which kernels a runtime takes."""


def machine_in_words() -> str:
    """Return processor, instruction sets, cores and system: "AMD EPYC (avx2, avx512f), 2 cores"."""
    sets = [name for name in _TOLD if name in cpu_features()]
    told = f" ({', '.join(sets)})" if sets else ""
    cores = os.cpu_count() or 1
    return f"{_model_name()}{told}, {cores} cores, {platform.system()}"


def cpu_features() -> frozenset[str]:
    """Return the instruction sets that Linux lists; empty where it does not tell."""
    for line in _cpu_lines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def _model_name() -> str:
    for line in _cpu_lines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cpu_lines() -> list[str]:
    try:
        return _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
