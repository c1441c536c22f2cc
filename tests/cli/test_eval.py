"""`eval` as a user meets it: the tables, the gate, the curves, and what is refused."""

import json
import re
import shutil

import pytest
import torch
from perfect_detectors import found_dataset, write_yolo

from mbv3ssd_deploy.pipeline import export_checkpoint
from mbv3ssd_deploy.runtimes.open_model import MODELS

FAST = ("--runtimes", "torch,onnx")


@pytest.fixture(scope="module")
def annotated(finished):
    """A YOLO data set of what the bundle's checkpoint finds."""
    folder = finished / "scenes"
    folder.mkdir()
    write_yolo(finished, found_dataset(finished / "deploy", folder))
    return finished


@pytest.fixture
def ready(annotated, place):
    if not (place.folder / "data.yaml").exists():
        shutil.copy(annotated / "data.yaml", place.folder)
        shutil.copytree(annotated / "scenes", place.folder / "scenes")
    return place


def eval_(place, *words, data="yolo:data.yaml"):
    return place.run("eval", *words, "--data", data)


def test_the_default_is_every_runtime_of_the_bundle(ready):
    result = eval_(ready, "--curves", "curves.png")

    assert result.exit_code == 0, result.output
    header, first, *others = result.stdout.splitlines()[1:5]
    columns = "runtime mAP small medium large drop detection_out ms size"
    assert header.split() == columns.split()
    assert first.startswith("torch")
    assert [line.split()[0] for line in others] == ["onnx", "ncnn", "ncnn-fp16"][: len(others)]
    assert "class_1" in result.stdout
    assert "VOC, area under the curve" in result.stdout
    assert "wrote curves.png" in result.stdout
    assert (ready.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "next: mbv3ssd-deploy detect deploy PHOTOS/" in result.stdout


def test_json_is_one_value(ready):
    result = eval_(ready, *FAST, "--json", "--metric", "coco", "--limit", "2")

    plain = json.loads(result.stdout)
    assert plain["images"] == 2
    assert plain["metric"] == "coco"
    assert [row["name"] for row in plain["runtimes"]] == ["torch", "onnx"]
    assert plain["runtimes"][0]["drop_points"] == 0.0
    assert set(plain["runtimes"][0]["map_by_iou"]) >= {"0.5", "0.75", "0.95"}


def test_the_gate_passes_and_fails(ready):
    passed = eval_(ready, *FAST, "--max-drop", "0.1")
    entries = torch.load(ready.folder / "tiny.pth", weights_only=True)
    for key in entries["state_dict"]:
        if key.startswith("head.regression_head") and key.endswith(".1.bias"):
            entries["state_dict"][key] += 0.5
    torch.save(entries, ready.folder / "worse.pth")
    export_checkpoint(ready.folder / "worse.pth", ready.folder / "worse")
    failed = eval_(ready, "worse", "--checkpoint", "tiny.pth", *FAST, "--max-drop", "0.5")

    assert passed.exit_code == 0, passed.output
    assert re.search(r"PASS: the largest drop is -?0\.00 points, of onnx; 0.1 are", passed.stdout)
    assert failed.exit_code == 1, failed.output
    assert re.search(r"FAIL: the largest drop is \d+\.\d\d points, of onnx; 0.5 a", failed.stdout)
    assert "next:" not in failed.stdout


def test_curves_that_cannot_be_written_cost_no_result(ready):
    result = eval_(ready, "tiny.pth", "--curves", "tiny.pth/curves.png")

    assert result.exit_code == 3
    assert "cannot write" in result.stderr
    assert "torch: PyTorch, cpu" in result.stdout


def test_the_verdict_is_in_the_json_too(ready):
    passed = eval_(ready, *FAST, "--max-drop", "0.1", "--json")
    alone = eval_(ready, "tiny.pth", "--max-drop", "0.1", "--json")

    assert json.loads(passed.stdout)["verdict"] == "PASS"
    assert json.loads(alone.stdout)["verdict"] == "UNPROVEN"
    assert alone.exit_code == 3


def test_every_slip_in_the_data_is_named_with_v_and_in_json(ready):
    labels = ready.folder / "scenes" / "scene0.txt"
    labels.write_text(labels.read_text() + "\n0 5 5 1 1\n0 6 6 1 1\n")

    usual, verbose, plain = (eval_(ready, "tiny.pth", *w) for w in ((), ("-v",), ("--json",)))

    assert "-v lists every case" in usual.stderr
    assert "960, 720" not in usual.stderr
    named = [line for line in verbose.stderr.splitlines() if line.startswith("  ")]
    assert len(named) == 2
    assert "outside the image" in named[1]
    assert json.loads(plain.stdout)["problems"] == [line.strip() for line in named]


def test_where_nothing_is_found_nothing_is_proven(ready):
    (ready.folder / "scenes" / "scene0.txt").write_text("2 0.01 0.01 0.01 0.01")

    result = eval_(ready, *FAST, "--max-drop", "1", "--limit", "1")

    assert result.exit_code == 1, result.output
    assert "UNPROVEN: PyTorch's own mAP is 0.0000" in result.stdout
    assert "torch: mAP is near zero (0.0000); neither" in result.stdout


def test_a_checkpoint_runs_in_pytorch(ready):
    result = eval_(ready, "tiny.pth")

    assert result.exit_code == 0, result.output
    assert "torch: PyTorch, cpu" in result.stdout
    assert "next:" not in result.stdout


def test_names_that_do_not_fit_are_refused(ready):
    page = ready.folder / "data.yaml"
    page.write_text(page.read_text().replace("class_", "kind_"))

    result = eval_(ready, *FAST)

    assert result.exit_code == 3
    assert "no class of the data is a class of the model" in result.stderr
    assert "--labels" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--runtimes", "torch,tensorrt"), 2, "'tensorrt' is not one of torch"),
        (("--runtimes", ","), 2, "nothing is not one of"),
        (("--runtimes", "onnx,ncnn", "--max-drop", "1"), 2, "needs torch and another one"),
        (("--bgr",), 2, "are for a checkpoint file"),
        (("--curves", "curves.pdf"), 2, "does not end in .png"),
        (("tiny.pth", "--max-drop", "1"), 3, "one of both is missing"),
        (("tiny.pth", "--runtimes", "onnx"), 3, "a checkpoint runs in PyTorch only"),
        (("nowhere",), 3, "nowhere: no such bundle folder"),
        (("nowhere.pth",), 3, "nowhere.pth: "),
        (("--split", "train"), 3, "Error:"),
    ],
)
def test_what_is_refused(ready, words, code, said):
    result = eval_(ready, *words)

    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_data_without_a_format_gets_the_word_to_type(ready):
    result = eval_(ready, data="data.yaml")

    assert result.exit_code == 3
    assert "yolo:data.yaml" in result.stderr


def test_a_runtime_that_is_not_there_is_exit_4(ready, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])

    result = eval_(ready, "--runtimes", "onnx-cuda")

    assert result.exit_code == 4
    assert "or leave onnx-cuda out" in result.stderr


def test_help_names_every_runtime(place):
    said = place.run("eval", "--help").stdout.replace("\n", " ")

    assert [name for name in MODELS if name not in said] == []
