"""ncnn in a child process, because a broken model takes the process down with it."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import FormatError, RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.io.child import ChildResult, run_child, script_command
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.runtimes.types import RunResult, check_batch, frozen

_CHILD = str(Path(__file__).with_name("ncnn_child.py"))
_SECONDS_TO_START = 60.0
_SECONDS_AN_IMAGE = 30.0
_STDERR_LINES = 4
_REMAKE = "make the files anew with `mbv3ssd-deploy to-ncnn`"

_HEADS = (("mbox_loc", "mbox_conf"), ("loc", "conf"))
"""Blobs that hold the raw heads: of a graph with its SSD tail, of one that ends in raw heads."""

_OPTIONS = {
    (True, False): "exact float32",
    (False, False): "ncnn's default options",
    (False, True): "bfloat16",
}
"""What a run is called, by `exact` and `bf16`."""


class NcnnRuntime:
    """One pair of ncnn files. Each call is a child process of its own, which loads them anew."""

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
        """Take note of the files; ncnn does not see them yet.

        Args:
            param_path: the .param file.
            bin_path: the .bin file.
            exact: compute in float32 without Winograd; False runs with ncnn's own defaults.
            bf16: keep everything in bfloat16 where this CPU can; not together with `exact`.
            threads: for one layer.
            input_name: the blob that takes the image.
            timeout_s: for a whole call; None gives it a minute, and half a minute an image.
            python: the interpreter of the child; another environment may hold another ncnn.

        Raises:
            RuntimeUnavailableError: there is no ncnn here.
            FormatError: a file is missing.
            ValueError: `exact` and `bf16`.
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
        self._param, self._bin = param_path.resolve(), bin_path.resolve()
        self._exact, self._bf16 = exact, bf16
        self._threads, self._input_name = threads, input_name
        self._timeout_s, self._python = timeout_s, python
        self._blobs, self._ends = blob_names(self._param.read_text(errors="replace"))

    def run(self, batch: F32, *, progress: Progress = silent) -> RunResult:
        """Return loc (N,P,4) and conf (N,P,C) logits of `batch`, float32 (N,3,H,W).

        They come from the blobs `mbox_loc` and `mbox_conf`; in a graph that ends in raw heads from
        `loc` and `conf`, or from the levels `loc_0`, `conf_0` and so on. `progress` is told after
        every image.

        Raises:
            RuntimeFailedError: ncnn refused the model or died, or the model has no such blobs.
        """
        return self.run_with(batch, (), progress=progress)[0]

    def run_with(
        self, batch: F32, names: Sequence[str], *, progress: Progress = silent
    ) -> tuple[RunResult, tuple[Mapping[str, F32], ...]]:
        """Return the heads as `run` does and, of the same pass, the blobs as `run_blobs` does.

        The seconds are those of heads and blobs together.

        Raises:
            RuntimeFailedError: as `run` and `run_blobs`.
        """
        loc_names, conf_names = self._head_blobs()
        wanted = tuple(dict.fromkeys((*loc_names, *conf_names, *names)))
        images, told = self._call(batch, wanted, progress)
        heads = [
            self._heads(_joined(blobs, loc_names), _joined(blobs, conf_names)) for blobs in images
        ]
        loc, conf = (np.stack(arrays) for arrays in zip(*heads, strict=True))
        result = RunResult(
            runtime=told.version,
            provider=f"cpu, {_OPTIONS[self._exact, self._bf16]}",
            tensors=MappingProxyType({"loc": frozen(loc), "conf": frozen(conf)}),
            seconds=told.seconds,
        )
        return result, images

    def run_blobs(
        self, batch: F32, names: Sequence[str], *, progress: Progress = silent
    ) -> tuple[Mapping[str, F32], ...]:
        """Return the blobs `names`, image by image, in the shape that ncnn gives them.

        1-D (w,), 2-D (h,w), 3-D (c,h,w); a blob without elements, such as `detection_out` where
        nothing was found, has the shape (0,).

        Raises:
            RuntimeFailedError: ncnn refused the model or died, or the model has no such blob.
        """
        return self._call(batch, tuple(names), progress)[0]

    def _call(
        self, batch: F32, names: tuple[str, ...], progress: Progress
    ) -> tuple[tuple[Mapping[str, F32], ...], _Told]:
        """Run one child: the blobs image by image, and what the child said on the way."""
        check_batch(batch)
        self._check_names(names)
        told = _Told(len(batch), progress)
        with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
            folder = Path(scratch)
            (folder / "job.json").write_text(json.dumps(self._job(names)))
            np.save(folder / "inputs.npy", np.ascontiguousarray(batch))
            result = self._run_child(folder, told)
            if result.returncode != 0:
                raise self._failure(result, told)
            images = tuple(_read_blobs(folder / f"{i:04d}.npz", names) for i in range(len(batch)))
        return images, told

    def _job(self, names: Sequence[str]) -> dict[str, object]:
        """The fields of `ncnn_child.Job`."""
        return {
            "param": str(self._param),
            "bin": str(self._bin),
            "input_name": self._input_name,
            "outputs": list(names),
            "exact": self._exact,
            "bf16": self._bf16,
            "threads": self._threads,
        }

    def _run_child(self, folder: Path, told: _Told) -> ChildResult:
        command = (*script_command(_CHILD, python=self._python), str(folder))
        limit = self._timeout_s or _SECONDS_TO_START + _SECONDS_AN_IMAGE * told.count
        try:
            return run_child(command, timeout_s=limit, on_line=told.hear)
        except OSError as error:
            raise RuntimeUnavailableError(
                f"the interpreter cannot be started: {error}", where=self._python
            ) from error

    def _failure(self, result: ChildResult, told: _Told) -> RuntimeFailedError:
        """The error that says how the child ended, at which image, and what ncnn said."""
        place = "" if told.index is None else f" at image {told.index + 1} of {told.count}"
        said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        words = f"; its last words: {' | '.join(said[-_STDERR_LINES:])}" if said else ""
        what = f"ncnn failed: {told.failed}" if told.failed else f"ncnn {result.ending}"
        return RuntimeFailedError(f"{what}{place}{words}", where=str(self._param), hint=_REMAKE)

    def _head_blobs(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The blobs that hold loc, and those that hold conf."""
        levels = sum(f"loc_{i}" in self._blobs for i in range(len(self._blobs)))
        if levels and not any(self._blobs.issuperset(pair) for pair in _HEADS):
            loc, conf = ([f"{name}_{i}" for i in range(levels)] for name in ("loc", "conf"))
            return tuple(loc), tuple(conf)
        pair = next((pair for pair in _HEADS if self._blobs.issuperset(pair)), _HEADS[0])
        return (pair[0],), (pair[1],)

    def _check_names(self, names: Sequence[str]) -> None:
        """Ask only for what is there; a .param in which nothing can be read is left to ncnn."""
        missing = [name for name in names if name not in self._blobs]
        if self._blobs and missing:
            raise RuntimeFailedError(
                f"the network has no blob {', '.join(missing)}; it ends in {', '.join(self._ends)}",
                where=str(self._param),
                hint=_REMAKE,
            )

    def _heads(self, loc: F32, conf: F32) -> tuple[F32, F32]:
        """Return loc (P,4) and conf (P,C) from blobs of any shape that are prior-major."""
        priors = loc.size // 4
        if priors == 0 or loc.size % 4 or conf.size % priors:
            raise RuntimeFailedError(
                f"its heads of shapes {loc.shape} and {conf.shape} do not belong together",
                where=str(self._param),
                hint=_REMAKE,
            )
        return loc.reshape(priors, 4), conf.reshape(priors, -1)


class _Told:
    """What the child has said so far, by the protocol of `ncnn_child.py`."""

    def __init__(self, count: int, progress: Progress) -> None:
        self.count = count
        self.version = "ncnn"
        self.index: int | None = None
        self.failed = ""
        self.seconds = 0.0
        self._progress = progress
        progress("ncnn", 0, count)

    def hear(self, line: str) -> None:
        """Take in one line of the child's stdout; lines of ncnn's own mean nothing here."""
        word, _, rest = line.partition(" ")
        if word == "ncnn":
            self.version = line
        elif word == "begin":
            self.index = int(rest)
        elif word == "end":
            index, seconds = rest.split()
            self.seconds += float(seconds)
            self._progress("ncnn", int(index) + 1, self.count)
        elif word == "failed":
            self.failed = rest


def blob_names(param_text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return all blobs of a .param file, and those that no layer consumes, in file order.

    It reads what it can: a broken file is for ncnn to refuse.
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


def _joined(blobs: Mapping[str, F32], names: tuple[str, ...]) -> F32:
    """Return one head: a blob as it is, or all levels (channels,h,w) one behind the other."""
    if len(names) == 1 and blobs[names[0]].ndim < 3:
        return blobs[names[0]]
    return np.concatenate([blobs[name].transpose(1, 2, 0).ravel() for name in names])


def _read_blobs(path: Path, names: Sequence[str]) -> Mapping[str, F32]:
    with np.load(path) as stored:
        return MappingProxyType({name: frozen(stored[f"b{i}"]) for i, name in enumerate(names)})
