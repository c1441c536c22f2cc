"""Building cpp_postprocess, once a session, into build/cpp/: kept, so that it is quick again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SOURCE = REPOSITORY / "cpp_postprocess"
BUILDS = REPOSITORY / "build" / "cpp"


def compiler():
    """The C++ compiler that CMake would take, or None."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++"))), None)


def need_compiler():
    """Skip, or fail where STRICT=1 is set, if there is nothing to build with."""
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
    if compiler() is None:
        missing.append("a C++17 compiler (Debian: apt install g++)")
    if missing:
        reason = f"cpp_postprocess is not built and not tested: {', '.join(missing)} not found"
        if os.environ.get("STRICT") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def run(*words, cwd=None):
    """Run a command; its whole output is the failure's message."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


def build(name, *options, source=SOURCE):
    """Configure and build `source` with `options`; return the folder."""
    need_compiler()
    folder = BUILDS / name
    run("cmake", "-S", str(source), "-B", str(folder), "-G", "Ninja", *options)
    run("cmake", "--build", str(folder))
    return folder


def build_preset(name):
    """Configure and build a preset of CMakePresets.json; return the folder."""
    need_compiler()
    run("cmake", "--preset", name, cwd=SOURCE)
    run("cmake", "--build", "--preset", name, cwd=SOURCE)
    return BUILDS / name
