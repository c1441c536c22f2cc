"""The networks that the measuring child runs: each loaded once, run image by image, in process.

Unlike `NcnnModel` they keep the network loaded between images and stay in one process, because
rows can only be compared when they take turns. Only `bench_child.py` may use them: a crash of ncnn
takes the process down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, softmax
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.runtimes.bench_job import NCNN_OPTIONS, BenchRow


class Engine(Protocol):
    """A loaded network; `run`, then `finish` with what it gave."""

    name: str

    def run(self, image: F32) -> Any:  # noqa: ANN401 -- each engine hands over what it likes
        """Run the network on a prepared (3, H, W) image."""

    def finish(self, state: Any) -> Detections | None:  # noqa: ANN401
        """Return what the heads hold; None where nobody says how to read them."""

    def scores(self, state: Any) -> F32 | None:  # noqa: ANN401
        """Return the class scores (P, C) after the softmax, where they are known."""


def load_engine(row: BenchRow) -> Engine:
    """Load the network of `row`.

    Raises:
        DeployError: the files, the runtime or the device do not allow it.
    """
    engines: dict[str, Callable[[BenchRow], Engine]] = {
        "torch": _TorchEngine,
        "onnx": _OnnxEngine,
        "ncnn": NcnnEngine,
    }
    return engines[row.runtime](row)


def import_runtime(runtime: str) -> None:
    """Import what the engine needs, so that loading does not count it."""
    if runtime == "torch":
        from mbv3ssd_deploy.bundle import origin  # noqa: F401, PLC0415 -- two seconds
        from mbv3ssd_deploy.runtimes import torch_model  # noqa: F401, PLC0415
    elif runtime == "onnx":
        from mbv3ssd_deploy.runtimes import onnx_model  # noqa: F401, PLC0415
    else:
        import ncnn  # noqa: F401, PLC0415 -- rows of other runtimes do without it


class _HeadsEngine:
    """What PyTorch and ONNX Runtime have in common: raw heads, read by the family's own rules."""

    def __init__(self, runtime: Any, name: str, spec: DetectorSpec | None) -> None:  # noqa: ANN401
        self.name = name
        self._runtime = runtime
        self._spec = spec

    def run(self, image: F32) -> tuple[F32, F32]:
        tensors = self._runtime.run(image[None]).tensors
        return tensors["loc"][0], tensors["conf"][0]

    def finish(self, state: tuple[F32, F32]) -> Detections | None:
        return None if self._spec is None else detections_from_heads(*state, self._spec)

    def scores(self, state: tuple[F32, F32]) -> F32 | None:
        return softmax(state[1])


class _TorchEngine(_HeadsEngine):
    """PyTorch eager. The number of threads is the process's, so it is set before every run."""

    def __init__(self, row: BenchRow) -> None:
        import torch  # noqa: PLC0415 -- two seconds that other rows save

        from mbv3ssd_deploy.bundle.bundle import read_bundle  # noqa: PLC0415
        from mbv3ssd_deploy.bundle.origin import load_origin  # noqa: PLC0415
        from mbv3ssd_deploy.runtimes.torch_model import TorchModel  # noqa: PLC0415

        net = load_origin(read_bundle(Path(row.files[0]))).net
        self._set_threads = torch.set_num_threads
        self._threads = row.threads
        name = f"PyTorch {torch.__version__} on {row.device}"
        super().__init__(TorchModel(net, row.device), name, row.spec)

    def run(self, image: F32) -> tuple[F32, F32]:
        self._set_threads(self._threads)
        return super().run(image)


class _OnnxEngine(_HeadsEngine):
    """ONNX Runtime with all its optimisations."""

    def __init__(self, row: BenchRow) -> None:
        import onnxruntime  # noqa: PLC0415 -- rows of other runtimes do without it

        from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415

        runtime = OnnxModel(Path(row.files[0]), row.device, threads=row.threads)
        name = f"ONNX Runtime {onnxruntime.__version__} on {row.device}"
        super().__init__(runtime, name, row.spec)


class NcnnEngine:
    """ncnn with one of `NCNN_OPTIONS`; post-processing is what the network itself holds of it."""

    def __init__(self, row: BenchRow) -> None:
        import ncnn  # noqa: PLC0415 -- rows of other runtimes do without it

        self.name = f"ncnn {ncnn.__version__} on {row.device}"
        self.net = _load_net(row, ncnn)
        self._mat = ncnn.Mat
        self._row = row

    def run(self, image: F32) -> Any:  # noqa: ANN401 -- ncnn's extractor and mats
        """Return the extractor with the heads computed, and the heads."""
        extractor = self.extractor(image)
        return extractor, [self.extract(extractor, name) for name in self._row.heads]

    def extractor(self, image: F32) -> Any:  # noqa: ANN401
        """Return a fresh extractor that was fed with `image`."""
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
        """Run the layers behind the heads or, where there are none, the family's own rules."""
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
        """Return loc (P, 4) and conf (P, C) from one blob each or from one pair a level."""
        half = len(mats) // 2
        loc, conf = (
            np.concatenate([_prior_major(mat) for mat in part])
            for part in (mats[:half], mats[half:])
        )
        return loc.reshape(-1, 4), conf.reshape(-1, self._row.classes)


def _load_net(row: BenchRow, ncnn: Any) -> Any:  # noqa: ANN401
    """Load the net; its threads and options must be set before."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = row.threads
    wanted = NCNN_OPTIONS[row.precision]
    for options in NCNN_OPTIONS.values():
        for option in options:
            if hasattr(net.opt, option):  # which of them exist depends on the version
                setattr(net.opt, option, wanted.get(option, False))
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
