"""The real ncnn, in a process of its own: a broken network takes only that process down.

Tests call `run_graph` (or `run_files`); run as a program, this file is the child.
"""

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
    """Like `run_graph`, from .param text and .bin bytes, which need not be ours."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        _write_job(place, param, weights, inputs, outputs, fp16=fp16)
        child = subprocess.run(
            [sys.executable, __file__, folder],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=120,
        )
        assert child.returncode == 0, f"ncnn ended with {child.returncode}\n{child.stderr}"
        return _read_blobs(place, outputs)


class NcnnServer:
    """One process that runs graph after graph: for many small ones, whose start would cost more."""

    def __enter__(self):
        self._folder = TemporaryDirectory()
        self._start()
        return self

    def __exit__(self, *_):
        self._child.stdin.close()
        self._child.wait(timeout=10)
        self._child.stdout.close()
        self._folder.cleanup()

    def run(self, graph, inputs, outputs):
        """What `run_graph` returns, exactly computed; a crash is an AssertionError."""
        from mbv3ssd_deploy.ncnn_graph.param_text import render_param
        from mbv3ssd_deploy.ncnn_graph.weight_bin import render_bin

        place = Path(self._folder.name)
        for old in place.iterdir():
            old.unlink()
        _write_job(place, render_param(graph), render_bin(graph), inputs, outputs, fp16=False)
        self._child.stdin.write(f"{place}\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline().strip()
        if answer != "done":
            self._child.kill()
            code = self._child.wait()
            self._child.stdout.close()
            self._start()
            raise AssertionError(f"ncnn said {answer!r} and ended with {code}")
        return _read_blobs(place, outputs)

    def _start(self):
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def _write_job(place, param, weights, inputs, outputs, *, fp16):  # noqa: PLR0913 -- a job
    (place / "net.param").write_text(param)
    (place / "net.bin").write_bytes(weights)
    for index, array in enumerate(inputs.values()):
        np.save(place / f"in{index}.npy", array)
    job = {"inputs": list(inputs), "outputs": list(outputs), "fp16": fp16}
    (place / "job.json").write_text(json.dumps(job))


def _read_blobs(place, outputs):
    files = {name: place / f"out{index}.npy" for index, name in enumerate(outputs)}
    return {name: np.load(file) if file.exists() else None for name, file in files.items()}


def _serve():
    for line in sys.stdin:
        try:
            _child(Path(line.strip()))
            answer = "done"
        except AssertionError as failure:
            answer = str(failure)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def _child(place):
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
    if len(sys.argv) > 1:
        _child(Path(sys.argv[1]))
    else:
        _serve()
