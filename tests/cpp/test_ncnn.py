"""Building ncnn, and the two examples that run a whole bundle with it, against Python."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cpp_build
import numpy as np
import pytest
from workbench import Workbench, build_workbench

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.core.detections import detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.device.contract import render_contract
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.pipeline import lower_to_ncnn
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime

SCRIPT = cpp_build.SOURCE / "ncnn" / "build_ncnn.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("build_ncnn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(*words, **environment):
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_every_layer_that_our_writer_knows_is_built(recipe):
    assert set(LAYERS) <= set(recipe.LAYERS)


def test_an_archive_of_other_bytes_is_not_unpacked(tmp_path):
    cpp_build.need_compiler()
    other = tmp_path / "ncnn.tar.gz"
    other.write_bytes(b"something else")

    said = refused("--cache", tmp_path / "cache", "--archive", other)

    assert "has sha256 " in said
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_that_is_not_there_is_named(tmp_path):
    cpp_build.need_compiler()
    missing = tmp_path / "none.tar.gz"
    assert f"there is no file {missing}" in refused("--cache", tmp_path, "--archive", missing)


def test_all_tools_that_are_missing_are_told_before_anything_is_fetched(tmp_path):
    said = refused("--cache", tmp_path / "cache", "--target", "aarch64", PATH=str(tmp_path))

    assert "CMake (" in said
    assert "apt install g++-aarch64-linux-gnu" in said
    assert "Ninja or make" in said
    assert not (tmp_path / "cache").exists()


@pytest.fixture(scope="module")
def programs(recipe):
    """The folder of the built examples."""
    found = recipe.built(recipe.CACHE, "native")
    if found is None:
        pytest.skip("ncnn was not built, so the examples are not tested: run `make ncnn`")
    return cpp_build.build("examples", f"-Dncnn_DIR={found}", source=cpp_build.SOURCE / "examples")


@dataclass(frozen=True)
class Place:
    """A bundle, one image of it, and the example programs."""

    bench: Workbench
    programs: Path

    @property
    def bundle(self):
        return self.bench.good()

    @property
    def image(self):
        return self.bench.images[0]

    def run(self, program, *, bundle=None):
        bundle = self.bundle if bundle is None else bundle
        contract, picture = bundle.directory / "model.mbv3c", bundle.directory / "image.ppm"
        contract.write_bytes(render_contract(bundle.spec))
        image = read_image(self.image)
        height, width = image.shape[:2]
        picture.write_bytes(b"P6\n# a scene\n%d %d\n255\n" % (width, height) + image.tobytes())
        files = bundle.param_path, bundle.bin_path, contract, picture
        said = cpp_build.run(str(self.programs / program), *map(str, files), "fp32")
        return [line.split() for line in said.splitlines()]

    def runtime(self, bundle):
        return NcnnRuntime(bundle.param_path, bundle.bin_path, exact=True)

    def input(self):
        return input_from_image(read_image(self.image), self.bundle.spec.input)[None]


@pytest.fixture(scope="module")
def place(programs, tmp_path_factory):
    return Place(build_workbench(tmp_path_factory.mktemp("examples")), programs)


def assert_same(lines, expected, spec, image):
    height, width = read_image(image).shape[:2]
    expected = scaled(expected, width, height)
    assert len(expected) > 5
    assert len(lines) == len(expected)
    names = np.array([spec.class_names.index(name) for name, *_ in lines])
    numbers = np.array([[float(word) for word in words] for _, *words in lines])
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        same = numbers[names == label]
        off = np.abs(same - np.array([score, *box])) / (1, width, height, width, height)
        assert off.max(axis=1).min() < 1e-4


def test_the_whole_network_finds_what_python_finds(place):
    (blobs,) = place.runtime(place.bundle).run_blobs(place.input(), ("detection_out",))
    expected = detections_from_rows(blobs["detection_out"])

    assert_same(place.run("detect_ncnn"), expected, place.bundle.spec, place.image)


@pytest.mark.parametrize("outputs", Outputs)
def test_raw_heads_and_the_library_find_what_python_finds(place, outputs):
    directory = place.bench.copy(outputs).directory
    lower_to_ncnn(directory, NcnnRequest(outputs=outputs))
    bundle = read_bundle(directory)
    heads = place.runtime(bundle).run(place.input()).tensors
    expected = detections_from_heads(heads["loc"][0], heads["conf"][0], bundle.spec)

    assert_same(place.run("detect_ncnn_raw", bundle=bundle), expected, bundle.spec, place.image)


def test_what_cannot_be_read_is_said(place, tmp_path):
    program, bundle = place.programs / "detect_ncnn", place.bundle
    contract, picture = tmp_path / "model.mbv3c", tmp_path / "image.ppm"
    contract.write_bytes(render_contract(bundle.spec))
    picture.write_bytes(b"P6\n4 4\n255\nshort")
    for files, words in (
        ((bundle.param_path, bundle.bin_path, contract, picture), "image.ppm is cut off"),
        ((bundle.param_path, bundle.bin_path, contract, contract), "is not a binary PPM"),
        ((bundle.param_path, bundle.bin_path, picture, picture), "contract"),
    ):
        done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert words in done.stderr
