"""`make compat`: the same ncnn files must give the same answer in the oldest and the newest ncnn.

python tests/compat/run.py --old-python .compat-venv/bin/python

Each family's checkpoint that can be made here is converted in every way that changes the graph;
each pair of files then runs in both interpreters. Every number of the tail's blobs is compared;
detections are matched, because equal scores may change places.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.core.matching import match_detections
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "scenes-small"))
import zoo
from renderer.scenes import render_scene
from renderer.untrained import write_untrained_checkpoint

REQUESTS = {
    "fp16": NcnnRequest(),
    "fp32": NcnnRequest(storage=Storage.FLOAT32),
    "constant priors": NcnnRequest(priors=PriorMode.CONSTANT),
    "nothing found": NcnnRequest(score_threshold=1.0),
    "raw heads": NcnnRequest(outputs=Outputs.CONCAT),
    "raw levels": NcnnRequest(outputs=Outputs.LEVELS),
}
DETECTIONS = "detection_out"
BLOBS = {
    Outputs.DETECTIONS: ("mbox_loc", "mbox_conf_softmax", "mbox_priorbox", DETECTIONS),
    Outputs.CONCAT: ("loc", "conf"),
    Outputs.LEVELS: ("loc_0", "conf_0"),
}
# Two builds of ncnn differ in the order of their float32 sums; boxes and scores are near 1.
TOLERANCE = 2e-3
# A box at the very edge of the suppressing IoU may come or go with the last bit of a sum.
MATCHED_SHARE = 0.995


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
                new, old = answers(bundle.directory, request, old_python)
                worst = worst_difference(new, old)
                found = detections_from_rows(new.get(DETECTIONS))
                matched = matched_boxes(found, detections_from_rows(old.get(DETECTIONS)))
                same = worst <= TOLERANCE and matched >= MATCHED_SHARE * len(found)
                failures += not same
                print(
                    f"{'PASS' if same else 'FAIL'}  {name:<20} {words:<16} "
                    f"worst difference {worst:.1e}, {matched} of {len(found)} boxes at IoU 0.99"
                )
    return 1 if failures else 0


def checkpoints(folder: Path) -> dict[str, Path]:
    """The demo's checkpoint, and one of each family whose fixture is here."""
    import torch

    found = {"demo": folder / "demo.pth"}
    write_untrained_checkpoint(found["demo"])
    if zoo.ZOO.is_dir():
        for name in ("torchvision_coco", "qfgaohao_large"):
            found[name] = folder / f"{name}.pth"
            torch.save(zoo.state_dict(name), found[name])
    return found


def answers(
    bundle: Path, request: NcnnRequest, old_python: str
) -> tuple[Mapping[str, F32], Mapping[str, F32]]:
    """The tail's blobs by name, computed by the newest and by the oldest ncnn."""
    made = lower_to_ncnn(bundle, request).bundle
    names = BLOBS[request.outputs]
    image = input_from_image(render_scene(0).image, made.spec.input)[None]
    new, old = (
        NcnnModel(made.param_path, made.bin_path, exact=True, python=python).run_blobs(
            image, names
        )[0]
        for python in (sys.executable, old_python)
    )
    return new, old


def worst_difference(new: Mapping[str, F32], old: Mapping[str, F32]) -> float:
    """The largest distance of any number of any blob but the detections; inf for other shapes."""
    names = [name for name in new if name != DETECTIONS]
    if any(new[name].shape != old[name].shape for name in names):
        return float("inf")
    return max(float(np.abs(new[name] - old[name]).max()) for name in names)


def matched_boxes(new: Detections, old: Detections) -> int:
    """How many of the new detections the old ncnn found too, and none besides."""
    matching = match_detections(new, old, 0.99)
    return len(matching.pairs) - len(matching.new)


if __name__ == "__main__":
    sys.exit(main())
