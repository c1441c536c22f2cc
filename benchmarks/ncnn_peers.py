"""Our ncnn graphs beside their peers: `make peers`, or `python benchmarks/ncnn_peers.py [NAME...]`.

It compares, with the same weights in all of them:

    pnnx             pnnx's conversion of the network, its heads as the family's own code has them
    pnnx of ours     pnnx's conversion of our simplified body, where that has them otherwise
    raw heads        ours up to the blobs loc and conf            (`to-ncnn --raw-heads`)
    raw levels       ours up to one pair of maps a level          (`to-ncnn --raw-heads=levels`)

and, for ujsyehao_released, up to the detections:

    hand-edited      the published .param that started this; needs ../shared, else it is left out
    ncnnoptimize     the same after ncnnoptimize's rewrites, re-stated in peer_graphs.optimise
    ours             `to-ncnn`

One thread is timed in CPU time, two in wall time: use `--threads 2` on a quiet machine only. Rows
run in turn in one process, loaded in another order in each: where the memory of
a network happens to lie moves its time by more than these graphs differ. A ratio is the mean, over
the processes, of each one's median, ± two standard errors of that mean. Processes are added until
every ratio is known to `SURE`, or `--processes` have run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ncnn
import numpy as np
from peer_graphs import REFERENCE, write_ours, write_pnnx, write_reference
from peer_nets import NETS, Body, build_body

from mbv3ssd_deploy.bench.remarks import cpu_features, machine_in_words
from mbv3ssd_deploy.bench.report import median_of, ratio_of
from mbv3ssd_deploy.bench.targets import read_target
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.runtimes.bench_job import BenchJob, BenchRow, Rounds, run_bench_child

SURE = 0.005
"""The ± of every ratio at which measuring stops: stable to 0.01."""
ROUNDS = 30
LEAST_PROCESSES, MOST_PROCESSES = 4, 12
TAILED = "ujsyehao_released"
GOALS = (
    (TAILED, "ours", "fp32", "hand-edited", 0.89),
    (TAILED, "ours", "fp32", "ncnnoptimize", 0.92),
    (TAILED, "ours", "bf16", "hand-edited", 0.70),
    ("torchvision, 91 classes", "raw heads", "fp32", "pnnx", 1.00),
    ("torchvision, 91 classes", "raw levels", "fp32", "pnnx", 0.96),
    ("torchvision, 21 classes", "raw heads", "fp32", "pnnx", 1.01),
    ("torchvision, 21 classes", "raw levels", "fp32", "pnnx", 0.99),
)
"""Network, graph, precision, what it is compared with, the ratio to reach; with one thread."""
MOST_LAYERS = 188
"""Of ours for `TAILED`, with its tail."""
HEADER = "| network | graph | layers | precision | threads | ms | ratio |"


@dataclass(frozen=True, slots=True)
class Peer:
    """One graph of a group; the first of a group is what the others are compared with."""

    name: str
    param: Path
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table; `seconds` by process and round."""

    peer: Peer
    layers: int
    seconds: Sequence[Sequence[float]]

    def ratio_to(self, base: Line) -> Comparison:
        """Return this row's time as a share of the base's."""
        pairs = zip(self.seconds, base.seconds, strict=True)
        medians = [ratio_of(own, other).median for own, other in pairs]
        error = np.std(medians, ddof=1) / np.sqrt(len(medians)) if len(medians) > 1 else np.inf
        return Comparison(float(np.mean(medians)), 2 * float(error))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A mean ratio, and two standard errors of it."""

    ratio: float
    uncertainty: float

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ±{self.uncertainty:.3f}"


def groups_of(body: Body, folder: Path) -> list[list[Peer]]:
    """Write all graphs of `body`; return them in groups that are compared within."""
    to_heads = [Peer("pnnx", write_pnnx(body, folder, original=True))]
    if body.original is not None:
        to_heads.append(Peer("pnnx of ours", write_pnnx(body, folder, original=False)))
    to_heads.append(Peer("raw heads", write_ours(body, Outputs.CONCAT, folder)))
    to_heads.append(Peer("raw levels", write_ours(body, Outputs.LEVELS, folder)))
    groups = [to_heads]
    if body.name == TAILED and REFERENCE.is_file():
        reference, optimised = write_reference(body, folder)
        ours = write_ours(body, Outputs.DETECTIONS, folder)
        groups.append(
            [
                Peer("hand-edited", reference),
                Peer("ncnnoptimize", optimised),
                Peer("ours", ours),
                Peer("hand-edited", reference, "bf16"),
                Peer("ours", ours, "bf16"),
            ]
        )
    return groups


def measured(
    group: Sequence[Peer], body: Body, threads: int, folder: Path, most: int
) -> list[Line]:
    """Measure one group until its ratios are known to `SURE`, in at most `most` processes."""
    size = (body.spec.input.height, body.spec.input.width)
    made = folder / "made"
    made.mkdir(exist_ok=True)
    rows: list[BenchRow] = []
    for peer in group:
        row = read_target(peer.param, made, input_size=size).rows["ncnn"]
        rows.append(replace(row, precision=peer.precision, threads=threads))
    lines = [Line(peer, _layer_count(peer.param), []) for peer in group]
    for attempt in range(most):
        found = _one_process(rows, folder / f"run-{attempt}", attempt)
        lines = [
            replace(line, seconds=[*line.seconds, own])
            for line, own in zip(lines, found, strict=True)
        ]
        ratios = [line.ratio_to(lines[0]) for line in lines]
        if attempt + 1 >= LEAST_PROCESSES and max(r.uncertainty for r in ratios) <= SURE:
            break
    return lines


def _one_process(rows: Sequence[BenchRow], folder: Path, seed: int) -> list[list[float]]:
    """Return the seconds of each row, which are loaded and run in turn in an order by `seed`."""
    order = np.random.default_rng(seed).permutation(len(rows))
    job = BenchJob(tuple(rows[place] for place in order), (), warmup=3, rounds=ROUNDS)
    found = run_bench_child("rounds", job, Rounds, folder).rows
    seconds: list[list[float]] = [[] for _ in rows]
    for place, row in zip(order, found, strict=True):
        seconds[place] = [a + b for a, b in zip(row.network, row.finish, strict=True)]
    return seconds


def _layer_count(param: Path) -> int:
    return int(param.read_text().split("\n")[1].split()[0])


def _print_lines(body: Body, lines: Sequence[Line], threads: int) -> None:
    for line in lines:
        ratio = line.ratio_to(lines[0])
        cells = (body.name, line.peer.name, line.layers, line.peer.precision, threads)
        ms = f"{1e3 * median_of(np.concatenate(line.seconds)):.2f}"
        print(f"| {' | '.join(map(str, cells))} | {ms} | {ratio} |", flush=True)


def verdicts(body: Body, lines: Sequence[Line]) -> list[str]:
    """Return the result of each goal for these lines of one thread."""
    results = []
    for name, graph, precision, base, goal in GOALS:
        own = [x for x in lines if (x.peer.name, x.peer.precision) == (graph, precision)]
        other = [x for x in lines if (x.peer.name, x.peer.precision) == (base, "fp32")]
        if name != body.name or not own or not other:
            continue
        what = f"{name}: {graph} {precision} to {base}, goal {goal:.2f}"
        if precision == "bf16" and not {"avx512_bf16", "bf16"} & cpu_features():
            results.append(f"{what}: not judged, this CPU has no bf16 arithmetic")
            continue
        found = own[0].ratio_to(other[0])
        results.append(f"{what}: {'met' if found.ratio <= goal else 'NOT met'} ({found})")
    for line in lines:
        if (body.name, line.peer.name, line.peer.precision) == (TAILED, "ours", "fp32"):
            word = "met" if line.layers <= MOST_LAYERS else "NOT met"
            results.append(f"{TAILED}: at most {MOST_LAYERS} layers: {word} ({line.layers})")
    return results


def main(names: Sequence[str], threads: Sequence[int], most: int) -> None:
    """Print the table."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine_in_words()}, ncnn {ncnn.__version__}\n")
    if not REFERENCE.is_file():
        print("The hand-edited reference is not here: its rows are left out.\n")
    print(f"{HEADER}\n|---|---|---|---|---|---|---|")
    results: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ncnn-peers-") as scratch:
        for number, name in enumerate(names or NETS):
            body, folder = build_body(name), Path(scratch, str(number))
            folder.mkdir()
            for group in groups_of(body, folder):
                for count in threads:
                    lines = measured(group, body, count, folder, most)
                    _print_lines(body, lines, count)
                    results += verdicts(body, lines) if count == 1 else []
    print("".join(f"\n- {line}" for line in results))


def _at_least_one(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 on")
    return int(word)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Our ncnn graphs beside their peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {'; '.join(NETS)}")
    parser.add_argument("--threads", type=_at_least_one, nargs="+", default=[1, 2])
    parser.add_argument(
        "--processes", type=_at_least_one, default=MOST_PROCESSES, help="a group, at most"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in NETS]
    if unknown:
        parser.error(f"{'; '.join(unknown)}: not one of {'; '.join(NETS)}")
    main(given.names, given.threads, given.processes)
