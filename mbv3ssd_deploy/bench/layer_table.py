"""From the times of all layers to the few that matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from mbv3ssd_deploy.bench.report import LayerReport, LayersReport
from mbv3ssd_deploy.runtimes.bench_job import LayerTimes

SHOWN: Final = 10
_MS: Final = 1e3


def layers_report(target: str, title: str, times: LayerTimes) -> LayersReport:
    """Return the slowest `SHOWN` layers, and the time of each layer type.

    A share is one of all layers together, not of the whole network: layers are timed one by one,
    and that costs a little by itself.
    """
    total = sum(layer.seconds for layer in times.layers)
    ranked = sorted(times.layers, key=lambda layer: -layer.seconds)
    kinds: dict[str, list[float]] = defaultdict(list)
    for layer in times.layers:
        kinds[layer.kind].append(layer.seconds)
    return LayersReport(
        target=target,
        title=title,
        method=times.method,
        layers=tuple(_line(x.name, x.kind, x.seconds, total) for x in ranked[:SHOWN]),
        kinds=_kind_lines(kinds.items(), total),
        layers_ms=_MS * total,
        whole_ms=_MS * times.whole,
    )


def _kind_lines(kinds: Iterable[tuple[str, list[float]]], total: float) -> tuple[LayerReport, ...]:
    lines = [_line(_count(found), kind, sum(found), total) for kind, found in kinds]
    return tuple(sorted(lines, key=lambda line: -line.ms))


def _count(found: list[float]) -> str:
    return "1 layer" if len(found) == 1 else f"{len(found)} layers"


def _line(name: str, kind: str, seconds: float, total: float) -> LayerReport:
    return LayerReport(name, kind, _MS * seconds, seconds / total if total else 0.0)
