"""Each layer's own time, by the means that each runtime has.

ncnn's wheel is built without NCNN_BENCHMARK, and gives no times of layers. But an extractor
computes only what it has not computed yet: asking for the blobs in running order runs one layer at
a time, in the layout, precision and cache state of the real network. A blob that is handed out is
copied and unpacked; asking for it again costs that and nothing else, and is subtracted.
(Differences of longer and longer prefixes would drown a layer of 0.02 ms in the noise of 10 ms; a
net of one layer would convert its input's layout every time.)

ONNX Runtime has a profiler, whose times are wall times. In PyTorch hooks before and after every
module without children take the time; functions between modules stay in the remainder.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.runtimes.bench_engines import NcnnEngine, load_engine
from mbv3ssd_deploy.runtimes.bench_job import BenchRow, LayerTime, LayerTimes

Times = dict[tuple[str, str], list[float]]
"""Seconds by layer name and type, one entry a round."""

_METHODS = {
    "ncnn": "each blob extracted in running order, less the cost of extracting it again",
    "onnx": "ONNX Runtime's own profiler",
    "torch": "hooks around every module that holds no other; functions between them are missing",
}


def time_layers(row: BenchRow, image: F32, warmup: int, rounds: int) -> LayerTimes:
    """Return each layer's median of `rounds`, slowest first, and the whole network's beside it."""
    clock = time.thread_time if row.clock == "thread" else time.perf_counter
    engine = load_engine(row)
    whole = []
    for number in range(warmup + rounds):
        began = clock()
        state = engine.run(image)
        if row.ends:  # what follows the heads is made of layers, too
            engine.finish(state)
        if number >= warmup:
            whole.append(clock() - began)
    times = _WAYS[row.runtime](row, image, warmup + rounds, clock)
    layers = [
        LayerTime(name, kind, median(seconds[warmup:])) for (name, kind), seconds in times.items()
    ]
    layers.sort(key=lambda layer: -layer.seconds)
    return LayerTimes(tuple(layers), median(whole), _METHODS[row.runtime])


def _ncnn_layers(row: BenchRow, image: F32, rounds: int, clock: Callable[[], float]) -> Times:
    engine = NcnnEngine(row)
    layers = [
        (layer.name, layer.type, [engine.net.blobs()[top].name for top in layer.tops])
        for layer in engine.net.layers()
    ]
    times: Times = defaultdict(list)
    for _ in range(rounds):
        extractor = engine.extractor(image)
        for name, kind, tops in layers:
            if kind == "Input" or not tops:
                continue
            began = clock()
            engine.extract(extractor, tops[0])
            computed = clock()
            engine.extract(extractor, tops[0])  # there already: only handed out once more
            times[name, kind].append(max(0.0, 2 * computed - began - clock()))
    return times


def _onnx_layers(row: BenchRow, image: F32, rounds: int, clock: Callable[[], float]) -> Times:
    del clock  # the profiler has its own
    from mbv3ssd_deploy.runtimes.onnx_profile import profile_nodes  # noqa: PLC0415

    return profile_nodes(Path(row.files[0]), image, rounds, row.threads, row.device)


def _torch_layers(row: BenchRow, image: F32, rounds: int, clock: Callable[[], float]) -> Times:
    import torch  # noqa: PLC0415 -- two seconds that other rows save

    from mbv3ssd_deploy.bundle.bundle import read_bundle  # noqa: PLC0415
    from mbv3ssd_deploy.bundle.origin import load_origin  # noqa: PLC0415

    torch.set_num_threads(row.threads)
    net = load_origin(read_bundle(Path(row.files[0]))).net.to(row.device).eval()
    times: Times = defaultdict(list)
    began: dict[str, float] = {}
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(_starter(name, began, clock))
            module.register_forward_hook(_stopper(name, type(module).__name__, began, times, clock))
    with torch.inference_mode():
        batch = torch.from_numpy(image[None].copy()).to(row.device)
        for _ in range(rounds):
            net(batch)
    return times


def _starter(name: str, began: dict[str, float], clock: Callable[[], float]) -> Callable[..., None]:
    def start(*_: Any) -> None:  # noqa: ANN401 -- PyTorch's hook signature
        began[name] = clock()

    return start


def _stopper(
    name: str, kind: str, began: dict[str, float], times: Times, clock: Callable[[], float]
) -> Callable[..., None]:
    def stop(*_: Any) -> None:  # noqa: ANN401 -- PyTorch's hook signature
        times[name, kind].append(clock() - began[name])

    return stop


_WAYS = {"ncnn": _ncnn_layers, "onnx": _onnx_layers, "torch": _torch_layers}
