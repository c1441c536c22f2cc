"""The environment report: facts, without loading what is heavy."""

import subprocess
import sys
from importlib.metadata import version

from mbv3ssd_deploy.runtimes.env import environment_report, package_versions


def test_versions_of_all_packages():
    versions = package_versions()

    assert versions["torch"] == version("torch")
    assert versions["ncnn"] == version("ncnn")
    assert versions["mbv3ssd-deploy"] == version("mbv3ssd-deploy")
    assert all(versions.values())


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr(sys, "path", [])

    assert package_versions()["onnxsim"] == "missing"


def test_without_devices_nothing_heavy_is_loaded():
    code = (
        "import sys; from mbv3ssd_deploy.runtimes.env import environment_report as r; r();"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'ncnn', 'numpy', 'cv2'} & set(sys.modules)))"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_devices_are_asked_on_demand():
    assert environment_report().devices == ()

    report = environment_report(devices=True)

    rows = {(row.runtime, row.device): row for row in report.devices}
    assert rows["torch", "cpu"].usable
    assert rows["onnxruntime", "cpu"].usable
    assert "CPUExecutionProvider" in rows["onnxruntime", "cpu"].detail
    assert ("torch", "cuda") in rows
    assert report.cores >= 1
