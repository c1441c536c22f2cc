"""Runtimes of a real bundle: all see what PyTorch sees, and what is missing is said."""

import math

import numpy as np
import pytest
from builders import tiny_input
from bundle_folder import build_bundle_folder
from perfect_detectors import found_dataset
from pycocotools_judge import assert_as_pycocotools

from mbv3ssd_deploy.checkpoint.load import LoadOptions
from mbv3ssd_deploy.core.average_precision import Protocol
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import BundleError, CheckpointError, RuntimeUnavailableError
from mbv3ssd_deploy.evaluate.evaluate import evaluate, reading_of
from mbv3ssd_deploy.evaluate.run import opened
from mbv3ssd_deploy.runtimes.open_model import MODELS

CPU = ("torch", "onnx", "ncnn", "ncnn-fp16", "ncnn-bf16")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return build_bundle_folder(tmp_path_factory.mktemp("opening"))


@pytest.fixture(scope="module")
def data(bench):
    folder = bench.folder / "scenes"
    folder.mkdir()
    return found_dataset(bench.folder / "deploy", folder)


def test_every_runtime_of_a_bundle_gives_pytorchs_precision(bench, data):
    with opened(bench.folder / "deploy", CPU) as ready:
        report = evaluate(data, ready.spec, ready.models, protocol=Protocol.VOC_AREA)

    assert [row.name for row in report.rows] == list(CPU)
    assert report.reference.ap.mean > 0.2
    drops = {row.name: abs(report.drop(row)) for row in report.rows}
    assert drops["onnx"] < 0.1
    assert drops["ncnn"] < 0.1
    assert drops["ncnn-fp16"] < 25  # random weights in halves move many boxes
    assert [row.deployed is None for row in report.rows] == [True, True, False, False, False]
    assert all(row.ms_per_image > 0 for row in report.rows)
    sizes = {row.name: row.file_bytes for row in report.rows}
    assert sizes["ncnn-fp16"] < 0.7 * sizes["ncnn"]
    assert sizes["ncnn-bf16"] == sizes["ncnn-fp16"]
    assert "as shipped" in report.rows[3].title
    assert "bfloat16" in report.rows[4].ran


def test_coco_on_what_a_real_network_finds_is_what_pycocotools_says(bench, data):
    reading = reading_of(bench.good().spec, data)
    with opened(bench.folder / "deploy", ("ncnn-fp16",)) as ready:
        inputs = [
            input_from_image(read_image(s.image_path), ready.spec.input) for s in data.samples
        ]
        seen = ready.models[0].model.run(np.stack(inputs))
    found = [
        reading.detections(loc, conf, sample)
        for loc, conf, sample in zip(seen.loc, seen.conf, data.samples, strict=True)
    ]
    truths = [sample.truth for sample in data.samples]

    report = assert_as_pycocotools(found, truths, len(data.class_names))

    assert 0.01 < report.mean < 1.0
    assert not math.isnan(report.by_size["small"])


def test_deployed_boxes_are_those_of_detection_out(bench):
    spec = bench.good().spec
    with opened(bench.folder / "deploy", ("ncnn",)) as ready:
        seen = ready.models[0].model.run(tiny_input(spec, batch=2))

    assert len(seen.detections) == 2
    assert len(seen.detections[0]) > 0
    assert seen.loc.shape == (2, spec.priors.count, 4)


def test_the_usual_runtimes_and_why_one_is_left_out(bench):
    copy = bench.copy("alone")
    (bench.folder / "tiny.pth").rename(bench.folder / "elsewhere.pth")
    try:
        with opened(copy.directory) as ready:
            assert [model.name for model in ready.models] == ["onnx", "ncnn", "ncnn-fp16"]
            assert ready.left_out[0].startswith("torch is left out: the checkpoint")
        with pytest.raises(BundleError, match="is missing"), opened(copy.directory, ("torch",)):
            pass
        moved = bench.folder / "elsewhere.pth"
        with opened(copy.directory, ("torch",), checkpoint=moved) as ready:
            assert ready.models[0].file_bytes == moved.stat().st_size
    finally:
        (bench.folder / "elsewhere.pth").rename(bench.folder / "tiny.pth")


def test_a_checkpoint_runs_in_pytorch_only(bench):
    path = bench.folder / "tiny.pth"
    with opened(path, options=LoadOptions()) as ready:
        assert [model.name for model in ready.models] == ["torch"]
    with pytest.raises(CheckpointError, match="PyTorch only, not in ncnn"), opened(path, ("ncnn",)):
        pass


def test_unknown_names_are_a_bug_of_the_caller(bench):
    assert set(CPU) | {"torch-cuda", "onnx-cuda"} == set(MODELS)
    with pytest.raises(ValueError, match="unknown runtime: tensorrt"):
        opened(bench.folder / "deploy", ("tensorrt",)).__enter__()


def test_a_device_that_is_not_there_is_said(bench, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with (
        pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"),
        opened(bench.folder / "deploy", ("onnx-cuda",)),
    ):
        pass
