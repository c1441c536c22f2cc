"""The fuzzers with Clang's libFuzzer, which looks for inputs that reach new lines of the library.

FUZZ_SECONDS is the time for each: a few seconds here, a minute in CI.
"""

import os
import shutil
import subprocess

import cpp_build
import pytest
from builders import tiny_spec

from mbv3ssd_deploy.device.contract import render_contract

HEADER = 20  # magic, version, size and checksum (docs/formats/contract.md)
SECONDS = os.environ.get("FUZZ_SECONDS", "3")
pytestmark = pytest.mark.slow
TRIAL = 'extern "C" int LLVMFuzzerTestOneInput(unsigned char const*, unsigned long) { return 0; }'


@pytest.fixture(scope="module")
def fuzzers(tmp_path_factory):
    """The folder of the fuzzers; skips where Clang or its libFuzzer is not here."""
    cpp_build.need_compiler()
    if shutil.which("clang++") is None:
        cpp_build.without("libFuzzer is not run: clang++ not found (Debian: apt install clang)")
    trial = tmp_path_factory.mktemp("trial")
    (trial / "trial.cpp").write_text(TRIAL)
    words = ("clang++", "-fsanitize=fuzzer,address,undefined", "trial.cpp", "-o", "trial")
    if subprocess.run(words, cwd=trial, capture_output=True, check=False).returncode:
        cpp_build.without(
            "libFuzzer is not run: clang++ has none (Debian: apt install libclang-rt-14-dev)"
        )
    return cpp_build.build_preset("fuzz") / "fuzz"


@pytest.mark.parametrize("subject", ["contract", "golden", "preprocess", "postprocess"])
def test_libfuzzer_finds_nothing(fuzzers, tmp_path, subject):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if subject == "contract":  # no mutation finds one by itself
        (corpus / "sound").write_bytes(render_contract(tiny_spec())[HEADER:])
    options = (
        *(f"-max_total_time={SECONDS}", "-print_final_stats=1", f"-artifact_prefix={tmp_path}/"),
        *("-max_len=1024", "-len_control=0"),  # heads and pictures are long from the start
    )

    done = subprocess.run(
        [fuzzers / f"{subject}_fuzzer", *options, corpus],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    runs = done.stderr.split("stat::number_of_executed_units:")[1].split()[0]
    assert int(runs) > 0
