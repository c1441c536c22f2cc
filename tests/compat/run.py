"""`make compat`: the same ncnn files must give the same answer in the oldest and the newest ncnn.

python tests/compat/run.py --old-python .compat-venv/bin/python

Each family's checkpoint that can be made here is converted in every way that changes the graph;
each pair of files then runs in both interpreters, and every blob of the tail is compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from mbv3ssd_deploy.checkpoint.demo import write_demo_checkpoint

from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.data.scenes import render_scene
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, Outputs
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime

sys.path.insert(0, str(Path(__file__).parent.parent))
import zoo

REQUESTS = {
    "fp16": NcnnRequest(),
    "fp32": NcnnRequest(storage=Storage.FLOAT32),
    "constant priors": NcnnRequest(priors="constant"),
    "nothing found": NcnnRequest(score_threshold=1.0),
    "raw heads": NcnnRequest(outputs=Outputs.CONCAT),
    "raw levels": NcnnRequest(outputs=Outputs.LEVELS),
}
BLOBS = {
    Outputs.DETECTIONS: ("mbox_loc", "mbox_conf_softmax", "mbox_priorbox", "detection_out"),
    Outputs.CONCAT: ("loc", "conf"),
    Outputs.LEVELS: ("loc_0", "conf_0"),
}
# Two builds of ncnn differ in the order of their float32 sums; boxes and scores are near 1.
TOLERANCE = 2e-3


def main() -> int:
    """Run every case; 1 when a pair of answers differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old-python", required=True)
    old_python = parser.parse_args().old_python
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, checkpoint in checkpoints(Path(scratch)).items():
            bundle = export_checkpoint(checkpoint, Path(scratch, f"{name}-bundle")).bundle
            for words, request in REQUESTS.items():
                worst = worst_difference(bundle.directory, request, old_python)
                verdict = "PASS" if worst <= TOLERANCE else "FAIL"
                failures += verdict == "FAIL"
                print(f"{verdict}  {name:<20} {words:<16} worst difference {worst:.1e}")
    return 1 if failures else 0


def checkpoints(folder: Path) -> dict[str, Path]:
    """The demo's checkpoint, and one of each family whose fixture is here."""
    import torch

    found = {"demo": folder / "demo.pth"}
    write_demo_checkpoint(found["demo"])
    if zoo.ZOO.is_dir():
        for name in ("torchvision_coco", "qfgaohao_large"):
            found[name] = folder / f"{name}.pth"
            torch.save(zoo.state_dict(name), found[name])
    return found


def worst_difference(bundle: Path, request: NcnnRequest, old_python: str) -> float:
    """The largest distance of any number of any blob, old against new; inf where shapes differ."""
    made = lower_to_ncnn(bundle, request).bundle
    names = BLOBS[request.outputs]
    image = input_from_image(render_scene(0).image, made.spec.input)[None]
    answers = [
        NcnnRuntime(made.param_path, made.bin_path, exact=True, python=python).run_blobs(
            image, names
        )
        for python in (sys.executable, old_python)
    ]
    gaps = []
    for name in names:
        new, old = (answer[0][name] for answer in answers)
        if new.shape != old.shape:
            return float("inf")
        gaps.append(float(np.abs(new - old).max(initial=0.0)))
    return max(gaps)


if __name__ == "__main__":
    sys.exit(main())
