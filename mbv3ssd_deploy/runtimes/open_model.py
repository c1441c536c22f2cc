"""The models of a bundle or a checkpoint by name: one literal table.

PyTorch and ONNX Runtime are imported only for models that need them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mbv3ssd_deploy.bundle.bundle import BIN, BODY, PARAM, Bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord, request_from_record
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError
from mbv3ssd_deploy.ncnn_graph.build import build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.runtimes.model import Model
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector


@dataclass(frozen=True, slots=True, eq=False)
class ModelSource:
    """Where models come from.

    Attributes:
        spec: the detector's.
        bundle: None for a checkpoint, which runs in PyTorch only.
        load: returns the checkpoint; called for PyTorch only.
        scratch: a folder for files that are made for a model; must outlast it.
    """

    spec: DetectorSpec
    bundle: Bundle | None
    load: Callable[[], LoadedDetector]
    scratch: Path


@dataclass(frozen=True, slots=True, eq=False)
class OpenedModel:
    """A model that is ready to run.

    Attributes:
        name: its key in `MODELS`.
        title: for people: the runtime, which weights, and how they are computed.
        model: the model.
        file_bytes: size of the files that it was loaded from.
    """

    name: str
    title: str
    model: Model
    file_bytes: int


def bundle_source(bundle: Bundle, scratch: Path, checkpoint: Path | None = None) -> ModelSource:
    """Return the models of a bundle; `checkpoint` is its checkpoint, if that was moved."""

    @functools.cache
    def load() -> LoadedDetector:
        from mbv3ssd_deploy.bundle.bundle import load_origin  # noqa: PLC0415 -- imports PyTorch

        return load_origin(bundle, checkpoint)

    return ModelSource(bundle.spec, bundle, load, scratch)


def open_model(source: ModelSource, name: str) -> OpenedModel:
    """Return the model `name`, a key of `MODELS`; PyTorch and ONNX Runtime have run once.

    Raises:
        BundleError: the bundle has no files for it, or its checkpoint is missing or has changed.
        CheckpointError: the checkpoint cannot be read.
        RuntimeUnavailableError: a package or device is missing.
        RuntimeFailedError: the runtime refused the model or crashed.
    """
    return MODELS[name](source, name)


def _torch(source: ModelSource, name: str) -> OpenedModel:
    from mbv3ssd_deploy.runtimes.torch_model import TorchModel  # noqa: PLC0415 -- PyTorch

    loaded = source.load()
    device = _device(name)
    model = _warm(TorchModel(loaded.net, device), source.spec)
    return OpenedModel(name, f"PyTorch, {device}", model, loaded.checkpoint.path.stat().st_size)


def _onnx(source: ModelSource, name: str) -> OpenedModel:
    from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel  # noqa: PLC0415 -- ONNX Runtime

    bundle = _bundle_of(source)
    device = _device(name)
    model = _warm(OnnxModel(bundle.body_path, device), source.spec)
    return OpenedModel(name, f"ONNX Runtime, {device}", model, bundle.manifest.files[BODY].bytes)


def _ncnn_exact(source: ModelSource, name: str) -> OpenedModel:
    files, origin = _ncnn_files(source, Storage.FLOAT32)
    title = f"float32 weights {origin}, exact"
    return _ncnn(name, title, NcnnModel(*files, exact=True), files)


def _ncnn_float16(source: ModelSource, name: str) -> OpenedModel:
    files, origin = _ncnn_files(source, Storage.FLOAT16)
    title = f"float16 weights {origin}, default options"
    return _ncnn(name, title, NcnnModel(*files, exact=False), files)


def _ncnn_bfloat16(source: ModelSource, name: str) -> OpenedModel:
    bundle, record = _bundle_of(source), _record_of(source)
    files = (bundle.param_path, bundle.bin_path)
    title = f"{record.storage} weights as shipped, computed in bfloat16"
    return _ncnn(name, title, NcnnModel(*files, exact=False, bf16=True), files)


# In the order of the help text. A model with files of its own (int8, a board) is one more row.
MODELS: Mapping[str, Callable[[ModelSource, str], OpenedModel]] = MappingProxyType(
    {
        "torch": _torch,
        "torch-cuda": _torch,
        "onnx": _onnx,
        "onnx-cuda": _onnx,
        "ncnn": _ncnn_exact,
        "ncnn-fp16": _ncnn_float16,
        "ncnn-bf16": _ncnn_bfloat16,
    }
)


def _device(name: str) -> str:
    return "cuda" if name.endswith("cuda") else "cpu"


def _warm(model: Model, spec: DetectorSpec) -> Model:
    """Run once: the first run plans and allocates."""
    model.run(np.zeros((1, 3, spec.input.height, spec.input.width), np.float32))
    return model


def _ncnn(name: str, how: str, model: NcnnModel, files: tuple[Path, Path]) -> OpenedModel:
    size = sum(path.stat().st_size for path in files)
    return OpenedModel(name, f"ncnn, {how}", model, size)


def _ncnn_files(source: ModelSource, storage: Storage) -> tuple[tuple[Path, Path], str]:
    """Return .param and .bin with weights in `storage`: the shipped ones, or made of body.onnx."""
    bundle, record = _bundle_of(source), _record_of(source)
    if record.storage == storage:
        return (bundle.param_path, bundle.bin_path), "as shipped"
    model = build_ncnn(read_body(bundle.body_path), request_from_record(record, storage))
    folder = source.scratch / storage.value
    folder.mkdir(exist_ok=True)
    param, weights = folder / PARAM, folder / BIN
    param.write_bytes(model.param)
    weights.write_bytes(model.weights)
    return (param, weights), "of body.onnx"


def _bundle_of(source: ModelSource) -> Bundle:
    if source.bundle is None:
        raise ValueError("a checkpoint has no files for this runtime")
    return source.bundle


def _record_of(source: ModelSource) -> NcnnRecord:
    bundle = _bundle_of(source)
    if bundle.manifest.ncnn is None:
        raise BundleError(
            "the bundle has no ncnn files",
            where=str(bundle.directory),
            hint="run `mbv3ssd-deploy to-ncnn` first, or leave ncnn out of --runtimes",
        )
    return bundle.manifest.ncnn
