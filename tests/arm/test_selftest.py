"""The packaged self-test with ncnn's ARM code: good packages pass, and what ARM breaks fails."""

import pytest
import selftests

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.precision import PrecisionMasks
from mbv3ssd_deploy.pipeline import lower_to_ncnn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(bench):
    """On a CPU that has float16 arithmetic."""
    return selftests.built_arm_program(bench.good(), "cortex-a76", bench.folder)


@pytest.fixture(scope="module")
def good(bench, tmp_path_factory):
    return selftests.pack(bench.good(), tmp_path_factory.mktemp("good"), bench.folder)


@pytest.fixture(scope="module")
def unguarded(bench, tmp_path_factory):
    directory = bench.copy("unguarded").directory
    lower_to_ncnn(directory, NcnnRequest(guards=PrecisionMasks(fp16=False)))
    folder = tmp_path_factory.mktemp("unguarded")
    return selftests.pack(read_bundle(directory), folder, bench.folder)


@pytest.mark.parametrize("arithmetic", ["fp32", "fp16s", "fp16", "bf16"])
def test_a_good_package_passes(program, good, arithmetic):
    run = selftests.run_selftest(program, good, arithmetic=arithmetic)

    assert run.exit_code == 0, run.stdout + run.stderr
    assert run.result["architecture"] == "aarch64"
    assert run.result["in_effect"] == arithmetic


def test_a_cpu_without_float16_arithmetic_says_so_and_passes(bench, good):
    program = selftests.built_arm_program(bench.good(), "cortex-a53", bench.folder)

    run = selftests.run_selftest(program, good, arithmetic="fp16")

    assert run.exit_code == 0, run.stdout + run.stderr
    assert run.result["in_effect"] == "fp32"
    assert "fp16 did not take effect" in run.stdout.splitlines()[-1]


def test_a_network_without_the_guard_fails_in_float16_only(program, unguarded):
    exact = selftests.run_selftest(program, unguarded, arithmetic="fp32")
    halves = selftests.run_selftest(program, unguarded, arithmetic="fp16")

    assert exact.exit_code == 0, exact.stdout + exact.stderr
    assert halves.exit_code == 1
    assert "heads" in halves.rows("FAIL")
    assert halves.rows("PASS") >= {"files", "preprocess", "postprocess", "priors"}


def test_a_file_that_changed_on_the_way_fails(program, bench, tmp_path):
    packed = selftests.pack(bench.good(), tmp_path, bench.folder)
    data = bytearray(packed.bin_path.read_bytes())
    data[4000] ^= 1
    packed.bin_path.write_bytes(data)

    run = selftests.run_selftest(program, packed)

    assert run.exit_code == 1
    assert "files" in run.rows("FAIL")
