"""CPU seconds of `convert` here and in another checkout, in turns; seconds of `detect`.

git worktree add ../before COMMIT   # with an environment of its own in ../before/.venv
python benchmarks/against_commit.py --before ../before/.venv/bin/python
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

FRAMES = 100


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", help="Python of the other checkout's environment.")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(sys.executable, folder, "demo", "-o", ".")
        if options.before:
            pythons = {"before": options.before, "now": sys.executable}
            seconds = {name: [] for name in pythons}
            for _ in range(options.rounds):
                for name, python in pythons.items():
                    words = ("convert", "model.pth", "--images", "scenes/JPEGImages", "-o", name)
                    seconds[name].append(run(python, folder, *words)[0])
            report("convert, CPU seconds", seconds, "before")
        run(sys.executable, folder, "convert", "model.pth", "--images", "scenes/JPEGImages")
        write_video(folder / "film.mp4", sorted((folder / "scenes").rglob("*.jpg")))
        wall = {"onnx": [], "ncnn": []}
        for _ in range(options.rounds):
            for runtime, found in wall.items():
                words = ("detect", "deploy", "film.mp4", "--runtime", runtime, "-q")
                found.append(run(sys.executable, folder, *words)[1])
        report(f"detect on {FRAMES} frames, wall seconds", wall, "onnx")


def run(python: str, folder: Path, *words: str) -> tuple[float, float]:
    """Run a command of the tool; return its CPU seconds, children included, and wall seconds."""
    before, began = os.times(), time.perf_counter()
    command = (python, "-m", "mbv3ssd_deploy", *words)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system
    return cpu - before.children_user - before.children_system, time.perf_counter() - began


def write_video(path: Path, images: list[Path]) -> None:
    """Write 100 frames of the images in turn."""
    frames = [cv2.imread(str(image)) for image in images]
    height, width = np.shape(frames[0])[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for index in range(FRAMES):
        writer.write(frames[index % len(frames)])
    writer.release()


def report(title: str, seconds: dict[str, list[float]], base: str) -> None:
    """Print medians and their ratios."""
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{title}: {name:<7} {median:6.2f}  {median / medians[base]:.2f}")


if __name__ == "__main__":
    main()
