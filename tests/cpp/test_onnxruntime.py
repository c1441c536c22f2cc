"""The example that runs body.onnx in ONNX Runtime's C++, against Python."""

import dataclasses
import subprocess

import cpp_build
import pytest
from bundle_folder import build_bundle_folder
from example_bundle import Place

from mbv3ssd_deploy.core.detections import detections_from_heads
from mbv3ssd_deploy.device.contract import render_contract
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program():
    return cpp_build.build_onnxruntime_example() / "detect_onnxruntime"


@pytest.fixture(scope="module")
def place(program, tmp_path_factory):
    def run_program(*words):
        return cpp_build.run(str(program), *words)

    return Place(build_bundle_folder(tmp_path_factory.mktemp("examples")), run_program)


def test_the_body_and_the_library_find_what_python_finds(place):
    bundle = place.bundle
    heads = OnnxModel(bundle.body_path).run(place.input()).tensors
    expected = detections_from_heads(heads["loc"][0], heads["conf"][0], bundle.spec)

    lines = place.lines(bundle.body_path, *place.contract_and_picture(bundle))

    place.assert_same(lines, expected)


def test_files_that_do_not_fit_are_refused(place, program, tmp_path):
    spec = place.bundle.spec
    contract, picture = place.contract_and_picture(place.bundle)
    other = tmp_path / "other.mbv3c"
    wider = dataclasses.replace(spec.input, width=spec.input.width + 32)
    other.write_bytes(render_contract(dataclasses.replace(spec, input=wider)))
    for body, rules, words in (
        (tmp_path / "none.onnx", contract, "File doesn't exist"),
        (picture, contract, "Protobuf parsing failed"),
        (place.bundle.body_path, other, "invalid dimensions"),
        (place.bundle.body_path, picture, "contract"),
    ):
        done = subprocess.run(
            [program, body, rules, picture], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr


def test_what_is_not_built_is_reported(tmp_path):
    cpp_build.need_compiler()

    output = cpp_build.run(
        *("cmake", "-S", str(cpp_build.SOURCE / "examples"), "-B", str(tmp_path), "-G", "Ninja"),
        "-DCMAKE_DISABLE_FIND_PACKAGE_ncnn=ON",
        "-DONNXRUNTIME_INCLUDE_DIR=",
    )

    assert "detect_ncnn_raw and dump_blobs are not built: there is no ncnn here. " in output
    assert "detect_onnxruntime is not built: ONNX Runtime's C++ headers" in output
