"""A command imports PyTorch only when it computes with it: the import alone takes seconds."""

import subprocess
import sys

import pytest

# What a command pulls in shows in a fresh interpreter only; it ends with the heavy ones' names.
CODE = """
import sys
from mbv3ssd_deploy.cli.main import cli
code = cli(sys.argv[1:], standalone_mode=False)
heavy = {"torch", "torchvision", "onnxsim", "onnxruntime", "matplotlib"} & set(sys.modules)
sys.exit(code or ", ".join(sorted(heavy)) or 0)
"""

LIGHT = {
    "to-ncnn": ("to-ncnn",),
    "inspect a bundle": ("inspect", "deploy"),
    "inspect a body": ("inspect", "deploy/body.onnx"),
    "inspect a graph": ("inspect", "deploy/model.ncnn.param"),
    "contract": ("contract",),
    "detect by ncnn": ("detect", "deploy", "images"),
    "bench": ("bench", "--runtime", "ncnn", "--rounds", "5", "--threads", "1"),
    "the list of recipes": ("train", "--recipe", "list"),
}


def imported_by(place, *words):
    command = [sys.executable, "-c", CODE, *words]
    return subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", LIGHT)
def test_it_does_without_pytorch_and_onnx_runtime(place, what):
    result = imported_by(place, *LIGHT[what])

    assert result.returncode == 0, result.stderr


def test_the_probe_sees_what_is_imported(place):
    result = imported_by(place, "inspect", "tiny.pth")

    assert (result.returncode, result.stderr.strip().splitlines()[-1]) == (1, "torch")
