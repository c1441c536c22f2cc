"""What 64-bit ARM's arithmetics cost: `python benchmarks/arm_errors.py [NAME...]`.

The networks of `peer_nets.py` run in ncnn's ARM code under qemu, on a Cortex-A76, which has float16
arithmetic. Each row is compared with float32 on the same CPU: the relative root-mean-square error
of the raw heads, and how far the boxes of the `BEST` priors with the highest scores move, in
pixels of the network's input (median and worst corner). Needs what `make arm` needs. Nothing is
timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from peer_nets import NETS, Body, build_body

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
import cpp_build
from emulated_arm import Arm, relative_error

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.boxes import decode_boxes
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn, NcnnRequest, build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.precision import PrecisionMasks, fp16_unsafe_layers
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

BEST = 100
ROWS = {
    "fp16 in memory, fp32 arithmetic": ("fp16s", True),
    "fp16 arithmetic": ("fp16", True),
    "fp16 arithmetic, no guard": ("fp16", False),
    "bf16": ("bf16", True),
}
"""What a row is called -> the arithmetic of the examples, and whether the file is guarded."""


def main() -> int:
    """Print the table for the networks that are named, else for all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETS)}")
    names = parser.parse_args().names or list(NETS)
    unknown = sorted(set(names) - set(NETS))
    if unknown:
        parser.error(f"no network is called {', '.join(unknown)}")
    arm = Arm(cpp_build.build_arm_examples())
    print(f"{datetime.now(UTC):%Y-%m-%d}, ncnn's aarch64 code under qemu-user, {arm.cpu}\n")
    print(
        "| network | arithmetic | loc | conf | boxes, median | worst |\n|---|---|---|---|---|---|"
    )
    for name in names:
        _print_network(arm, build_body(name))
    return 0


def _print_network(arm: Arm, body: Body) -> None:
    exact = _heads(arm, body, "fp32", is_guarded=True)
    text = f"{body.name}, {_unsafe_layers(body)} layers"
    for row, (arithmetic, is_guarded) in ROWS.items():
        found = _heads(arm, body, arithmetic, is_guarded=is_guarded)
        errors = " | ".join(f"{relative_error(found[key], exact[key]):.1e}" for key in exact)
        moved = _moved(body, exact, found)
        print(f"| {text} | {row} | {errors} | {np.median(moved):.2f} | {moved.max():.2f} |")
        sys.stdout.flush()
        text = ""


def _model(body: Body, *, is_guarded: bool) -> BuiltNcnn:
    guards = PrecisionMasks(fp16=is_guarded)
    request = NcnnRequest(storage=Storage.FLOAT32, outputs=Outputs.CONCAT, guards=guards)
    return build_ncnn(body.simple, request)


def _unsafe_layers(body: Body) -> int:
    """Return how many layers the faulty kernel would compute."""
    return len(fp16_unsafe_layers(_model(body, is_guarded=True).graph))


def _heads(arm: Arm, body: Body, arithmetic: str, *, is_guarded: bool) -> dict[str, F32]:
    model = _model(body, is_guarded=is_guarded)
    with tempfile.TemporaryDirectory() as scratch:
        param, weights = Path(scratch, "model.param"), Path(scratch, "model.bin")
        param.write_bytes(model.param)
        weights.write_bytes(model.weights)
        return arm.blobs(param, weights, body.sample, ["loc", "conf"], arithmetic)


def _moved(body: Body, exact: dict[str, F32], found: dict[str, F32]) -> F32:
    """By how many pixels each of the best priors' boxes moves, at its farthest corner (BEST,)."""
    lead = exact["conf"][:, 1:].max(axis=1) - exact["conf"][:, 0]
    best = np.argsort(-lead)[:BEST]
    priors = build_priors(body.spec.priors)[best]
    before, after = (
        decode_boxes(heads["loc"][best], priors, body.spec.coder) for heads in (exact, found)
    )
    size = body.spec.input.width, body.spec.input.height
    return np.abs((after - before) * np.tile(size, 2)).max(axis=1).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
