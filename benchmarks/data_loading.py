"""How fast training images are made, and what a larger data set costs.

Scenes are rendered once and copied under other names, so that the data sets differ in nothing but
their number of images. Each size is opened and gone through in a process of its own, on one core;
peak memory is that process's alone. The training step (forward, backward, SGD, without matching and
loss) takes turns with the loader it is compared with, in one process. Seconds are processor
seconds, which a busy machine stretches less than those of the wall; rendering uses every core and
is the exception.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule
from mbv3ssd_deploy.data.dataset import Dataset, Split
from mbv3ssd_deploy.data.loader import TrainingSamples, start_worker
from mbv3ssd_deploy.data.sources import read_dataset

sys.path.insert(0, str(Path(__file__).parent.parent / "models" / "scenes-small"))
from renderer.scene_sets import SceneSetSpec, write_voc_scenes

SIZES = (200, 2000)
RENDERED = 100
IMAGE = (480, 360)
INPUT = 300
BATCH = 16
ROUNDS = 3


def copied_set(scenes: Path, target: Path, count: int) -> Path:
    """A VOC folder of `count` images, all of them for training, copied from a rendered one."""
    lists = target / "ImageSets" / "Main"
    for folder in (target / "JPEGImages", target / "Annotations", lists):
        folder.mkdir(parents=True)
    stems = sorted(path.stem for path in (scenes / "JPEGImages").iterdir())
    names = []
    for index in range(count):
        stem, name = stems[index % len(stems)], f"copy_{index:06d}"
        shutil.copyfile(
            scenes / "JPEGImages" / f"{stem}.jpg", target / "JPEGImages" / f"{name}.jpg"
        )
        shutil.copyfile(
            scenes / "Annotations" / f"{stem}.xml", target / "Annotations" / f"{name}.xml"
        )
        names.append(name)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names))
    shutil.copyfile(scenes / "labels.txt", target / "labels.txt")
    return target


def measured_epoch(folder: Path) -> str:
    """Open the data set and make each of its samples once: seconds, seconds, MB."""
    began = time.process_time()
    dataset = read_dataset(f"voc:{folder}", Split.TRAIN)
    opened = time.process_time()
    samples = samples_of(dataset)
    for index in range(len(samples)):
        samples[0, index]
    ended = time.process_time()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{opened - began} {ended - opened} {peak_mb}"


def measured_ratio(folder: Path) -> str:
    """Samples per second of loader and of training step, in turn on one core: medians."""
    # not at the top: they would count in the memory of an epoch
    import torch  # noqa: PLC0415

    from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec  # noqa: PLC0415
    from mbv3ssd_deploy.core.spec import Backbone  # noqa: PLC0415
    from mbv3ssd_deploy.nets.build import build_net  # noqa: PLC0415

    torch.set_num_threads(1)
    dataset = read_dataset(f"voc:{folder}", Split.TRAIN)
    samples = samples_of(dataset)
    net = build_net(native_spec(Backbone.SMALL, dataset.class_names, image_size=(INPUT, INPUT)))
    net.train()
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    rates: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 1):
        began = time.process_time()
        batch = [samples[round_, index].input for index in range(BATCH)]
        loaded = time.process_time()
        images = torch.stack([torch.from_numpy(image) for image in batch])
        optimiser.zero_grad()
        sum(output.square().mean() for output in net(images)).backward()
        optimiser.step()
        ended = time.process_time()
        if round_:  # the first one warms up
            rates[0].append(BATCH / (loaded - began))
            rates[1].append(BATCH / (ended - loaded))
    loader, step = (sorted(values)[len(values) // 2] for values in rates)
    return f"{loader} {step}"


def samples_of(dataset: Dataset) -> TrainingSamples:
    """The augmented samples at the size of the benchmark, on one core."""
    start_worker()
    middle = (127.5, 127.5, 127.5)
    spec = InputSpec(INPUT, INPUT, ChannelOrder.RGB, middle, middle, ResizeRule.CV2_U8)
    return TrainingSamples(dataset, spec, seed=0)


def in_a_process(part: str, folder: Path) -> list[float]:
    """What one part of this script measures in a fresh interpreter."""
    words = (sys.executable, __file__, "--part", part, "--folder", str(folder))
    out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in out.split()]


def report() -> None:
    """Print the table."""
    print(f"{datetime.now(UTC).date()}, {platform.processor() or platform.machine()}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as scratch:
        scenes = Path(scratch) / "scenes"
        began = time.perf_counter()
        write_voc_scenes(scenes, SceneSetSpec(RENDERED, 0, *IMAGE))
        seconds = time.perf_counter() - began
        print(f"rendering: {RENDERED / seconds:.1f} scenes/s of {IMAGE[0]} x {IMAGE[1]}")
        costs = {}
        for size in SIZES:
            folder = copied_set(scenes, Path(scratch) / str(size), size)
            costs[size] = opening, epoch, peak_mb = in_a_process("epoch", folder)
            print(
                f"{size:>5} images: open {opening:5.2f} s, epoch {epoch:6.1f} s "
                f"({size / epoch:5.1f} samples/s), peak {peak_mb:4.0f} MB"
            )
        (few, many), growth = SIZES, SIZES[1] / SIZES[0]
        print(
            f"{growth:.0f}x the images: open {costs[many][0] / costs[few][0]:.1f}x, "
            f"epoch {costs[many][1] / costs[few][1]:.1f}x, "
            f"peak {costs[many][2] / costs[few][2]:.2f}x"
        )
        loader, step = in_a_process("ratio", Path(scratch) / str(few))
        print(
            f"one core at {INPUT}: loader {loader:.1f} samples/s, Small training step "
            f"{step:.1f} samples/s, ratio {loader / step:.1f}"
        )


def main() -> None:
    """Run the whole, or one part of it for `in_a_process`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("epoch", "ratio"))
    parser.add_argument("--folder", type=Path)
    words = parser.parse_args()
    if words.part is None:
        report()
    else:
        print({"epoch": measured_epoch, "ratio": measured_ratio}[words.part](words.folder))


if __name__ == "__main__":
    main()
