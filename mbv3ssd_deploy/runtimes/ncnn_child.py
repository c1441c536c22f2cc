"""The child of `ncnn_runtime.py`: `ncnn_child.py JOB` runs one ncnn model over some images.

JOB is a folder. In it lie `job.json` (the fields of `Job`) and `inputs.npy`, float32 (N,3,H,W);
the child adds one `NNNN.npz` an image, its blobs under the names `b0`, `b1`, ... in the order asked
for. On stdout it says, line by line,

    ncnn VERSION            before anything can go wrong
    begin INDEX             before image INDEX
    end INDEX SECONDS       after it
    failed TEXT             why it stops early, with exit code 1

Everything else on stdout or stderr is ncnn's own. It stands alone (NumPy, ncnn, no import from this
package), so that it also runs in an environment that holds an older ncnn and nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import numpy.typing as npt

_INEXACT = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    *("use_bf16_packed", "use_bf16_storage"),
    *("use_winograd_convolution", "use_winograd23_convolution"),
    *("use_winograd43_convolution", "use_winograd63_convolution"),
)
"""Options that trade digits for speed; which of them exist depends on the version of ncnn."""

_BF16 = ("use_bf16_packed", "use_bf16_storage")


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    `exact` switches off all that trades digits for speed; `bf16` keeps everything in bfloat16.
    """

    param: str
    bin: str
    input_name: str
    outputs: list[str]
    exact: bool
    bf16: bool
    threads: int


class JobFailedError(Exception):
    """ncnn refused something; the text is for the user."""


def main(folder: Path) -> int:
    """Run the job in `folder`; return the exit code."""
    _say(f"ncnn {ncnn.__version__}")
    job = Job(**json.loads((folder / "job.json").read_text()))
    inputs = np.load(folder / "inputs.npy")
    try:
        net = _load_net(job)
        for index, image in enumerate(inputs):
            _say(f"begin {index}")
            began = time.perf_counter()
            blobs = _run(net, job, image)
            _say(f"end {index} {time.perf_counter() - began:.9f}")
            arrays: dict[str, Any] = {f"b{i}": blob for i, blob in enumerate(blobs)}
            np.savez(folder / f"{index:04d}.npz", **arrays)
    except JobFailedError as error:
        _say(f"failed {error}")
        return 1
    return 0


def _load_net(job: Job) -> Any:  # noqa: ANN401 -- the package has no types
    """Load the net, or fail.

    ncnn ignores `num_threads` after loading, and dies when a half-loaded net is run.
    """
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = job.threads
    for option in _INEXACT if job.exact else ():
        if hasattr(net.opt, option):
            setattr(net.opt, option, False)
    for option in _BF16 if job.bf16 else ():
        if hasattr(net.opt, option):
            setattr(net.opt, option, True)
    for load, path in ((net.load_param, job.param), (net.load_model, job.bin)):
        code = load(path)
        if code != 0:
            raise JobFailedError(f"it cannot load {Path(path).name} (code {code})")
    return net


def _run(net: Any, job: Job, image: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:  # noqa: ANN401
    """Run one image (3,H,W) in an extractor of its own, and return the blobs asked for."""
    extractor = net.create_extractor()
    extractor.set_light_mode(False)  # else a blob that was extracted once cannot be used again
    image = np.ascontiguousarray(image)
    # the Mat borrows the array's memory, and layers that work in place write to it
    code = extractor.input(job.input_name, ncnn.Mat(image).clone())
    if code != 0:
        raise JobFailedError(f"it has no input blob {job.input_name!r} (code {code})")
    return [_extracted(extractor, name) for name in job.outputs]


def _extracted(extractor: Any, name: str) -> npt.NDArray[np.float32]:  # noqa: ANN401
    code, mat = extractor.extract(name)
    if code != 0:
        raise JobFailedError(f"it cannot compute the blob {name!r} (code {code})")
    if mat.empty():  # no detections; converting it would end the process
        return np.zeros((0,), np.float32)
    return np.array(mat, dtype=np.float32)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()  # what was said must be known when the next step kills us


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
