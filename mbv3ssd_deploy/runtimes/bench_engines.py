"""The networks that the measuring child runs, each loaded once; and the times of their layers.

ncnn runs in this process, not in the worker of `NcnnModel`: rows can only be compared if they take
turns in one process, and network and post-processing are timed separately. Only `bench_child.py`
may use them, because a crash of ncnn ends the process.

Layers are timed by the means of each runtime. ncnn's wheel is built without NCNN_BENCHMARK; but an
extractor computes only what it has not computed yet, so that extracting the blobs in running order
runs one layer at a time, in the layout, precision and cache state of the real network. An extracted
blob is copied and unpacked; extracting it again costs that and nothing else, and is subtracted.
(Differences of longer and longer prefixes would lose a layer of 0.02 ms in the noise of 10 ms; a
net of one layer would convert its input's layout every time.) ONNX Runtime has a profiler, of wall
times. In PyTorch hooks around every module without children take the time; functions between
modules are not included.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mbv3ssd_deploy.bundle.bundle import load_origin, read_bundle
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, softmax
from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.runtimes.bench_job import NCNN_OPTIONS, BenchRow, LayerReport, LayersReport
from mbv3ssd_deploy.runtimes.model import Model

Clock = Callable[[], float]
Times = dict[tuple[str, str], list[float]]
"""Seconds by layer name and type, one entry per round."""

_METHODS = {
    "ncnn": "each blob extracted in running order, less the cost of extracting it again",
    "onnx": "ONNX Runtime's own profiler",
    "torch": "hooks around every module without children; functions between them are missing",
}
_SHOWN_LAYERS = 10
_NODE_TIME = "_kernel_time"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load_engine(row: BenchRow) -> Engine:
    """Load the network of `row`.

    Raises:
        DeployError: the files, the runtime or the device do not allow it.
    """
    if row.runtime == "ncnn":
        return NcnnEngine(row)
    return HeadsEngine(row, _torch_model(row) if row.runtime == "torch" else _onnx_model(row))


def import_runtime(runtime: str) -> None:
    """Import what the engine needs, so that its loading time does not include it."""
    if runtime == "torch":
        from mbv3ssd_deploy.checkpoint import load  # noqa: F401, PLC0415 -- two seconds
        from mbv3ssd_deploy.runtimes import torch_model  # noqa: F401, PLC0415
    elif runtime == "onnx":
        from mbv3ssd_deploy.runtimes import onnx_model  # noqa: F401, PLC0415
    else:
        import ncnn  # noqa: F401, PLC0415 -- not needed by rows of other runtimes


class HeadsEngine:
    """PyTorch or ONNX Runtime: raw heads, decoded by the family's own rules."""

    def __init__(self, row: BenchRow, model: Model) -> None:
        self.name = row.runtime  # with its version after the first run
        self._model, self._row = model, row

    def run(self, image: F32) -> tuple[F32, F32]:
        """Run the network on a prepared (3, H, W) image; return the heads."""
        if self._row.runtime == "torch":
            _set_torch_threads(self._row.threads)
        output = self._model.run(image[None])
        self.name = f"{output.engine} on {self._row.device}"
        return output.loc[0], output.conf[0]

    def finish(self, state: tuple[F32, F32]) -> Detections | None:
        """Return the detections of the heads; None without a spec."""
        return None if self._row.spec is None else detections_from_heads(*state, self._row.spec)

    def scores(self, state: tuple[F32, F32]) -> F32 | None:
        """Return the class scores (P, C) after the softmax."""
        return softmax(state[1])


def _set_torch_threads(count: int) -> None:
    """Set the number of threads, which PyTorch has one of for the whole process."""
    import torch  # noqa: PLC0415 -- two seconds that other rows save

    torch.set_num_threads(count)


def _torch_model(row: BenchRow) -> Model:
    from mbv3ssd_deploy.runtimes.torch_model import TorchModel  # noqa: PLC0415 -- imports PyTorch

    return TorchModel(_torch_net(row), row.device)


def _torch_net(row: BenchRow) -> Any:  # noqa: ANN401 -- a torch.nn.Module
    return load_origin(read_bundle(Path(row.files[0]))).net


def _onnx_model(row: BenchRow) -> Model:
    from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415 -- ONNX Runtime

    return OnnxModel(Path(row.files[0]), row.device, threads=row.threads)


class NcnnEngine:
    """ncnn with one of `NCNN_OPTIONS`, and the post-processing layers of the network itself."""

    def __init__(self, row: BenchRow) -> None:
        import ncnn  # noqa: PLC0415 -- not needed by rows of other runtimes

        self.name = f"ncnn {ncnn.__version__} on {row.device}"
        self.net = _load_net(row, ncnn)
        self._mat = ncnn.Mat
        self._row = row

    def run(self, image: F32) -> Any:  # noqa: ANN401 -- ncnn's extractor and mats
        """Return the extractor with the heads computed, and the heads."""
        extractor = self.extractor(image)
        return extractor, [self.extract(extractor, name) for name in self._row.heads]

    def extractor(self, image: F32) -> Any:  # noqa: ANN401
        """Return a fresh extractor with `image` as its input."""
        extractor = self.net.create_extractor()
        # the Mat borrows the array's memory, and layers that work in place write to it
        code = extractor.input(self._row.input_name, self._mat(image).clone())
        if code != 0:
            raise RuntimeFailedError(f"ncnn has no input blob {self._row.input_name!r}")
        return extractor

    def extract(self, extractor: Any, name: str) -> Any:  # noqa: ANN401
        """Compute a blob and whatever it needs.

        Raises:
            RuntimeFailedError: ncnn gave up.
        """
        code, mat = extractor.extract(name)
        if code != 0:
            raise RuntimeFailedError(f"ncnn cannot compute the blob {name!r} (code {code})")
        return mat

    def finish(self, state: Any) -> Detections | None:  # noqa: ANN401
        """Run the layers behind the heads; without any, apply the family's own rules."""
        extractor, heads = state
        if self._row.ends:
            return detections_from_rows(_array(self.extract(extractor, self._row.ends[0])))
        if self._row.spec is None:
            return None
        return detections_from_heads(*self._heads(heads), self._row.spec)

    def scores(self, state: Any) -> F32 | None:  # noqa: ANN401
        """Return the scores that DetectionOutput gets, or the softmax of the raw heads."""
        _, heads = state
        if self._row.ends:
            return _array(heads[1]).reshape(-1, self._row.classes)
        return None if self._row.spec is None else softmax(self._heads(heads)[1])

    def _heads(self, mats: list[Any]) -> tuple[F32, F32]:
        """Return loc (P, 4) and conf (P, C) from one blob each or from one pair per level."""
        half = len(mats) // 2
        loc, conf = (
            np.concatenate([_prior_major(mat) for mat in part])
            for part in (mats[:half], mats[half:])
        )
        return loc.reshape(-1, 4), conf.reshape(-1, self._row.classes)


Engine = HeadsEngine | NcnnEngine


def _load_net(row: BenchRow, ncnn: Any) -> Any:  # noqa: ANN401
    """Load the net; its threads and options must be set before."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = row.threads
    for option in frozenset().union(*NCNN_OPTIONS.values()):
        if hasattr(net.opt, option):  # which of them exist depends on the version
            setattr(net.opt, option, option in NCNN_OPTIONS[row.precision])
    for load, path in zip((net.load_param, net.load_model), row.files, strict=True):
        code = load(path)
        if code != 0:
            raise RuntimeFailedError(
                f"ncnn cannot load it (code {code})",
                where=path,
                hint=f"`mbv3ssd-deploy inspect {row.files[0]}` says what is wrong with it",
            )
    return net


def _prior_major(mat: Any) -> F32:  # noqa: ANN401
    """Return one blob's numbers prior by prior; a map (channels, h, w) holds them channel first."""
    array = _array(mat)
    return array.transpose(1, 2, 0).ravel() if array.ndim == 3 else array.ravel()


def _array(mat: Any) -> F32:  # noqa: ANN401
    if mat.empty():  # no detections; converting it would end the process
        return np.zeros((0,), np.float32)
    return np.array(mat, dtype=np.float32)


def time_layers(row: BenchRow, image: F32, warmup: int, rounds: int) -> LayersReport:
    """Return the slowest ten layers by their median of `rounds`, and each layer type.

    A share is of all layers together, not of the whole network: timing layers one by one costs a
    little by itself.
    """
    clock = time.thread_time if row.clock == "thread" else time.perf_counter
    engine = load_engine(row)
    whole = []
    for _ in range(warmup + rounds):
        began = clock()
        state = engine.run(image)
        if row.ends:  # the post-processing layers are timed as well
            engine.finish(state)
        whole.append(clock() - began)
    times = _LAYER_TIMERS[row.runtime](row, image, warmup + rounds, clock)
    medians = {layer: median(seconds[warmup:]) for layer, seconds in times.items()}
    total = sum(medians.values())

    def report(name: str, kind: str, seconds: float) -> LayerReport:
        return LayerReport(name, kind, 1e3 * seconds, seconds / total if total else 0.0)

    kinds: dict[str, list[float]] = defaultdict(list)
    for (_, kind), seconds in medians.items():
        kinds[kind].append(seconds)
    by_kind = [
        report("1 layer" if len(found) == 1 else f"{len(found)} layers", kind, sum(found))
        for kind, found in kinds.items()
    ]
    layers = [report(*layer, seconds) for layer, seconds in medians.items()]
    return LayersReport(
        target=row.target,
        title=row.title,
        method=_METHODS[row.runtime],
        layers=tuple(sorted(layers, key=lambda layer: -layer.ms)[:_SHOWN_LAYERS]),
        kinds=tuple(sorted(by_kind, key=lambda kind: -kind.ms)),
        layers_ms=1e3 * total,
        whole_ms=1e3 * median(whole[warmup:]),
    )


def _ncnn_layers(row: BenchRow, image: F32, rounds: int, clock: Clock) -> Times:
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
            engine.extract(extractor, tops[0])  # computed already: only copied
            times[name, kind].append(max(0.0, 2 * computed - began - clock()))
    return times


def _onnx_layers(row: BenchRow, image: F32, rounds: int, _clock: Clock) -> Times:
    return profile_nodes(Path(row.files[0]), image, rounds, row.threads, row.device)


def _torch_layers(row: BenchRow, image: F32, rounds: int, clock: Clock) -> Times:
    import torch  # noqa: PLC0415 -- two seconds that other rows save

    torch.set_num_threads(row.threads)
    net = _torch_net(row).to(row.device).eval()
    times: Times = defaultdict(list)
    began: dict[str, float] = {}

    def start(name: str) -> Callable[..., None]:
        return lambda *_: began.__setitem__(name, clock())

    def stop(name: str, kind: str) -> Callable[..., None]:
        return lambda *_: times[name, kind].append(clock() - began[name])

    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(start(name))
            module.register_forward_hook(stop(name, type(module).__name__))
    with torch.inference_mode():
        batch = torch.from_numpy(image[None].copy()).to(row.device)
        for _ in range(rounds):
            net(batch)
    return times


_LAYER_TIMERS = {"ncnn": _ncnn_layers, "onnx": _onnx_layers, "torch": _torch_layers}


def profile_nodes(
    model: Path, image: F32, rounds: int, threads: int = 1, device: str = "cpu"
) -> Times:
    """Return the wall seconds of every node that ONNX Runtime runs, by name and operator.

    These are the nodes after its own optimisations: fused ones, and the conversions between layouts
    (ReorderInput, ReorderOutput) that it inserted.

    Args:
        model: an ONNX file with one input (1, 3, H, W).
        image: (3, H, W) float32.
        rounds: number of runs; each node has as many entries.
        threads: per operator.
        device: "cpu" or "cuda".

    Raises:
        RuntimeFailedError: ONNX Runtime refuses the model.
        RuntimeUnavailableError: it cannot run on the device.
    """
    import onnxruntime  # noqa: PLC0415 -- not needed by rows of other runtimes

    from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415

    OnnxModel(model, device, threads=threads)  # for its checks and errors
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch, "profile"))
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(model), options, providers=[_PROVIDERS[device]])
        name = session.get_inputs()[0].name
        for _ in range(rounds):
            session.run(None, {name: image[None]})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: Times = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_NODE_TIME):
            key = (event["name"].removesuffix(_NODE_TIME), event["args"]["op_name"])
            times[key].append(event["dur"] * 1e-6)
    if not times:
        raise RuntimeFailedError("ONNX Runtime's profile names no node", where=str(model))
    return times
