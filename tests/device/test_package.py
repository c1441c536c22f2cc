import dataclasses
import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from bundle_folder import edit_layers
from zoo import REPOSITORY

from mbv3ssd_deploy.bundle.bundle import read_bundle, write_ncnn
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.device import package
from mbv3ssd_deploy.device.contract import render_contract
from mbv3ssd_deploy.device.golden import (
    EXACT,
    LIMITS,
    Golden,
    GoldenBoxes,
    GoldenFile,
    GoldenImage,
    golden_boxes,
    render_golden,
)
from mbv3ssd_deploy.device.package import Target, build_package
from mbv3ssd_deploy.errors import BundleError, DatasetError, RuntimeUnavailableError
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs


def contents(packed):
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def packed(bundle_folder):
    return build_package(bundle_folder.good(), Target.RPI, bundle_folder.folder)


def test_a_package_holds_the_model_the_pictures_and_the_sources(packed, bundle_folder):
    bundle = bundle_folder.good()
    inside = contents(packed)
    root = packed.name

    assert {name.partition("/")[0] for name in inside} == {root}
    assert inside[f"{root}/model/model.ncnn.bin"] == bundle.bin_path.read_bytes()
    assert inside[f"{root}/model/model.ncnn.param"] == bundle.param_path.read_bytes()
    assert inside[f"{root}/model/model.mbv3c"] == render_contract(bundle.spec)
    assert inside[f"{root}/LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()
    for index, path in enumerate(bundle_folder.images):
        pixels = read_image(path).tobytes()
        assert inside[f"{root}/model/image_{index}.ppm"] == b"P6\n160 120\n255\n" + pixels
    for needed in (
        "CMakeLists.txt",
        "CMakePresets.json",
        "cpp_postprocess/CMakeLists.txt",
        "cpp_postprocess/include/mbv3ssd/c_api.h",
        "cpp_postprocess/src/contract.cpp",
        "cpp_postprocess/selftest/main.cpp",
        "cpp_postprocess/examples/detect_ncnn.cpp",
        "cpp_postprocess/ncnn/build_ncnn.py",
        "cpp_postprocess/cmake/aarch64.cmake",
    ):
        assert f"{root}/{needed}" in inside
    assert not any("/tests/" in name or "__pycache__" in name for name in inside)
    assert packed.files == tuple((name, len(data)) for name, data in inside.items())
    assert packed.images == 3
    assert packed.boxes > 20


def test_the_same_bundle_gives_the_same_bytes(packed, bundle_folder):
    again = build_package(bundle_folder.good(), Target.RPI, bundle_folder.folder)

    assert again.data == packed.data
    assert build_package(bundle_folder.good(), Target.SRC, bundle_folder.folder).data != packed.data


def test_only_scripts_are_executable(packed):
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        runnable = {
            info.filename for info in archive.infolist() if info.external_attr >> 16 & stat.S_IXUSR
        }

    assert runnable == {f"{packed.name}/cpp_postprocess/ncnn/build_ncnn.py"}


@pytest.mark.parametrize("target", Target)
def test_the_readme_shows_the_build_for_the_target(bundle_folder, target):
    packed = build_package(bundle_folder.good(), target, bundle_folder.images[0])
    page = contents(packed)[f"{packed.name}/README.md"].decode()

    script = {
        Target.SRC: "build_ncnn.py)\n",
        Target.LINUX_AARCH64: "build_ncnn.py --target aarch64)\n",
        Target.RPI: "build_ncnn.py --target board --jobs 2)\n",
    }
    assert f"python3 cpp_postprocess/ncnn/{script[target]}" in page
    assert "build/selftest model" in page
    assert re.findall(r"\$\w+|\$\{", page) == ["$dir"]
    named = {
        f"{packed.name}/{path}" for path in re.findall(r"(?:model|cpp_postprocess)/\S+\.\w+", page)
    }
    assert named <= set(contents(packed))


def test_rendered_scenes_are_taken_where_no_images_are_given(bundle_folder):
    packed = build_package(bundle_folder.good(), Target.SRC)

    pictures = [data for name, data in contents(packed).items() if name.endswith(".ppm")]
    assert [data[:15] for data in pictures] == [b"P6\n480 360\n255\n"] * 3


def test_a_bundle_without_ncnn_files_is_an_error(bundle_folder):
    bundle = bundle_folder.good()
    manifest = dataclasses.replace(bundle.manifest, ncnn=None)

    with pytest.raises(BundleError, match="no ncnn files yet"):
        build_package(dataclasses.replace(bundle, manifest=manifest), Target.SRC)


def test_files_that_are_not_those_of_the_body_are_refused(bundle_folder):
    bundle = bundle_folder.copy("other_weights")

    def grow(layer):
        weights = [dataclasses.replace(w, data=w.data * 1.1) for w in layer.weights[:1]]
        return dataclasses.replace(layer, weights=(*weights, *layer.weights[1:]))

    edit_layers(bundle, lambda layer: grow(layer) if layer.type == "Convolution" else layer)
    files = bundle.param_path.read_bytes(), bundle.bin_path.read_bytes()
    bundle = write_ncnn(bundle, bundle.manifest.ncnn, *files, "by hand")

    with pytest.raises(BundleError, match=r"give another loc than body\.onnx: off by"):
        build_package(read_bundle(bundle.directory), Target.SRC)


def test_a_detector_that_finds_nothing_is_an_error(bundle_folder):
    bundle = bundle_folder.good()
    spec = bundle.spec
    blind = dataclasses.replace(spec, decode=dataclasses.replace(spec.decode, score_threshold=1.0))
    record = dataclasses.replace(bundle.manifest.ncnn, outputs=Outputs.CONCAT)
    manifest = dataclasses.replace(bundle.manifest, detector=blind, ncnn=record)

    with pytest.raises(DatasetError, match="finds nothing on these images"):
        build_package(dataclasses.replace(bundle, manifest=manifest), Target.SRC)


def test_missing_sources_are_an_error(bundle_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(package, "_ROOT", tmp_path / "site-packages" / "mbv3ssd_deploy")

    with pytest.raises(RuntimeUnavailableError, match="not installed with this package") as caught:
        build_package(bundle_folder.good(), Target.SRC)

    assert caught.value.exit_code == 4


def test_the_wheel_carries_the_sources_and_the_trained_detector(tmp_path):
    """A wheel is built and imported outside the checkout."""
    words = "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"
    subprocess.run(
        [sys.executable, "-m", "pip", *words, "-w", tmp_path, copied_checkout(tmp_path)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "from mbv3ssd_deploy.device import package\n"
        "folder = package.find_sources()\n"
        "print(folder)\n"
        "print(*(name for name, _ in package.device_sources(folder)), sep='\\n')\n"
        "assert b'Apache' in package.license_text(folder)\n"
        "package.package_file(folder, 'README.md')\n"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
    ).stdout.splitlines()

    assert lines[0] == str(tmp_path / "installed" / "mbv3ssd_deploy" / "cpp_postprocess")
    assert lines[1:] == [name for name, _ in package.device_sources(package.find_sources())]
    models = tmp_path / "installed" / "mbv3ssd_deploy" / "models"
    assert (models / "scenes-small" / "README.md").is_file()


def copied_checkout(folder):
    """What a wheel is made of, so that building leaves no trace in the checkout."""
    import shutil

    target = folder / "checkout"
    for name in ("mbv3ssd_deploy", "cpp_postprocess", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, target / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, target)
    return target


def test_the_cut_of_a_full_list_is_its_worst_score():
    found = Detections(np.zeros((2, 4)), np.array([0.9, 0.5]), np.array([1, 1]))

    assert golden_boxes(found, 0.1, 2).cut == 0.5
    assert golden_boxes(found, 0.1, 3).cut == 0.1
    assert golden_boxes(found, 0.1, None).cut == 0.1


def test_the_golden_file_follows_its_page(bundle_folder):
    spec = bundle_folder.good().spec
    size = spec.input.width * spec.input.height
    found = Detections(np.array([[1, 2, 3, 4]]), np.array([0.5]), np.array([2]))
    image = GoldenImage(
        file="a.ppm",
        width=7,
        height=5,
        tensor=np.ones((3, spec.input.height, spec.input.width), np.float32),
        loc=np.ones((spec.priors.count, 4), np.float32),
        conf=np.ones((spec.priors.count, spec.num_classes), np.float32),
        own=GoldenBoxes(0.25, found),
        detection_out=None,
    )
    files = (GoldenFile("p", 3, hashlib.sha256(b"abc").hexdigest()),)
    golden = Golden(spec, "a test", Outputs.LEVELS, "p", "b", "c", files, (image,))

    data = render_golden(golden)

    page = (REPOSITORY / "docs" / "formats" / "golden.md").read_text()
    assert data.startswith(b"MBV3SSDG\x01\0\0\0")
    assert "`MBV3SSDG`" in page
    floats = 3 * size + spec.priors.count * (4 + spec.num_classes)
    limits = sum(4 + len(row.arithmetic) + 48 for row in LIMITS)
    assert len(data) == (
        20 + 4 + len(spec.name) + 4 + 6 + 5 * 4 + 24 + 3 * 5 + 4 + 5 + 4 + 32 + 24
        + (4 + limits) + 4 + (4 + 5) + 8 + 4 * floats + (12 + 24) + 12
    )  # fmt: skip
    assert EXACT.levels == 1.0
    for row in LIMITS:
        numbers = (row.heads, row.priors, row.box_iou, row.box_share, row.box_score, row.margin)
        cells = (f"`{row.arithmetic}`", *(f"{number:g}" for number in numbers))
        assert f"| {' | '.join(cells)} |" in page


def test_targets_are_those_of_the_command_line():
    from mbv3ssd_deploy.cli.package import TARGETS

    assert tuple(Target) == TARGETS
    assert package.IMAGES == 3
