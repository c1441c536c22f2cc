"""What a conversion reads and starts: each thing once, but for what proves something."""

import subprocess
import sys

import onnx
import pytest

from mbv3ssd_deploy import convert
from mbv3ssd_deploy.checkpoint import load
from mbv3ssd_deploy.pipeline import Exported, Lowered
from mbv3ssd_deploy.runtimes.ncnn_model import close_workers


@pytest.fixture
def counts(monkeypatch):
    """How often a checkpoint is read, an ONNX model parsed, a child started."""
    found = {"checkpoint": 0, "onnx": 0, "child": 0}

    def counted(owner, name, what):
        real = getattr(owner, name)

        def call(*arguments, **options):
            caller = sys._getframe(1).f_code.co_filename
            found[what] += "mbv3ssd_deploy" in caller  # PyTorch's exporter parses, too
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    counted(load, "read_checkpoint", "checkpoint")
    counted(onnx, "load_model_from_string", "onnx")
    counted(onnx, "load_model", "onnx")
    counted(onnx, "load", "onnx")
    popen = subprocess.Popen.__init__

    def start(self, *arguments, **options):
        found["child"] += 1
        popen(self, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    return found


def test_a_conversion_reads_the_checkpoint_once(bundle_folder, tmp_path, counts):
    close_workers()
    steps = []

    report = convert(
        bundle_folder.folder / "tiny.pth",
        bundle_folder.images,
        tmp_path / "deploy",
        device="cpu",
        limit=2,
        on_step=steps.append,
    )

    assert report.exit_code == 0, report.headline
    assert len(report.images) == 2
    assert [type(step) for step in steps] == [Exported, Lowered]
    assert counts["checkpoint"] == 1
    assert 1 <= counts["onnx"] <= 3
    assert 1 <= counts["child"] <= 3
