"""Our simplified bodies in ONNX Runtime: against the unsimplified export, and on which kernels.

    python benchmarks/onnx_bodies.py [NAME...]

ONNX Runtime's CPU kernels for convolutions work on blocks of channels (its NCHWc layout, domain
com.microsoft.nchwc). A node between two of them that has no such kernel forces a ReorderOutput
before it and a ReorderInput behind it; each such node is named on stderr. At the heads the numbers
must leave in plain layout anyway.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from peer_nets import NETS, Body, build_body

from mbv3ssd_deploy.bench.remarks import machine_in_words
from mbv3ssd_deploy.bench.report import Ratio, median_of, ratio_of
from mbv3ssd_deploy.onnx_body.body import bytes_from_body
from mbv3ssd_deploy.runtimes.bench_engines import profile_nodes
from mbv3ssd_deploy.runtimes.bench_job import BenchJob, BenchRow, Rounds, run_bench_child

BLOCKED = "com.microsoft.nchwc"
REORDERS = ("ReorderInput", "ReorderOutput")
SURE, ROUNDS, MOST_PROCESSES = 0.005, 30, 6


def optimised(path: Path, folder: Path) -> onnx.ModelProto:
    """Return what ONNX Runtime really runs for the model at `path` on this CPU."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # it warns that the file is for this CPU only; it is not kept
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def stragglers(model: onnx.ModelProto) -> list[str]:
    """Return convolutions and poolings in plain layout, and layout round trips inside the body."""
    heavy = [
        f"{node.op_type} {node.name}"
        for node in model.graph.node
        if node.op_type in {"Conv", "FusedConv", "GlobalAveragePool", "AveragePool", "MaxPool"}
        and node.domain != BLOCKED
    ]
    left = {out for n in model.graph.node if n.op_type == REORDERS[1] for out in n.output}
    inner = [
        f"{node.op_type} {node.name} leaves the blocked layout and comes back"
        for node in model.graph.node
        if node.domain != BLOCKED and left & set(node.input) and _comes_back(node, model)
    ]
    return heavy + inner


def _comes_back(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(
        n.op_type == REORDERS[0] and set(n.input) & set(node.output) for n in model.graph.node
    )


def time_ratio(raw: Path, simple: Path, body: Body, folder: Path) -> tuple[float, Ratio]:
    """Return milliseconds of the simplified body, and its ratio to the raw one; one thread."""
    tensor = folder / "input.npy"
    np.save(tensor, body.sample)
    rows = tuple(
        BenchRow(path.name, "onnx", "fp32", 1, "cpu", (str(path),), None, str(tensor))
        for path in (raw, simple)
    )
    times: list[list[float]] = [[], []]
    for attempt in range(MOST_PROCESSES):
        job = BenchJob(rows, (), warmup=3, rounds=ROUNDS)
        found = run_bench_child("rounds", job, Rounds, folder / f"run-{attempt}")
        for own, row in zip(times, found.rows, strict=True):
            own.extend(row.network)
        ratio = ratio_of(times[1], times[0])
        if ratio.uncertainty <= SURE:
            break
    return 1e3 * median_of(times[1]), ratio


def share_of_reorders(simple: Path, body: Body) -> float:
    """Return which part of the time goes into changing layouts, by ONNX Runtime's profiler."""
    medians = {
        key: median_of(seconds) for key, seconds in profile_nodes(simple, body.sample, 20).items()
    }
    return sum(s for (_, op), s in medians.items() if op in REORDERS) / sum(medians.values())


def main(names: Sequence[str]) -> None:
    """Print the table."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine_in_words()}, onnxruntime ", end="")
    print(f"{onnxruntime.__version__}, 1 thread\n")
    print("| network | nodes raw | simplified | run | blocked | reorders | ms | ratio to raw |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names or NETS:
        with tempfile.TemporaryDirectory(prefix="onnx-bodies-") as scratch:
            folder = Path(scratch)
            body = build_body(name)
            raw, simple = folder / "raw.onnx", folder / "simplified.onnx"
            raw.write_bytes(bytes_from_body(body.raw))
            simple.write_bytes(bytes_from_body(body.simple))
            model = optimised(simple, folder)
            milliseconds, ratio = time_ratio(raw, simple, body, folder)
            share = share_of_reorders(simple, body)
        ops = Counter(node.op_type for node in model.graph.node)
        cells = (
            name,
            len(body.raw.model.graph.node),
            len(body.simple.model.graph.node),
            len(model.graph.node),
            sum(node.domain == BLOCKED for node in model.graph.node),
            f"{sum(ops[kind] for kind in REORDERS)} ({share:.1%})",
            f"{milliseconds:.2f}",
            f"{ratio.median:.3f} ±{ratio.uncertainty:.3f}",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        for line in stragglers(model):
            print(f"  {name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Our bodies in ONNX Runtime.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {'; '.join(NETS)}")
    given = parser.parse_args().names
    unknown = [name for name in given if name not in NETS]
    if unknown:
        parser.error(f"{'; '.join(unknown)}: not one of {'; '.join(NETS)}")
    main(given)
