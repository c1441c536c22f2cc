"""The C++ library's own tests on 64-bit ARM, with NEON."""

import struct

import cpp_build
import pytest

pytestmark = pytest.mark.slow

AARCH64 = 183  # e_machine of an ELF file


def test_its_own_tests_pass_on_arm():
    cpp_build.need_arm()
    folder = cpp_build.build_preset("aarch64")

    report = cpp_build.run("ctest", "--test-dir", str(folder), "--output-on-failure")

    assert "100% tests passed" in report
    assert "lanes" in report
    header = (folder / "tests" / "lanes_test").read_bytes()[:20]
    assert struct.unpack_from("<H", header, 18) == (AARCH64,)
