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
        (place / "net.param").write_text(param)
        (place / "net.bin").write_bytes(weights)
        for index, array in enumerate(inputs.values()):
            np.save(place / f"in{index}.npy", array)
        job = {"inputs": list(inputs), "outputs": list(outputs), "fp16": fp16}
        (place / "job.json").write_text(json.dumps(job))
        child = subprocess.run(
            [sys.executable, __file__, folder],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=120,
        )
        assert child.returncode == 0, f"ncnn ended with {child.returncode}\n{child.stderr}"
        files = {name: place / f"out{index}.npy" for index, name in enumerate(outputs)}
        return {name: np.load(file) if file.exists() else None for name, file in files.items()}


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
    _child(Path(sys.argv[1]))
