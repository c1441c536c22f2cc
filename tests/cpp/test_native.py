"""The C++ library's own tests, its fuzzers in short, a project that uses it, and its size."""

import shutil
import subprocess

import cpp_build
import pytest
from reference_specs import qfgaohao_spec
from zoo import REPOSITORY

from mbv3ssd_deploy.device.contract import render_contract, render_contract_header

CONSUMER = cpp_build.SOURCE / "tests" / "consumer"


def test_its_own_tests_pass():
    cpp_build.need_compiler()
    folder = cpp_build.build_preset("dev")

    report = cpp_build.run("ctest", "--test-dir", str(folder), "--output-on-failure")

    assert "100% tests passed" in report


def test_a_test_program_reports_every_failed_check_of_every_case(tmp_path):
    tests = cpp_build.SOURCE / "tests"
    source = tmp_path / "failing.cpp"
    source.write_text(
        '#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN\n#include "check.hpp"\n'
        'TEST_CASE("first") { CHECK(1 == 2); CHECK(2 == 3); }\n'
        'TEST_CASE("second") { CHECK_ERROR(int, "words", throw 1); }\n'
    )
    program, include = tmp_path / "failing", f"-I{tests / 'vendor' / 'doctest'}"
    cpp_build.run(
        *(cpp_build.compiler(), "-std=c++17", f"-I{tests}", include),
        *(str(source), "-o", str(program)),
    )

    done = subprocess.run([program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    for reported in ("first", "1 == 2", "2 == 3", "second", "0 passed | 2 failed"):
        assert reported in done.stdout


@pytest.mark.slow
def test_its_own_tests_and_fuzzers_pass_under_the_sanitizers():
    cpp_build.need_compiler()
    folder = cpp_build.build_preset("asan")

    report = cpp_build.run("ctest", "--test-dir", str(folder), "--output-on-failure")

    assert "100% tests passed" in report
    assert "postprocess_fuzzer" in report


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "model.mbv3c"
    path.write_bytes(render_contract(qfgaohao_spec()))
    return path


def finds_one_object(program, contract):
    found = cpp_build.run(str(program), str(contract))
    assert found.startswith("class_1 0.99 at ")
    assert found.count("\n") == 1
    missing = subprocess.run([program, "none"], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "cannot be opened" in missing.stderr


@pytest.mark.slow
def test_a_project_finds_the_installed_library(shared_library, contract, tmp_path):
    cpp_build.run("cmake", "--install", str(shared_library.parent), "--prefix", str(tmp_path))
    options = f"-DCMAKE_PREFIX_PATH={tmp_path}", f"-DCMAKE_BUILD_RPATH={tmp_path / 'lib'}"

    folder = cpp_build.build("consumer", *options, "-UMBV3SSD_SOURCE", source=CONSUMER)

    finds_one_object(folder / "consumer", contract)


def test_a_project_takes_the_sources_in(contract):
    option = f"-DMBV3SSD_SOURCE={cpp_build.SOURCE}"

    folder = cpp_build.build("consumer_with_sources", option, source=CONSUMER)

    finds_one_object(folder / "consumer", contract)


def test_the_readme_shows_the_consumers_lines():
    source = (CONSUMER / "main.cpp").read_text()
    shown = source.split("// README begins\n")[1].split("    // README ends")[0]
    lines = "\n".join(line.removeprefix("    ") for line in shown.splitlines())

    assert lines in (REPOSITORY / "README.md").read_text()


def test_the_generated_header_compiles(library, tmp_path):
    header = tmp_path / "model_contract.h"
    header.write_text(render_contract_header(qfgaohao_spec()))
    program = tmp_path / "size.c"
    program.write_text(
        '#include <stdio.h>\n#include "model_contract.h"\n'
        "int main(void) { fwrite(mbv3ssd_contract, 1, sizeof mbv3ssd_contract, stdout); return 0; }"
    )
    cpp_build.run(cpp_build.compiler(), "-x", "c", str(program), "-o", str(tmp_path / "size"))

    contract = subprocess.run([tmp_path / "size"], capture_output=True, check=True).stdout

    assert contract == render_contract(qfgaohao_spec())
    assert library.open(contract).about.class_count == 21


@pytest.mark.skipif(shutil.which("strip") is None, reason="there is no strip")
def test_the_stripped_library_is_small(shared_library, tmp_path):
    stripped = tmp_path / "stripped.so"
    cpp_build.run("strip", "-o", str(stripped), str(shared_library))

    assert stripped.stat().st_size < 100_000
