"""The main job, measured: time and memory of the three commands, and of `--help`. `make bench`.

Each command is a process of its own, as a user starts it; the figures are wall seconds and the peak
memory of that process alone (its children, the simplifier and ncnn, come on top and are listed by
their largest one). The machine is noisy: compare ratios of one run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROUNDS = 5
RENDER = Path(__file__).parent.parent / "models" / "scenes-small" / "render.py"
TOOL = (sys.executable, "-m", "mbv3ssd_deploy")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost."""

    seconds: float
    peak_mb: float


def cost_of(command: tuple[str, ...], folder: Path) -> Cost:
    """Run `command` in `folder` and return what it cost; it must succeed."""
    # a fresh interpreter in between, because ru_maxrss of children only ever grows
    probe = (
        "import resource, subprocess, sys, time; began = time.perf_counter(); "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, "
        "stderr=subprocess.DEVNULL); "
        "print(time.perf_counter() - began, "
        "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    words = (sys.executable, "-c", probe, *command)
    out = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout
    seconds, peak_mb = map(float, out.split())
    return Cost(seconds, peak_mb)


def median(values: list[float]) -> float:
    """The middle value."""
    return sorted(values)[len(values) // 2]


def help_ratio(folder: Path) -> tuple[float, float]:
    """Median seconds of `--help`, and its ratio to a bare `import click`, interleaved."""
    helps, imports = [], []
    for _ in range(ROUNDS):
        imports.append(cost_of((sys.executable, "-c", "import click"), folder).seconds)
        helps.append(cost_of((*TOOL, "--help"), folder).seconds)
    return median(helps), median(helps) / median(imports)


def main() -> None:
    """Print the table."""
    print(f"{datetime.now(UTC).date()}, {platform.processor() or platform.machine()}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seconds, ratio = help_ratio(folder)
        print(f"--help: {seconds:.2f} s, {ratio:.2f}x a bare `import click`")
        cost_of((sys.executable, str(RENDER), "untrained", "."), folder)
        whole = 0.0
        for words in (
            ("export", "model.pth"),
            ("to-ncnn",),
            ("verify", "--images", "images"),
        ):
            cost = cost_of((*TOOL, *words), folder)
            whole += cost.seconds
            print(f"{words[0]:<8} {cost.seconds:5.1f} s  {cost.peak_mb:5.0f} MB")
        print(f"{'together':<8} {whole:5.1f} s on 8 images")


if __name__ == "__main__":
    main()
