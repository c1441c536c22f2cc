"""Building ncnn, and the two examples that run a whole bundle with it, against Python."""

import dataclasses
import fcntl
import os
import subprocess
import sys
import tarfile

import cpp_build
import pytest
from bundle_folder import build_bundle_folder
from example_bundle import Place

from mbv3ssd_deploy.device.contract import render_contract
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs


@pytest.fixture(scope="module")
def recipe():
    return cpp_build.ncnn_recipe()


def refused(*words, **environment):
    done = subprocess.run(
        [sys.executable, cpp_build.NCNN_SCRIPT, *map(str, words)],
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

    output = refused("--cache", tmp_path / "cache", "--archive", other)

    assert "has sha256 " in output
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_a_missing_archive_is_named(tmp_path):
    cpp_build.need_compiler()
    missing = tmp_path / "none.tar.gz"
    assert f"there is no file {missing}" in refused("--cache", tmp_path, "--archive", missing)


def test_a_python_without_filters_for_archives_unpacks_too(recipe, tmp_path, monkeypatch):
    """As Debian 12 has it (3.11.2), and with it a Raspberry Pi."""
    (tmp_path / "ncnn-1" / "src").mkdir(parents=True)
    with tarfile.open(tmp_path / "ncnn.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ncnn-1", "ncnn-1")
    extract = tarfile.TarFile.extractall

    def extractall(self, path=".", members=None, *, numeric_owner=False):
        extract(self, path, members, numeric_owner=numeric_owner, filter="data")

    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    (tmp_path / "scratch").mkdir()

    source = recipe.unpacked(tmp_path / "scratch", tmp_path / "ncnn.tar.gz")

    assert (source / "src").is_dir()


def test_all_missing_tools_are_listed_before_anything_is_fetched(tmp_path):
    output = refused("--cache", tmp_path / "cache", "--target", "aarch64", PATH=str(tmp_path))

    assert "CMake (" in output
    assert "apt install g++-aarch64-linux-gnu" in output
    assert "Ninja or make" in output
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def cache(recipe, tmp_path, monkeypatch):
    """A cache, and a build that writes its settings down instead of compiling."""
    built = []

    def compiled(scratch, target, *_):
        built.append(target)
        folder = scratch / "installed" / "lib" / "cmake" / "ncnn"
        folder.mkdir(parents=True)
        (folder / "ncnnConfig.cmake").write_text(target)
        return scratch / "installed"

    monkeypatch.setattr(recipe, "compiled", compiled)
    monkeypatch.setattr(recipe, "fetched", lambda cache, release: cache / release.archive)
    monkeypatch.setattr(recipe, "checked", lambda archive, _: archive)
    cpp_build.need_compiler()
    return tmp_path / "cache", built


def test_a_build_is_found_again_until_its_recipe_changes(recipe, cache, monkeypatch):
    folder, built = cache

    first = recipe.build(folder, "native", None, 1)

    assert first == recipe.build(folder, "native", None, 1) == recipe.built(folder, "native")
    assert (first / "ncnnConfig.cmake").read_text() == "native"
    assert built == ["native"]
    assert sorted(path.name for path in folder.iterdir()) == ["lock", recipe.key_of("native")]
    monkeypatch.setitem(recipe.TARGETS, "native", recipe.TARGETS["board"])
    assert recipe.built(folder, "native") is None
    assert recipe.build(folder, "native", None, 1) != first


def test_what_a_killed_build_left_behind_is_swept_away(recipe, cache):
    folder, _ = cache
    (folder / "building-before" / "build").mkdir(parents=True)

    recipe.build(folder, "native", None, 1)

    assert not (folder / "building-before").exists()


def test_another_compiler_has_a_build_of_its_own(recipe, tmp_path, monkeypatch):
    cpp_build.need_compiler()
    usual = recipe.key_of("native")
    other = tmp_path / "c++"
    other.write_text("#!/bin/sh\necho another\n")
    other.chmod(0o755)

    monkeypatch.setenv("CXX", str(other))

    assert recipe.key_of("native") != usual


def test_without_a_compiler_nothing_is_found(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert recipe.built(tmp_path, "native") is None


def test_a_build_folder_is_held_alone():
    with (
        cpp_build.alone("lock_of_a_test"),
        (cpp_build.BUILDS / "lock_of_a_test.lock").open() as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (cpp_build.BUILDS / "lock_of_a_test.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture(scope="module")
def programs():
    """The folder of the built examples."""
    return cpp_build.build_examples()


@pytest.fixture(scope="module")
def place(programs, tmp_path_factory):
    def run_program(name, *words):
        return cpp_build.run(str(programs / name), *words)

    return Place(build_bundle_folder(tmp_path_factory.mktemp("examples")), run_program)


@pytest.mark.slow
def test_the_whole_network_finds_what_python_finds(place):
    place.assert_same(place.run("detect_ncnn"), place.found_by_python())


@pytest.mark.slow
@pytest.mark.parametrize("outputs", Outputs)
def test_raw_heads_and_the_library_find_what_python_finds(place, outputs):
    bundle = place.with_outputs(outputs)
    place.assert_same(place.run("detect_ncnn_raw", bundle=bundle), place.found_from_heads(bundle))


@pytest.mark.slow
def test_a_network_of_another_size_is_not_fed(place, programs, tmp_path):
    bundle, contract, picture = place.bundle, tmp_path / "model.mbv3c", tmp_path / "image.ppm"
    spec = bundle.spec
    narrow = dataclasses.replace(spec, input=dataclasses.replace(spec.input, width=64))
    contract.write_bytes(render_contract(narrow))
    picture.write_bytes(b"P6\n1 1\n255\nrgb")
    tensor = tmp_path / "input.f32"
    tensor.write_bytes(bytes(4 * 3 * 96 * 64))
    sizes = map(str, (64, 96, 3))
    for program, *words in (
        ("detect_ncnn", contract, picture),
        ("detect_ncnn_raw", contract, picture),
        ("dump_blobs", tensor, *sizes, "fp32", tmp_path, "mbox_loc"),
    ):
        files = bundle.param_path, bundle.bin_path
        done = subprocess.run(
            [programs / program, *files, *words], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "the network takes 96 x 96 pixels, not 64 x 96" in done.stderr


@pytest.mark.slow
def test_files_that_cannot_be_read_are_errors(place, programs, tmp_path):
    program, bundle = programs / "detect_ncnn", place.bundle
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
