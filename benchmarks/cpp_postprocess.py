"""Post-processing side by side: our C++ against ncnn's Softmax + DetectionOutput and against numpy.

    python benchmarks/cpp_postprocess.py [--rounds N]

3,000 priors, one thread, the same heads for all, interleaved in one process; milliseconds of this
thread's CPU time (medians of rounds). ncnn's time is that of a run minus that of a run through a
network without layers, so that its Python binding does not count, and once more minus the copy of
the logits, which a whole network would not make; ours holds all that ctypes costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import ncnn
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import cpp_build  # noqa: E402 -- the tests' own way to build and call the library
from cpp_library import Detector, Head, Library, rows  # noqa: E402
from reference_specs import qfgaohao_spec  # noqa: E402

from mbv3ssd_deploy.core.arrays import F32  # noqa: E402
from mbv3ssd_deploy.core.boxes import corners_from_centre  # noqa: E402
from mbv3ssd_deploy.core.detections import detections_from_heads  # noqa: E402
from mbv3ssd_deploy.core.priors import build_priors  # noqa: E402
from mbv3ssd_deploy.core.spec import DetectorSpec, ResultOrder  # noqa: E402
from mbv3ssd_deploy.device.contract import render_contract  # noqa: E402

# spread of the logits and lead of the background: about 870 and 4,600 candidates above 0.01 and
# 0.001 with 21 classes, 1,700 and 17,000 with 91
REALISM = {21: (2.7, 11.0), 91: (2.1, 10.35)}
THRESHOLDS = (0.3, 0.01, 0.001)
OBJECTS = 8
BATCH = 10
BUILDS = {"plain -O3": (), "AVX2": ("-DMBV3SSD_AVX2=ON",)}

TAIL = """7767517
5 5
Input loc 0 1 loc
Input conf 0 1 conf
Input priors 0 1 priors
Softmax softmax 1 1 conf shares 0=1 1=1
DetectionOutput out 3 1 loc shares priors found 0={classes} 1=0.45 2=300 3=100 4={threshold} \
5=1.000000e-01 6=1.000000e-01 7=2.000000e-01 8=2.000000e-01
"""
NO_LAYERS = """7767517
3 3
Input loc 0 1 loc
Input conf 0 1 conf
Input priors 0 1 priors
"""


def benchmark_spec(classes: int, threshold: float) -> DetectorSpec:
    """A spec with the rules that DetectionOutput has, and 3,000 priors or so."""
    spec = qfgaohao_spec(classes)
    decode = dataclasses.replace(
        spec.decode,
        score_threshold=threshold,
        candidates_per_class=300,
        keep_total=100,
        iou_epsilon=0.0,
        order=ResultOrder.SCORE,
    )
    return dataclasses.replace(spec, decode=decode)


def realistic_heads(spec: DetectorSpec) -> tuple[F32, F32]:
    """Offsets and logits of an image with a few objects, the rest background."""
    random = np.random.default_rng(0)
    spread, lead = REALISM[spec.num_classes]
    loc = random.normal(0, 1, (spec.priors.count, 4)).astype(np.float32)
    conf = random.normal(0, spread, (spec.priors.count, spec.num_classes)).astype(np.float32)
    conf[:, 0] = random.normal(lead, 1, spec.priors.count)
    for _ in range(OBJECTS):
        first = random.integers(0, spec.priors.count - 12)
        conf[first : first + 12, random.integers(1, spec.num_classes)] += 12
    return loc, conf


class NcnnTail:
    """Softmax and DetectionOutput, or nothing at all, on the same three blobs."""

    def __init__(self, param: str, heads: tuple[F32, F32], spec: DetectorSpec) -> None:
        self.net = ncnn.Net()
        self.net.opt.num_threads = 1
        self.net.opt.use_fp16_storage = False
        self.net.opt.use_fp16_arithmetic = False
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tail.param"
            path.write_text(param)
            weights = path.with_suffix(".bin")
            weights.touch()
            if self.net.load_param(str(path)) or self.net.load_model(str(weights)):
                raise RuntimeError("ncnn refuses the tail")
        corners = corners_from_centre(build_priors(spec.priors).astype(np.float32))
        variances = np.broadcast_to(np.float32(spec.coder.variances), corners.shape)
        self.arrays = {
            "loc": heads[0].ravel(),
            "conf": heads[1],
            "priors": np.stack((corners.ravel(), variances.ravel())),
        }
        self.mats = {name: ncnn.Mat(array).clone() for name, array in self.arrays.items()}

    def run(self, output: str) -> ncnn.Mat:
        """Run up to the blob `output`."""
        extractor = self.net.create_extractor()
        for name, mat in self.mats.items():
            extractor.input(name, mat)
        status, blob = extractor.extract(output)
        if status:
            raise RuntimeError(f"ncnn cannot extract {output}")
        return blob


class OurTail:
    """The library on heads that stay where they are."""

    def __init__(self, library: Library, spec: DetectorSpec, heads: tuple[F32, F32]) -> None:
        self.detector: Detector = library.open(render_contract(spec))
        self.heads = heads
        self.parts = (Head * 1)(rows(*heads))

    def run(self) -> np.ndarray:
        """Detect once."""
        return self.detector.postprocess(self.parts[0])


def cpu_ms(work: Callable[[], object], times: int = BATCH) -> float:
    """Return the milliseconds of CPU that this thread takes for `work`."""
    began = time.thread_time_ns()
    for _ in range(times):
        work()
    return (time.thread_time_ns() - began) / times / 1e6


def agreement(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Say whether both found the same."""
    same = len(ours) == len(theirs) and bool((ours["label"] == theirs[:, 0]).all())
    if not same:
        return "lists DIFFER"
    worst = float(np.abs(ours["box"] - theirs[:, 2:]).max())
    score = float(np.abs(ours["score"] - theirs[:, 1]).max())
    return f"{len(ours)} detections, the same; boxes {worst:.0e}, scores {score:.0e} apart"


def measure(classes: int, threshold: float, libraries: dict[str, Library], rounds: int) -> None:
    """Print one row of the table."""
    spec = benchmark_spec(classes, threshold)
    heads = realistic_heads(spec)
    whole = NcnnTail(TAIL.format(classes=classes, threshold=threshold), heads, spec)
    nothing = NcnnTail(NO_LAYERS, heads, spec)
    ours = {name: OurTail(library, spec, heads) for name, library in libraries.items()}
    for name, tail in ours.items():
        print(f"  {name}: {agreement(tail.run(), np.array(whole.run('found')))}")
    logits = np.empty_like(heads[1])
    works: dict[str, Callable[[], object]] = {
        "ncnn": lambda: whole.run("found"),
        "nothing": lambda: nothing.run("conf"),
        "copy": lambda: np.copyto(logits, heads[1]),
        **{name: tail.run for name, tail in ours.items()},
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(cpu_ms(work))
    cost = {name: statistics.median(times) for name, times in taken.items()}
    numpy_ms = statistics.median(
        cpu_ms(lambda: detections_from_heads(*heads, spec), 1) for _ in range(3)
    )
    ncnn_ms = cost["ncnn"] - cost["nothing"]
    for name in ours:
        print(
            f"| {classes} / {threshold:g} | {name} | {cost[name]:.3f} | {ncnn_ms:.3f} | "
            f"{ncnn_ms / cost[name]:.1f}x | {(ncnn_ms - cost['copy']) / cost[name]:.1f}x | "
            f"{numpy_ms:.1f} | {numpy_ms / cost[name]:.0f}x |"
        )


def main() -> None:
    """Build the library twice and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=51)
    rounds = parser.parse_args().rounds
    libraries = {}
    for name, options in BUILDS.items():
        folder = cpp_build.build(
            f"bench {name}".replace(" ", "_"),
            *("-DBUILD_SHARED_LIBS=ON", "-DMBV3SSD_BUILD_TESTS=OFF", *options),
        )
        libraries[name] = Library(folder / "libmbv3ssd_postprocess.so")
    print(f"{datetime.now(UTC).date()}, ncnn {ncnn.__version__}, {rounds} rounds of {BATCH}")
    print(
        "| classes / threshold | build | ours, ms | ncnn, ms | ratio | without its copy | ", end=""
    )
    print("numpy, ms | ratio |\n|---|---|---|---|---|---|---|---|")
    for classes in REALISM:
        for threshold in THRESHOLDS:
            measure(classes, threshold, libraries, rounds)


if __name__ == "__main__":
    main()
