"""Remarks on a table: each states a fact, its figure, and what to do; and the machine in words."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mbv3ssd_deploy.bench.report import RowReport

_CPU_INFO: Final = Path("/proc/cpuinfo")
_INSTRUCTION_SETS: Final = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("asimd", "asimdhp", "asimddp"),
)
"""Those that decide which kernels a runtime takes."""
_HEAVY_FINISH: Final = 0.2
"""Share of network and post-processing from which post-processing gets a remark."""
_HEAVY_PREPARE: Final = 0.3
_NO_GAIN: Final = 0.03
"""Ratios that differ by less count as equal."""
_BAD_SCALING: Final = 0.9
_UNSURE: Final = 0.03


def remarks_on(
    rows: Sequence[RowReport], features: frozenset[str] | None = None
) -> tuple[str, ...]:
    """Return the remarks; `features` are the CPU's instruction sets, by default this CPU's."""
    features = cpu_features() if features is None else features
    remarks = [
        *_on_finish(rows),
        *_on_prepare(rows),
        *_on_precision(rows, features),
        *_on_threads(rows),
        *_on_noise(rows),
    ]
    return tuple(dict.fromkeys(remarks))


def _on_finish(rows: Sequence[RowReport]) -> Iterator[str]:
    for row in _first_of_each(rows):
        share = row.finish_ms / row.both_ms if row.both_ms else 0.0
        if row.detections is None or share < _HEAVY_FINISH:
            continue
        why = ""
        if row.candidates is not None:
            why = f": {row.candidates:,.0f} candidates pass the threshold {row.score_threshold:g}"
        remedy = (
            "raise it with `to-ncnn --conf`" if row.runtime == "ncnn" else "it runs in NumPy here"
        )
        yield f"{_name(row)}: post-processing takes {share:.0%}{why}; {remedy}"


def _on_prepare(rows: Sequence[RowReport]) -> Iterator[str]:
    for row in _first_of_each(rows):
        whole = row.prepare_ms + row.both_ms
        if whole and row.prepare_ms / whole > _HEAVY_PREPARE:
            yield (
                f"{_name(row)}: preparing the image takes {row.prepare_ms / whole:.0%} of the time"
            )


def _on_precision(rows: Sequence[RowReport], features: frozenset[str]) -> Iterator[str]:
    plain = {(r.target, r.runtime, r.threads): r for r in rows if r.precision == "fp32"}
    for row in rows:
        base = plain.get((row.target, row.runtime, row.threads))
        if base is None or base is row:
            continue
        ratio = row.both_ms / base.both_ms
        if row.precision == "fp16" and abs(ratio - 1) < _NO_GAIN:
            why = "" if "asimdhp" in features else ": no float16 arithmetic that ncnn uses"
            yield f"{_name(row)}: the fp16 options do nothing on this CPU ({ratio:.2f}x fp32){why}"
        elif ratio > 1 + max(_NO_GAIN, row.ratio.uncertainty):
            yield f"{_name(row)}: slower than fp32 here ({ratio:.2f}x){_why_slow(row, features)}"


def _why_slow(row: RowReport, features: frozenset[str]) -> str:
    lacking = row.precision == "bf16" and not {"avx512_bf16", "bf16"} & features
    return ": this CPU has no AVX512_BF16" if lacking and features else ""


def _on_threads(rows: Sequence[RowReport]) -> Iterator[str]:
    single = {(r.target, r.runtime, r.precision, r.device): r for r in rows if r.threads == 1}
    for row in rows:
        base = single.get((row.target, row.runtime, row.precision, row.device))
        if row.threads > 1 and base is not None and row.both_ms > _BAD_SCALING * base.both_ms:
            yield (
                f"{_name(row)}: {row.threads} threads gain little over one"
                f" ({row.both_ms / base.both_ms:.2f}x); one is timed in CPU time, several in wall"
                " time, which includes other processes"
            )


def _on_noise(rows: Sequence[RowReport]) -> Iterator[str]:
    unsure = [row for row in rows if row.ratio.uncertainty > _UNSURE]
    if unsure:
        worst = max(unsure, key=lambda row: row.ratio.uncertainty)
        yield (
            f"the machine was noisy: {len(unsure)} of {len(rows)} ratios are uncertain by up to"
            f" {worst.ratio.uncertainty:.2f}; repeat with more --rounds"
        )


def _first_of_each(rows: Sequence[RowReport]) -> list[RowReport]:
    """Return the first row of each target and runtime, which stands for the others."""
    return list({(r.target, r.runtime): r for r in reversed(rows)}.values())[::-1]


def _name(row: RowReport) -> str:
    return f"{row.target} on {row.title}"


def machine_in_words() -> str:
    """Return processor, instruction sets, cores and system: "AMD EPYC (avx2, avx512f), 2 cores"."""
    name = _cpu_info().get("model name") or platform.processor() or platform.machine()
    features = cpu_features()
    sets = ", ".join(name for name in _INSTRUCTION_SETS if name in features)
    cores = f"{os.cpu_count() or 1} cores, {platform.system()}"
    return f"{name} ({sets}), {cores}" if sets else f"{name}, {cores}"


def cpu_features() -> frozenset[str]:
    """Return the instruction sets that Linux lists; empty on other systems."""
    info = _cpu_info()
    return frozenset((info.get("flags") or info.get("Features", "")).split())


def _cpu_info() -> dict[str, str]:
    """Return the fields of the last processor in /proc/cpuinfo; empty if there is no such file."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
