"""The packaged self-test: good packages pass; a broken one fails in the row that checks it."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
import selftests
from builders import tiny_net, tiny_spec
from bundle_folder import build_bundle_folder, edit_layers

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.core.spec import ChannelOrder
from mbv3ssd_deploy.device.contract import f64, render_contract
from mbv3ssd_deploy.device.golden import LIMITS
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.ncnn_graph.weight_bin import read_ncnn
from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn

pytestmark = pytest.mark.slow

ROWS = (
    *("files", "preprocess", "postprocess", "priors"),
    *("heads", "boxes", "detection_out", "times"),
)
CHECKED = set(ROWS) - {"times"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return build_bundle_folder(tmp_path_factory.mktemp("selftest"))


@pytest.fixture(scope="module")
def program(bench):
    return selftests.built_program(bench.good(), bench.folder)


@pytest.fixture(scope="module")
def good(bench, tmp_path_factory):
    return selftests.pack(bench.good(), tmp_path_factory.mktemp("good"), bench.folder)


@pytest.fixture
def packed(good, tmp_path):
    """A package of one's own, to be broken."""
    shutil.copytree(good.model.parent, tmp_path / "package")
    return selftests.Packed(tmp_path / "package" / "model")


@pytest.mark.parametrize("arithmetic", ["fp32", "fp16s", "fp16", "bf16"])
def test_a_good_package_passes(program, good, arithmetic):
    run = selftests.run_selftest(program, good, arithmetic=arithmetic)

    assert run.exit_code == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith("PASS: ssdlite96_")
    assert tuple(row["name"] for row in run.result["rows"]) == ROWS
    assert run.rows("PASS") == CHECKED
    assert run.result["verdict"] == "PASS"
    assert run.result["arithmetic"] == arithmetic
    # on x86 ncnn keeps no halves, but for inner products
    in_effect = run.result["in_effect"]
    assert in_effect in {"fp16": ("fp16s", "fp32"), "fp16s": ("fp16s", "fp32")}.get(
        arithmetic, (arithmetic,)
    )
    last = run.stdout.splitlines()[-1]
    assert f"computes here in {in_effect} what" in last
    assert (f"{arithmetic} did not take effect" in last) == (in_effect != arithmetic)
    assert set(run.result["files"]) >= {"model.ncnn.param", "model.ncnn.bin", "model.mbv3c"}


@pytest.mark.parametrize("outputs", [Outputs.CONCAT, Outputs.LEVELS])
def test_raw_heads_pass_without_priors(program, bench, tmp_path, outputs):
    directory = bench.copy(outputs).directory
    lower_to_ncnn(directory, NcnnRequest(outputs=outputs))
    packed = selftests.pack(read_bundle(directory), tmp_path, bench.folder)

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 0, run.stdout + run.stderr
    assert run.rows("SKIPPED") == {"priors", "detection_out"}


def test_constant_priors_pass(program, bench, tmp_path):
    packed = selftests.pack(constant(bench), tmp_path, bench.folder)

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 0, run.stdout + run.stderr


def constant(bench):
    directory = bench.copy("constant").directory
    lower_to_ncnn(directory, NcnnRequest(priors=PriorMode.CONSTANT))
    return read_bundle(directory)


def broken(program, packed, name, change):
    """Change a file, update its hash in the golden file, and run."""
    before = (packed.model / name).read_bytes()
    change()
    if (packed.model / name).read_bytes() != before:
        packed.update_hash(name, before)
    run = selftests.run_selftest(program, packed)
    assert run.exit_code == 1, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith("FAIL: ")
    return run


def test_a_changed_file_fails(program, packed):
    (packed.model / "detector.json").write_text("{}")

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 1
    assert run.rows("FAIL") == {"files"}
    assert "detector.json has 2 bytes" in run.text("files")
    assert run.stdout.splitlines()[-1] == "FAIL: files"


def test_a_weight_that_changed_fails_the_heads(program, packed):
    def double(layer):
        if layer.type != "Convolution":
            return layer
        weight, *others = layer.weights
        grown = dataclasses.replace(weight, data=weight.data * 1.5)
        return dataclasses.replace(layer, weights=(grown, *others))

    run = broken(program, packed, "model.ncnn.bin", lambda: edit_layers(packed, double))

    assert {"heads"} <= run.rows("FAIL") <= {"heads", "boxes", "detection_out"}


def test_a_single_weight_that_changed_fails_by_its_hash(program, packed):
    data = bytearray(packed.bin_path.read_bytes())
    data[4000] ^= 1
    packed.bin_path.write_bytes(data)

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 1
    assert "files" in run.rows("FAIL")
    assert "model.ncnn.bin has sha256" in run.text("files")


def test_a_prior_step_that_changed_fails_the_priors(program, packed):
    def stretch(layer):
        if layer.type != "PriorBox":
            return layer
        wrong = {"step_width": 20.0, "step_height": 20.0}
        return dataclasses.replace(layer, params={**layer.params, **wrong})

    run = broken(program, packed, "model.ncnn.param", lambda: edit_layers(packed, stretch))

    assert {"priors"} <= run.rows("FAIL") <= {"priors", "detection_out"}


def test_priors_that_are_nan_fail_the_priors(program, bench, tmp_path):
    packed = selftests.pack(constant(bench), tmp_path, bench.folder)

    def spoil():  # our own writer would refuse to
        graph = read_ncnn(packed.param_path, packed.bin_path)
        priors = next(layer for layer in graph.layers if layer.type == "MemoryData").weights[0]
        first = priors.data.astype("<f4").tobytes()[:32]
        data = packed.bin_path.read_bytes()
        assert data.count(first) == 1
        nan = np.full(8, np.nan, "<f4").tobytes()
        packed.bin_path.write_bytes(data.replace(first, nan))

    run = broken(program, packed, "model.ncnn.bin", spoil)

    assert "priors" in run.rows("FAIL")
    assert "NaN or infinite" in run.text("priors")
    assert "heads" in run.rows("PASS")


def contract_with(packed, bench, part, **changes):
    spec = bench.good().spec
    changed = dataclasses.replace(getattr(spec, part), **changes)
    packed.contract_path.write_bytes(render_contract(dataclasses.replace(spec, **{part: changed})))


def test_colours_in_the_wrong_order_fail_the_preprocessing(program, packed, bench):
    spec = bench.good().spec.input
    other = next(order for order in ChannelOrder if order is not spec.channel_order)

    run = broken(
        program,
        packed,
        "model.mbv3c",
        lambda: contract_with(packed, bench, "input", channel_order=other),
    )

    assert {"preprocess"} <= run.rows("FAIL") <= {"preprocess", "boxes", "detection_out"}


def test_wrong_variances_fail_the_postprocessing(program, packed, bench):
    run = broken(
        program,
        packed,
        "model.mbv3c",
        lambda: contract_with(packed, bench, "coder", centre_variance=0.11),
    )

    assert {"postprocess", "priors"} <= run.rows("FAIL") <= {"postprocess", "priors", "boxes"}


def test_another_threshold_fails_the_postprocessing(program, packed, bench):
    run = broken(
        program,
        packed,
        "model.mbv3c",
        lambda: contract_with(packed, bench, "decode", score_threshold=0.3),
    )

    assert {"postprocess"} <= run.rows("FAIL") <= {"postprocess", "boxes"}


def test_a_contract_of_another_input_size_fails_what_it_feeds(program, packed, bench):
    run = broken(
        program, packed, "model.mbv3c", lambda: contract_with(packed, bench, "input", width=64)
    )

    fed = {"preprocess", "priors", "heads", "boxes", "detection_out", "times"}
    assert run.rows("FAIL") == fed
    assert "the network takes 96 x 96 pixels, not 64 x 96" in run.text("boxes")


def test_a_network_of_another_input_size_is_not_run(program, packed):
    param = packed.param_path.read_text()
    assert param.count("0=96 1=96 2=3") == 1

    run = broken(
        program,
        packed,
        "model.ncnn.param",
        lambda: packed.param_path.write_text(param.replace("0=96 1=96 2=3", "0=64 1=96 2=3")),
    )

    assert run.rows("FAIL") == {"priors", "heads", "boxes", "detection_out", "times"}
    assert "the network takes 64 x 96 pixels, not 96 x 96" in run.text("heads")


def test_a_picture_of_another_size_fails_but_not_the_library(program, packed):
    path = packed.model / "image_1.ppm"
    picture = path.read_bytes()
    assert picture.startswith(b"P6\n160 120\n")
    path.write_bytes(b"P6\n80 60\n255\n" + picture[-80 * 60 * 3 :])

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 1
    assert {"files", "preprocess"} <= run.rows("FAIL")
    assert {"postprocess", "priors", "heads"} <= run.rows("PASS")


def test_boxes_that_all_are_near_the_cut_are_skipped(program, packed):
    limits = next(row for row in LIMITS if row.arithmetic == "fp32")
    packed.rewrite_golden(f64(limits.box_score, limits.margin), f64(limits.box_score, 1.0))

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 0
    assert run.rows("SKIPPED") == {"boxes", "detection_out"}
    assert run.text("boxes") == "no score lies more than 1 above the cut of its list"


def test_an_older_result_is_not_left_where_a_run_breaks_off(program, packed):
    selftests.run_selftest(program, packed)
    packed.bin_path.write_bytes(b"")

    done = subprocess.run(
        [*program, packed.model, "--json", packed.model.parent / "fp32.json"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert (packed.model.parent / "fp32.json").read_text() == ""


def test_a_result_that_cannot_be_written_is_an_error_before_anything_runs(program, good, tmp_path):
    target = tmp_path / "nowhere" / "result.json"

    done = subprocess.run(
        [*program, good.model, "--json", target], capture_output=True, text=True, check=False
    )

    assert done.returncode == 3
    assert f"{target} cannot be written" in done.stderr
    assert done.stdout.splitlines() == ["FAIL: the test could not be carried out"]


def test_the_golden_file_of_another_model_fails(program, packed, tmp_path):
    spec = tiny_spec(num_classes=4)
    write_native(tmp_path / "other.pth", tiny_net(seed=7, spec=spec), spec)
    export_checkpoint(tmp_path / "other.pth", tmp_path / "other")
    lower_to_ncnn(tmp_path / "other")
    other = selftests.pack(read_bundle(tmp_path / "other"), tmp_path / "unpacked")
    shutil.copy(other.golden_path, packed.golden_path)
    for picture in other.model.glob("*.ppm"):
        shutil.copy(picture, packed.model)

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 1
    assert {"files", "heads"} <= run.rows("FAIL")
    assert {"preprocess", "postprocess"} <= run.rows("PASS")


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("golden.mbv3g", 5000, "golden.mbv3g: the golden file is cut off"),
        ("golden.mbv3g", 0, "the bytes do not begin with MBV3SSDG"),
        ("golden.mbv3g", None, "golden.mbv3g cannot be opened"),
        ("model.mbv3c", 100, "model.mbv3c: the contract is cut off"),
        ("image_0.ppm", 100, "image_0.ppm is cut off"),
        ("model.ncnn.bin", 1000, "ncnn cannot load"),
    ],
)
def test_a_broken_file_is_named(program, packed, name, size, words):
    path = packed.model / name
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])

    run = selftests.run_selftest(program, packed)

    assert (run.exit_code, run.result) == (3, None)
    assert words in run.stderr
    assert run.stdout.splitlines()[-1] == "FAIL: the test could not be carried out"


def test_a_golden_file_that_was_flipped_is_refused(program, packed):
    data = bytearray(packed.golden_path.read_bytes())
    data[3000] ^= 0x10
    packed.golden_path.write_bytes(data)

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 3
    assert "damaged" in run.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "the folder is missing"),
        (("model", "more"), "more than one folder: more"),
        (("model", "--speed", "9"), "unknown option: --speed"),
        (("model", "--threads"), "--threads needs a value"),
        (("model", "--threads", "0"), "0 is not an integer from 1 to 256"),
        (("model", "--rounds", "ten"), "ten is not an integer from 0 to 100000"),
    ],
)
def test_wrong_usage_is_an_error(program, words, sentence):
    done = subprocess.run([*program, *words], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "usage: selftest FOLDER" in done.stderr


def test_an_arithmetic_without_limits_is_wrong_usage(program, good):
    run = selftests.run_selftest(program, good, arithmetic="int8")

    assert run.exit_code == 2
    assert "no limits for int8, only for fp32 fp16s fp16 bf16" in run.stderr
