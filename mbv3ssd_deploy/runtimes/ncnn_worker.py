"""The child of `ncnn_model.py`: keeps ncnn networks loaded and runs images through them.

Requests arrive on stdin, answers leave on stdout. A message is two little-endian uint32 (the
lengths of header and payload), a JSON header, and the payload: float32 arrays, one after the other.
The first answer is {"version": ...}. A request is

    {"net": {"param", "bin", "exact", "bf16", "threads"}, "input": name, "shape": [3, H, W],
     "blobs": [name, ...]}      with one image as the payload

and its answer {"shapes": [...], "seconds": s} with the blobs, or {"failed": text}.

The file imports NumPy and ncnn only, so that it also runs in an environment with another ncnn and
without this package.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import ncnn
import numpy as np
import numpy.typing as npt

_INEXACT = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    *("use_bf16_packed", "use_bf16_storage"),
    *("use_winograd_convolution", "use_winograd23_convolution"),
    *("use_winograd43_convolution", "use_winograd63_convolution"),
)
"""Options that trade precision for speed; which of them exist depends on the version of ncnn."""

_BF16 = ("use_bf16_packed", "use_bf16_storage")
_LENGTHS = struct.Struct("<II")
_MOST_NETS = 8


class RefusedError(Exception):
    """ncnn refused something; the text is shown to the user."""


def main() -> int:
    """Answer requests until stdin ends; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # ncnn prints to stdout, too
    nets: dict[str, Any] = {}
    _send(answers, {"version": f"ncnn {ncnn.__version__}"}, b"")
    while (message := _receive(requests)) is not None:
        header, payload = message
        try:
            net = _net_of(nets, header["net"])
            _send(answers, *_run(net, header, payload))
        except RefusedError as error:
            _send(answers, {"failed": str(error)}, b"")
    return 0


def _net_of(nets: dict[str, Any], wanted: dict[str, Any]) -> Any:  # noqa: ANN401 -- no types
    """Return the loaded net of a request; a file that was replaced is loaded again."""
    files = [Path(wanted[name]).stat() for name in ("param", "bin")]
    stamps = [(file.st_ino, file.st_size, file.st_mtime_ns) for file in files]
    key = json.dumps([wanted, stamps])
    if key not in nets:
        while len(nets) >= _MOST_NETS:
            del nets[next(iter(nets))]
        nets[key] = _load_net(wanted)
    return nets[key]


def _load_net(wanted: dict[str, Any]) -> Any:  # noqa: ANN401 -- the package has no types
    """Return a net; ncnn ignores options that are set later, and crashes on a half-loaded net."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = wanted["threads"]
    for options, value in ((_INEXACT if wanted["exact"] else (), False), (_BF16, True)):
        if value and not wanted["bf16"]:
            continue
        for option in options:
            if hasattr(net.opt, option):
                setattr(net.opt, option, value)
    for load, path in ((net.load_param, wanted["param"]), (net.load_model, wanted["bin"])):
        code = load(path)
        if code != 0:
            raise RefusedError(f"it cannot load {Path(path).name} (code {code})")
    return net


def _run(net: Any, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401
    """Run one image in an extractor of its own; return the answer."""
    image = np.frombuffer(payload, np.float32).reshape(header["shape"])
    began = time.perf_counter()
    extractor = net.create_extractor()
    extractor.set_light_mode(False)  # else a blob can be extracted only once
    # the Mat borrows the array's memory, and layers that work in place write to it
    code = extractor.input(header["input"], ncnn.Mat(image).clone())
    if code != 0:
        raise RefusedError(f"it has no input blob {header['input']!r} (code {code})")
    blobs = [_extracted(extractor, name) for name in header["blobs"]]
    seconds = time.perf_counter() - began
    shapes = [blob.shape for blob in blobs]
    return {"shapes": shapes, "seconds": seconds}, b"".join(blob.tobytes() for blob in blobs)


def _extracted(extractor: Any, name: str) -> npt.NDArray[np.float32]:  # noqa: ANN401
    code, mat = extractor.extract(name)
    if code != 0:
        raise RefusedError(f"it cannot compute the blob {name!r} (code {code})")
    if mat.empty():  # no detections; converting it would end the process
        return np.zeros((0,), np.float32)
    return np.array(mat, dtype=np.float32)


def _receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header, payload = _LENGTHS.unpack(lengths)
    return json.loads(stream.read(header)), stream.read(payload)


def _send(stream: BinaryIO, header: dict[str, Any], payload: bytes) -> None:
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), len(payload)) + text + payload)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
