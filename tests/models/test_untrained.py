import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from renderer import untrained
from renderer.scenes import SCENE_CLASSES, render_scene
from renderer.untrained import CARD, build_untrained_net, write_untrained_checkpoint
from torch import nn

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.detections import detections_from_heads
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.io.files import sha256_of_file

SCENES = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The file, and what the command line would have been told on the way."""
    path = tmp_path_factory.mktemp("demo") / "model.pth"
    told = []
    write_untrained_checkpoint(path, progress=lambda *step: told.append(step))
    return path, told


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load_detector(checkpoint[0])


@pytest.fixture(scope="module")
def batch(detector):
    images = [input_from_image(render_scene(i).image, detector.spec.input) for i in range(SCENES)]
    return torch.from_numpy(np.stack(images))


@pytest.fixture(scope="module")
def found(detector, batch):
    with torch.no_grad():
        heads = detector.net(batch)
    return [
        detections_from_heads(loc, conf, detector.spec)
        for loc, conf in zip(*(head.numpy() for head in heads), strict=True)
    ]


def test_another_process_writes_the_same_bytes(checkpoint, tmp_path):
    path = tmp_path / "again.pth"
    code = (
        "import sys, pathlib, torch; torch.manual_seed(99); "
        "from renderer.untrained import write_untrained_checkpoint; "
        "write_untrained_checkpoint(pathlib.Path(sys.argv[1]))"
    )
    folder = Path(untrained.__file__).parent.parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(folder),
    }

    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)

    assert sha256_of_file(path) == sha256_of_file(checkpoint[0])


def test_it_loads_as_native_and_says_that_it_is_untrained(detector):
    assert detector.spec.family == "native"
    assert detector.spec.class_names == SCENE_CLASSES
    assert (detector.spec.input.height, detector.spec.input.width) == (320, 320)
    assert "untrained" in detector.spec.name
    assert "NOT trained" in CARD


def test_every_scene_has_detections_but_not_thousands(found):
    counts = [len(detections) for detections in found]

    assert min(counts) >= 30
    assert max(counts) <= 200


def test_scores_spread_and_every_class_fires(found):
    scores = np.concatenate([detections.scores for detections in found])
    labels = np.concatenate([detections.labels for detections in found])

    assert scores.max() > 0.9
    assert np.mean(scores < 0.1) > 0.3
    assert np.mean(scores > 0.2) > 0.05
    assert np.bincount(labels, minlength=len(SCENE_CLASSES))[1:].min() >= 50


def test_detections_depend_on_the_picture(found):
    boxes = {detections.boxes.tobytes() for detections in found}

    assert len(boxes) == SCENES


def test_activations_keep_their_scale_from_the_first_layer_to_the_last(detector, batch):
    deviations = {}

    def measure(name):
        def hook(_module, _inputs, output):
            deviations[name] = float(output.var(dim=(0, 2, 3)).mean()) ** 0.5

        return hook

    handles = [
        module.register_forward_hook(measure(name))
        for name, module in detector.net.named_modules()
        if isinstance(module, nn.Conv2d) and not name.endswith("fc2")
    ]
    with torch.no_grad():
        detector.net(batch)
    for handle in handles:
        handle.remove()

    assert len(deviations) > 70
    assert min(deviations.values()) > 0.3
    assert max(deviations.values()) < 6


def test_float32_is_enough_for_it(detector, batch):
    """The net must not amplify rounding: runtimes are compared on it."""
    few = batch[:3]
    with torch.no_grad():
        single = detector.net(few)
        double = detector.net.double()(few.double())
        detector.net.float()

    for a, b in zip(single, double, strict=True):
        assert torch.all((a - b).abs() < 1e-4 + 1e-3 * b.abs())


def test_progress_counts_up_to_its_total(checkpoint):
    _, told = checkpoint
    done = [step[1] for step in told]

    assert {step[2] for step in told} == {done[-1]}
    assert done == list(range(done[-1] + 1))


def test_the_seed_matters(checkpoint, monkeypatch):
    monkeypatch.setattr("renderer.untrained._SCENES", 2)
    first = build_untrained_net(seed=1)[1].state_dict()
    second = build_untrained_net(seed=2)[1].state_dict()
    key = "backbone.features.0.0.0.weight"

    assert not torch.equal(first[key], second[key])
    assert not torch.equal(first[key], load_detector(checkpoint[0]).net.state_dict()[key])


def test_building_it_leaves_the_global_random_numbers_alone(monkeypatch):
    monkeypatch.setattr("renderer.untrained._SCENES", 2)
    torch.manual_seed(5)
    expected = torch.rand(1)

    torch.manual_seed(5)
    build_untrained_net()

    assert torch.equal(torch.rand(1), expected)
