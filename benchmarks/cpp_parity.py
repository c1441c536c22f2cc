"""The C++ post-processing against Python on 10,000 random heads.

    python benchmarks/cpp_parity.py [--heads N] [--minutes M]

Nine in ten are small, by rules drawn from all that there are; the others are whole heads of every
family. It counts the lists that differ, beyond rounding and the places of ties.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import cpp_build  # noqa: E402 -- the tests' own way to build and call the library
from cpp_library import Detector, Library  # noqa: E402
from cpp_parity import as_array, differences  # noqa: E402
from random_heads import random_heads, random_rules, small_priors  # noqa: E402
from reference_specs import ZOO_SPECS, qfgaohao_spec  # noqa: E402

from mbv3ssd_deploy.core.arrays import F32  # noqa: E402
from mbv3ssd_deploy.core.detections import detections_from_heads, scaled, softmax  # noqa: E402
from mbv3ssd_deploy.core.spec import DetectorSpec  # noqa: E402
from mbv3ssd_deploy.device.contract import render_contract  # noqa: E402

SIZE = (640, 480)
HEADS_A_SPEC = 20
PROBABILITIES = 1


def spec_at(index: int, random: np.random.Generator) -> DetectorSpec:
    """Every tenth spec is a family's own, the others are small and by random rules."""
    if index % 10 == 0:
        return list(ZOO_SPECS.values())[index // 10 % len(ZOO_SPECS)]
    spec = dataclasses.replace(qfgaohao_spec(int(random.integers(2, 92))), priors=small_priors())
    return random_rules(random, spec)


def indices(specs: int, minutes: float) -> Iterator[int]:
    """The numbers of the specs to try, as many as begin within the time."""
    end = time.monotonic() + 60 * minutes
    for index in range(specs):
        if time.monotonic() > end:
            return
        yield index


def is_a_tie(detector: Detector, loc: F32, shares: F32, expected: np.ndarray) -> bool:
    """Whether Python's own shares give Python's list: only the last digits of shares differed."""
    detector.call("set_head_form", PROBABILITIES, 0)
    found = detector.detect(loc, shares, SIZE)
    detector.call("set_head_form", 0, 0)
    return differences(found, expected) == ""


def main() -> None:
    """Compare, and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no spec after")
    arguments = parser.parse_args()
    library = Library(cpp_build.build_preset("release") / "libmbv3ssd_postprocess.so")
    random = np.random.default_rng(2026)
    lists = boxes = ties = 0
    worst_score = worst_box = 0.0
    for index in indices(arguments.heads // HEADS_A_SPEC, arguments.minutes):
        spec = spec_at(index, random)
        detector = library.open(render_contract(spec))
        for _ in range(HEADS_A_SPEC):
            loc, conf = random_heads(random, spec.priors.count, spec.num_classes)
            found = detector.detect(loc, conf, SIZE)
            expected = as_array(scaled(detections_from_heads(loc, conf, spec), *SIZE))
            lists += 1
            boxes += len(found)
            problem = differences(found, expected)
            if problem and is_a_tie(detector, loc, softmax(conf), expected):
                ties += 1
            elif problem:
                print(f"spec {index}: {problem}")
            elif len(found):
                same_place = found["label"] == expected["label"]
                apart = np.abs(found["box"] - expected["box"]).max(axis=1)[same_place]
                worst_box = max(worst_box, float(apart[apart < 1e-3].max(initial=0.0)))
                scores = np.abs(found["score"] - expected["score"])
                worst_score = max(worst_score, float(scores.max()))
    print(
        f"{datetime.now(UTC).date()}: {lists} heads, {boxes} detections; {ties} lists in which "
        "scores equal up to rounding decide who suppresses whom; "
        f"scores at most {worst_score:.1e} apart, boxes {worst_box:.1e} px"
    )


if __name__ == "__main__":
    main()
