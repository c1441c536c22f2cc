"""The real ncnn, in one child process for all tests: a network that crashes ends only the child.

Tests call `run_graph` (or `run_files`); run as a program, this file is the child.
"""

import atexit
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np


def run_graph(graph, inputs, outputs, *, fp16=False):
    """Return the blobs `outputs` of an NcnnGraph as float32 arrays; an empty blob is None.

    `inputs` are arrays by blob name: (w,), (h, w) or (c, h, w). ncnn is exact (no 16-bit storage or
    arithmetic, no Winograd) unless `fp16` leaves its options as they come.
    """
    from mbv3ssd_deploy.ncnn_graph.param_text import render_param
    from mbv3ssd_deploy.ncnn_graph.weight_bin import render_bin

    return run_files(render_param(graph), render_bin(graph), inputs, outputs, fp16=fp16)


def run_files(param, weights, inputs, outputs, *, fp16=False):
    """Like `run_graph`, from .param text and .bin bytes, which need not be ours.

    An error of ncnn, or its crash, is an AssertionError.
    """
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "net.param").write_text(param)
        (place / "net.bin").write_bytes(weights)
        for index, array in enumerate(inputs.values()):
            np.save(place / f"in{index}.npy", array)
        job = {"inputs": list(inputs), "outputs": list(outputs), "fp16": fp16}
        (place / "job.json").write_text(json.dumps(job))
        _CHILD.run(place)
        files = {name: place / f"out{index}.npy" for index, name in enumerate(outputs)}
        return {name: np.load(file) if file.exists() else None for name, file in files.items()}


class _Child:
    """The process; it is started for the first job, and again after a crash."""

    def __init__(self):
        self._process = None

    def run(self, place):
        if self._process is None:
            self._start()
        self._process.stdin.write(f"{place}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise AssertionError(f"ncnn ended with {self.stop()}")
        if answer != "done":
            raise AssertionError(answer)

    def _start(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def stop(self):
        """End the process, if there is one, and return its exit code."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.stdin.close()
        code = process.wait(timeout=10)
        process.stdout.close()
        return code


_CHILD = _Child()
atexit.register(_CHILD.stop)


def _serve():
    # ncnn prints to the real stdout when it cannot load a file; answers go to a copy of it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            _run_job(Path(line.strip()))
            answer = "done"
        except AssertionError as failure:
            answer = str(failure)
        answers.write(answer + "\n")
        answers.flush()


def _run_job(place):
    import ncnn

    job = json.loads((place / "job.json").read_text())
    net = ncnn.Net()
    net.opt.num_threads = 1
    if not job["fp16"]:
        net.opt.use_fp16_packed = False
        net.opt.use_fp16_storage = False
        net.opt.use_fp16_arithmetic = False
        net.opt.use_winograd_convolution = False
    # a network that failed to load must not be run: that crashes
    assert net.load_param(str(place / "net.param")) == 0, "load_param failed"
    assert net.load_model(str(place / "net.bin")) == 0, "load_model failed"
    extractor = net.create_extractor()
    extractor.set_light_mode(False)
    for index, name in enumerate(job["inputs"]):
        array = np.ascontiguousarray(np.load(place / f"in{index}.npy"), dtype=np.float32)
        # a Mat borrows the array's memory; the clone owns its own
        assert extractor.input(name, ncnn.Mat(array).clone()) == 0, f"no input blob {name}"
    for index, name in enumerate(job["outputs"]):
        code, mat = extractor.extract(name)
        assert code == 0, f"extract({name}) returned {code}"
        if not mat.empty():
            np.save(place / f"out{index}.npy", np.array(mat))


if __name__ == "__main__":
    _serve()
