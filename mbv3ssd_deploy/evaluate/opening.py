"""From a bundle or a checkpoint to the runtimes that are asked for: one literal table.

PyTorch and ONNX Runtime are imported only for rows that run them.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mbv3ssd_deploy.bundle.again import request_from_record
from mbv3ssd_deploy.bundle.bundle import BIN, BODY, PARAM, Bundle, read_bundle
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import BundleError, CheckpointError, DeployError
from mbv3ssd_deploy.evaluate.subjects import Subject, heads_and_boxes_of, heads_of
from mbv3ssd_deploy.ncnn_graph.build import build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime
from mbv3ssd_deploy.runtimes.types import Runtime

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector

USUAL = ("torch", "onnx", "ncnn", "ncnn-fp16")
"""What is evaluated when nobody says; of these, what the bundle has."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A detector that is ready to be evaluated.

    Attributes:
        spec: how images are fed and heads are read.
        subjects: the runtimes, in the order asked for.
        left_out: why a usual runtime is not among them, in sentences.
    """

    spec: DetectorSpec
    subjects: tuple[Subject, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the runtimes find their files; `scratch` is for those that are made anew."""

    spec: DetectorSpec
    bundle: Bundle | None
    load: Callable[[], LoadedDetector]
    scratch: Path


@contextmanager
def opened(
    source: Path,
    names: Sequence[str] = (),
    *,
    checkpoint: Path | None = None,
    options: LoadOptions | None = None,
) -> Iterator[Evaluated]:
    """Yield the runtimes `names` (by default the usual ones) of a bundle or a checkpoint file.

    A checkpoint runs in PyTorch only. The files that are made for a runtime live as long as the
    context.

    Args:
        source: a bundle folder or a checkpoint file.
        names: keys of `RUNTIMES`.
        checkpoint: of the bundle, if it moved.
        options: how a checkpoint file is read.

    Raises:
        BundleError: the bundle is broken, or lacks what a runtime needs that was asked for.
        CheckpointError: the checkpoint cannot be read, or was asked for more than PyTorch.
        RuntimeUnavailableError: a package or a device that was asked for is missing.
        ValueError: a name that is not in the table.
    """
    strange = [name for name in names if name not in RUNTIMES]
    if strange:
        raise ValueError(f"no runtime is called {', '.join(strange)}")
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        if is_checkpoint(source):
            found = _checkpoint_source(source, options, Path(scratch))
        else:
            found = _bundle_source(source, checkpoint, Path(scratch))
        yield _evaluated(found, names)


def is_checkpoint(source: Path) -> bool:
    """Tell a checkpoint file from a bundle folder (or its detector.json), there or not."""
    return not source.is_dir() and source.suffix not in ("", ".json")


def _bundle_source(path: Path, checkpoint: Path | None, scratch: Path) -> _Source:
    bundle = read_bundle(path)

    @functools.cache
    def load() -> LoadedDetector:
        from mbv3ssd_deploy.bundle.origin import load_origin  # noqa: PLC0415 -- imports PyTorch

        return load_origin(bundle, checkpoint)

    return _Source(bundle.spec, bundle, load, scratch)


def _checkpoint_source(path: Path, options: LoadOptions | None, scratch: Path) -> _Source:
    from mbv3ssd_deploy.checkpoint.load import load_detector  # noqa: PLC0415 -- imports PyTorch

    loaded = load_detector(path, options)
    return _Source(loaded.spec, None, lambda: loaded, scratch)


def _evaluated(source: _Source, names: Sequence[str]) -> Evaluated:
    if source.bundle is None:
        more = [name for name in names if name not in ("torch", "torch-cuda")]
        if more:
            raise CheckpointError(
                f"a checkpoint runs in PyTorch only, not in {', '.join(more)}",
                where=str(source.load().checkpoint.path),
                hint="make a bundle of it with `mbv3ssd-deploy convert` and evaluate that",
            )
        names = names or ("torch",)
    subjects, left_out = [], []
    for name in names or USUAL:
        try:
            subjects.append(RUNTIMES[name](source, name))
        except DeployError as error:
            if names:
                error.hint = error.hint.replace("use --device cpu", f"leave {name} out")
                raise
            left_out.append(f"{name} is left out: {error.message}")
    if not subjects:
        where = "" if source.bundle is None else str(source.bundle.directory)
        raise BundleError("\n  ".join(["nothing of it runs here", *left_out]), where=where)
    return Evaluated(source.spec, tuple(subjects), tuple(left_out))


def _torch(source: _Source, name: str) -> Subject:
    from mbv3ssd_deploy.runtimes.torch_runtime import TorchRuntime  # noqa: PLC0415 -- PyTorch

    loaded = source.load()
    device = "cuda" if name.endswith("cuda") else "cpu"
    runtime = _warm(TorchRuntime(loaded.net, device), source.spec)
    size = loaded.checkpoint.path.stat().st_size
    return Subject(name, f"PyTorch, {device}", heads_of(runtime), size)


def _onnx(source: _Source, name: str) -> Subject:
    from mbv3ssd_deploy.runtimes.onnx_runtime import OnnxRuntime  # noqa: PLC0415 -- for this alone

    bundle = _bundle_of(source)
    device = "cuda" if name.endswith("cuda") else "cpu"
    runtime = _warm(OnnxRuntime(bundle.body_path, device), source.spec)
    size = bundle.manifest.files[BODY].bytes
    return Subject(name, f"ONNX Runtime, {device}", heads_of(runtime), size)


def _ncnn_exact(source: _Source, name: str) -> Subject:
    files, how = _ncnn_files(source, Storage.FLOAT32)
    runtime = NcnnRuntime(*files, exact=True)
    return _ncnn_subject(source, name, f"float32 weights {how}, exact", runtime, files)


def _ncnn_half(source: _Source, name: str) -> Subject:
    files, how = _ncnn_files(source, Storage.FLOAT16)
    runtime = NcnnRuntime(*files, exact=False)
    return _ncnn_subject(source, name, f"float16 weights {how}, default options", runtime, files)


def _ncnn_bf16(source: _Source, name: str) -> Subject:
    bundle, record = _bundle_of(source), _record_of(source)
    files = (bundle.param_path, bundle.bin_path)
    runtime = NcnnRuntime(*files, exact=False, bf16=True)
    title = f"{record.storage} weights as shipped, computed in bfloat16"
    return _ncnn_subject(source, name, title, runtime, files)


# Read from the top, which is also the order of the help text. A runtime with files of its own
# (int8, a board) is one more row: its opener returns a Subject.
RUNTIMES: Mapping[str, Callable[[_Source, str], Subject]] = MappingProxyType(
    {
        "torch": _torch,
        "torch-cuda": _torch,
        "onnx": _onnx,
        "onnx-cuda": _onnx,
        "ncnn": _ncnn_exact,
        "ncnn-fp16": _ncnn_half,
        "ncnn-bf16": _ncnn_bf16,
    }
)


def _ncnn_subject(
    source: _Source, name: str, how: str, runtime: NcnnRuntime, files: tuple[Path, Path]
) -> Subject:
    has_boxes = Outputs(_record_of(source).outputs) is Outputs.DETECTIONS
    look = heads_and_boxes_of(runtime) if has_boxes else heads_of(runtime)
    size = sum(path.stat().st_size for path in files)
    return Subject(name, f"ncnn, {how}", look, size)


def _ncnn_files(source: _Source, storage: Storage) -> tuple[tuple[Path, Path], str]:
    """Return .param and .bin with weights in `storage`: the shipped ones, or body.onnx's anew."""
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


def _bundle_of(source: _Source) -> Bundle:
    if source.bundle is None:
        raise ValueError("a checkpoint has no files for this runtime")
    return source.bundle


def _record_of(source: _Source) -> NcnnRecord:
    bundle = _bundle_of(source)
    if bundle.manifest.ncnn is None:
        raise BundleError(
            "the bundle has no ncnn files",
            where=str(bundle.directory),
            hint="run `mbv3ssd-deploy to-ncnn` first, or leave ncnn out of --runtimes",
        )
    return bundle.manifest.ncnn


def _warm(runtime: Runtime, spec: DetectorSpec) -> Runtime:
    """The first run plans and allocates; it is no image's fault."""
    runtime.run(np.zeros((1, 3, spec.input.height, spec.input.width), np.float32))
    return runtime
