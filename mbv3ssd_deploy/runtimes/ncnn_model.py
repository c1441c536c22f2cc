"""ncnn in a child process, because a broken model takes its process down.

All models of a process share one worker (`ncnn_worker.py`) per interpreter. A worker that crashed,
hung or was interrupted is an error of that call; the next call starts another.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.errors import FormatError, RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.io.child import ChildEndedError, Server, script_command
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.ncnn_graph.graph import CONF, DETECTION_OUT, LOC, MBOX_CONF, MBOX_LOC
from mbv3ssd_deploy.runtimes.model import Output, check_batch, frozen

_WORKER = str(Path(__file__).with_name("ncnn_worker.py"))
_SECONDS_TO_LOAD = 60.0
_SECONDS_PER_IMAGE = 30.0
_STDERR_LINES = 4
_REMAKE = "make the files again with `mbv3ssd-deploy to-ncnn`"

_HEADS = ((MBOX_LOC, MBOX_CONF), (LOC, CONF))
"""Blobs that hold the raw heads: of a graph with its SSD tail, of one that ends in raw heads."""

_OPTIONS = {
    (True, False): "exact float32",
    (False, False): "ncnn's default options",
    (False, True): "bfloat16",
}
"""What a run is called, by `exact` and `bf16`."""

Blobs = Mapping[str, F32]


class NcnnModel:
    """A pair of ncnn files, run by the worker that all models of this process share."""

    def __init__(  # noqa: PLR0913 -- each is a decision of the caller
        self,
        param_path: Path,
        bin_path: Path,
        *,
        exact: bool,
        bf16: bool = False,
        threads: int = 1,
        input_name: str = "input",
        timeout_s: float | None = None,
        python: str = sys.executable,
    ) -> None:
        """Check that the files exist; ncnn loads them on the first run.

        Args:
            param_path: the .param file.
            bin_path: the .bin file.
            exact: compute in float32 without Winograd; False runs with ncnn's defaults.
            bf16: compute in bfloat16 where this CPU can; not together with `exact`.
            threads: per layer.
            input_name: the blob that takes the image.
            timeout_s: limit for one call; by default a minute, and half a minute per image.
            python: the interpreter of the worker; another environment may hold another ncnn.

        Raises:
            RuntimeUnavailableError: ncnn is not installed.
            FormatError: a file is missing.
            ValueError: `exact` together with `bf16`.
        """
        if exact and bf16:
            raise ValueError("bfloat16 is not exact")
        if python == sys.executable and importlib.util.find_spec("ncnn") is None:
            raise RuntimeUnavailableError(
                "the package ncnn is not installed", hint="python -m pip install ncnn"
            )
        for path in (param_path, bin_path):
            if not path.is_file():
                raise FormatError("no such file", where=str(path), hint=_REMAKE)
        self._param = param_path.resolve()
        self._net = {
            "param": str(self._param),
            "bin": str(bin_path.resolve()),
            "exact": exact,
            "bf16": bf16,
            "threads": threads,
        }
        self._provider = f"cpu, {_OPTIONS[exact, bf16]}"
        self._input_name, self._timeout_s, self._python = input_name, timeout_s, python
        self._blobs, self._ends = blob_names(self._param.read_text(errors="replace"))

    def run(self, batch: F32, blobs: Sequence[str] = (), *, progress: Progress = silent) -> Output:
        """Return the heads of `batch`, float32 (N, 3, H, W), and the detections if it makes them.

        The heads are the blobs `mbox_loc` and `mbox_conf`; in a graph that ends in raw heads,
        `loc` and `conf` or the levels `loc_0`, `conf_0` and so on.

        Args:
            batch: the images.
            blobs: further blobs to return, of the same pass.
            progress: called after every image.

        Raises:
            RuntimeFailedError: ncnn refused the model or crashed, or a blob does not exist.
            FormatError: `detection_out` is not a list of detections.
        """
        loc_names, conf_names = self._head_blobs()
        found = (DETECTION_OUT,) if DETECTION_OUT in self._blobs else ()
        names = tuple(dict.fromkeys((*loc_names, *conf_names, *found, *blobs)))
        engine, seconds, images = self._call(batch, names, progress)
        heads = [self._heads(_joined(one, loc_names), _joined(one, conf_names)) for one in images]
        loc, conf = (np.stack(arrays) for arrays in zip(*heads, strict=True))
        return Output(
            engine=engine,
            provider=self._provider,
            tensors=MappingProxyType({"loc": frozen(loc), "conf": frozen(conf)}),
            seconds=seconds,
            detections=_detections(images) if found else None,
            blobs=images,
        )

    def run_blobs(
        self, batch: F32, names: Sequence[str], *, progress: Progress = silent
    ) -> tuple[Blobs, ...]:
        """Return the blobs `names` for each image, in the shape that ncnn gives them.

        1-D (w,), 2-D (h,w), 3-D (c,h,w); a blob without elements, such as `detection_out` where
        nothing was found, has the shape (0,).

        Raises:
            RuntimeFailedError: ncnn refused the model or crashed, or a blob does not exist.
        """
        return self._call(batch, tuple(names), progress)[2]

    def _call(
        self, batch: F32, names: tuple[str, ...], progress: Progress
    ) -> tuple[str, float, tuple[Blobs, ...]]:
        """Return the engine, the seconds of computation, and the blobs of each image."""
        check_batch(batch)
        self._check_names(names)
        count = len(batch)
        limit = self._timeout_s or _SECONDS_TO_LOAD + _SECONDS_PER_IMAGE * count
        deadline = time.monotonic() + limit
        header = {"net": self._net, "input": self._input_name, "blobs": names}
        seconds, images = 0.0, []
        progress("ncnn", 0, count)
        with _LOCK:
            worker = _worker(self._python, limit)
            for index, image in enumerate(np.ascontiguousarray(batch)):
                place = f" at image {index + 1} of {count}"
                answer, payload = self._answer(
                    worker, header | {"shape": image.shape}, image.tobytes(), deadline, place
                )
                seconds += answer["seconds"]
                images.append(_read_blobs(names, answer["shapes"], payload))
                try:
                    progress("ncnn", index + 1, count)
                except BaseException:
                    worker.kill()
                    raise
        return worker.greeting["version"], seconds, tuple(images)

    def _answer(
        self,
        worker: Server,
        header: Mapping[str, object],
        image: bytes,
        deadline: float,
        place: str,
    ) -> tuple[dict[str, Any], bytes]:
        try:
            answer, payload = worker.ask(
                header, image, timeout_s=max(0.001, deadline - time.monotonic())
            )
        except ChildEndedError as error:
            raise self._failure(f"ncnn {error.ending}{place}", error.stderr) from error
        if "failed" in answer:
            place = "" if "cannot load" in answer["failed"] else place
            raise self._failure(f"ncnn failed: {answer['failed']}{place}", worker.recent_stderr())
        return answer, payload

    def _failure(self, what: str, stderr: str) -> RuntimeFailedError:
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        text = f"; its last output: {' | '.join(lines[-_STDERR_LINES:])}" if lines else ""
        return RuntimeFailedError(f"{what}{text}", where=str(self._param), hint=_REMAKE)

    def _head_blobs(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the blobs that hold loc, and of those that hold conf."""
        levels = sum(f"loc_{i}" in self._blobs for i in range(len(self._blobs)))
        if levels and not any(self._blobs.issuperset(pair) for pair in _HEADS):
            loc, conf = ([f"{name}_{i}" for i in range(levels)] for name in ("loc", "conf"))
            return tuple(loc), tuple(conf)
        pair = next((pair for pair in _HEADS if self._blobs.issuperset(pair)), _HEADS[0])
        return (pair[0],), (pair[1],)

    def _check_names(self, names: Sequence[str]) -> None:
        """Check that the blobs exist; a .param that cannot be parsed is left to ncnn."""
        missing = [name for name in names if name not in self._blobs]
        if self._blobs and missing:
            raise RuntimeFailedError(
                f"the network has no blob {', '.join(missing)}; it ends in {', '.join(self._ends)}",
                where=str(self._param),
                hint=_REMAKE,
            )

    def _heads(self, loc: F32, conf: F32) -> tuple[F32, F32]:
        """Return loc (P, 4) and conf (P, C) from blobs of any shape that are prior-major."""
        priors = loc.size // 4
        if priors == 0 or loc.size % 4 or conf.size % priors:
            raise RuntimeFailedError(
                f"its heads have shapes {loc.shape} and {conf.shape}, which do not fit together",
                where=str(self._param),
                hint=_REMAKE,
            )
        return loc.reshape(priors, 4), conf.reshape(priors, -1)


_LOCK = threading.Lock()
_WORKERS: dict[tuple[str, str, int], Server] = {}
"""By interpreter, script and our own process: a forked child must not share its parent's pipes."""


def _worker(python: str, timeout_s: float) -> Server:
    """Return the running worker of an interpreter; start one if there is none.

    Raises:
        RuntimeUnavailableError: the interpreter cannot be started.
        RuntimeFailedError: the worker ended before it was ready.
    """
    key = (python, _WORKER, os.getpid())
    worker = _WORKERS.get(key)
    if worker is not None and not worker.is_running:
        worker.close()
        worker = None
    if worker is None:
        try:
            worker = Server(script_command(_WORKER, python=python), timeout_s=timeout_s)
        except OSError as error:
            raise RuntimeUnavailableError(
                f"the interpreter cannot be started: {error}", where=python
            ) from error
        except ChildEndedError as error:
            raise RuntimeFailedError(f"ncnn {error.ending} while it started") from error
        _WORKERS[key] = worker
    return worker


@atexit.register
def close_workers() -> None:
    """End the workers of this process."""
    for key in [key for key in _WORKERS if key[2] == os.getpid()]:
        _WORKERS.pop(key).close()


def blob_names(param_text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return all blobs of a .param file, and those that no layer consumes, in file order.

    Lines that cannot be parsed are skipped: a broken file is for ncnn to refuse.
    """
    made: dict[str, None] = {}
    used: set[str] = set()
    for line in param_text.splitlines()[2:]:  # after the magic number and the counts
        words = line.split()
        if len(words) < 4 or not (words[2].isdigit() and words[3].isdigit()):
            continue
        first_top = 4 + int(words[2])
        used.update(words[4:first_top])
        made.update(dict.fromkeys(words[first_top : first_top + int(words[3])]))
    return frozenset(made), tuple(name for name in made if name not in used)


def _detections(images: Sequence[Blobs]) -> tuple[Detections, ...]:
    try:
        return tuple(detections_from_rows(blobs[DETECTION_OUT]) for blobs in images)
    except ValueError as error:
        raise FormatError(f"{DETECTION_OUT}: {error}") from error


def _joined(blobs: Blobs, names: tuple[str, ...]) -> F32:
    """Return one head: a blob as it is, or all levels (channels, h, w) one after the other."""
    if len(names) == 1 and blobs[names[0]].ndim < 3:
        return blobs[names[0]]
    return np.concatenate([blobs[name].transpose(1, 2, 0).ravel() for name in names])


def _read_blobs(names: Sequence[str], shapes: Sequence[Sequence[int]], payload: bytes) -> Blobs:
    sizes = [int(np.prod(shape)) for shape in shapes]
    arrays = np.split(np.frombuffer(payload, np.float32), np.cumsum(sizes)[:-1])
    return MappingProxyType(
        {n: frozen(a.reshape(s)) for n, a, s in zip(names, arrays, shapes, strict=True)}
    )
