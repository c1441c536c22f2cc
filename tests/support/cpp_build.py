"""Building cpp_postprocess, once a session, into build/cpp/: kept, so that it is quick again.

ncnn is not built here, because that takes minutes: `make ncnn` and `make arm` do it, and `make
test` does it first. Without it, the tests that need it are skipped with a message.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "cpp_postprocess"
BUILDS = REPOSITORY / "build" / "cpp"
NCNN_SCRIPT = SOURCE / "ncnn" / "build_ncnn.py"
TOOLCHAIN = SOURCE / "cmake" / "aarch64.cmake"
ONNXRUNTIME_HEADERS = (
    os.environ.get("ONNXRUNTIME_INCLUDE_DIR", ""),
    "/usr/include/onnxruntime",
    "/usr/local/include/onnxruntime",
)
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")


def first_of(*programs):
    """The first of these programs that is here, or None."""
    return next(filter(None, map(shutil.which, programs)), None)


def compiler():
    """The C++ compiler that CMake would take, or None."""
    return first_of(os.environ.get("CXX", ""), "c++", "g++")


def without(reason):
    """Skip, or fail where STRICT=1 is set."""
    if os.environ.get("STRICT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def need_compiler():
    """Skip, or fail where STRICT=1 is set, if there is nothing to build with."""
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
    if compiler() is None:
        missing.append("a C++17 compiler (Debian: apt install g++)")
    if missing:
        without(f"cpp_postprocess is not built and not tested: {', '.join(missing)} not found")


def need_arm():
    """The same for 64-bit ARM: a cross compiler, and qemu to run what it builds."""
    need_compiler()
    missing = []
    if shutil.which("aarch64-linux-gnu-g++") is None:
        missing.append("a cross compiler (Debian: apt install g++-aarch64-linux-gnu)")
    if first_of(*EMULATORS) is None:
        missing.append("qemu (Debian: apt install qemu-user-static)")
    if missing:
        without(f"nothing is tested for ARM: {', '.join(missing)} not found")


def run(*words, cwd=None):
    """Run a command; its whole output is the failure's message."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def alone(name):
    """Hold the build folder `name` alone: two ninjas in one folder damage each other."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    with (BUILDS / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(name, *options, source=SOURCE):
    """Configure and build `source` with `options`; return the folder."""
    need_compiler()
    folder = BUILDS / name
    with alone(name):
        run("cmake", "-S", str(source), "-B", str(folder), "-G", "Ninja", *options)
        run("cmake", "--build", str(folder))
    return folder


def build_preset(name):
    """Configure and build a preset of CMakePresets.json; return the folder."""
    need_compiler()
    with alone(name):
        run("cmake", "--preset", name, cwd=SOURCE)
        run("cmake", "--build", "--preset", name, cwd=SOURCE)
    return BUILDS / name


def ncnn_recipe():
    """The module that builds ncnn."""
    spec = importlib.util.spec_from_file_location("build_ncnn", NCNN_SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def need_ncnn(target, command):
    """The folder of ncnnConfig.cmake; skip, or fail where STRICT=1 is set, if it was not built."""
    recipe = ncnn_recipe()
    found = recipe.built(recipe.CACHE, target)
    if found is None:
        without(f"ncnn was not built, so what needs it is not tested: run `{command}`")
    return found


def build_examples():
    """Build the examples for this machine; return the folder."""
    need_compiler()
    found = need_ncnn("native", "make ncnn")
    return build("examples", f"-Dncnn_DIR={found}", source=SOURCE / "examples")


def onnxruntime_library():
    """The library in ONNX Runtime's wheel, by the name under which programs look for it."""
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    link = BUILDS / "onnxruntime" / "libonnxruntime.so.1"
    with alone("onnxruntime"):
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    return link


def build_onnxruntime_example():
    """Build `detect_onnxruntime`, with the library of the wheel; return the folder."""
    need_compiler()
    headers = [folder for folder in ONNXRUNTIME_HEADERS if folder and Path(folder).is_dir()]
    if not headers:
        without(
            "detect_onnxruntime is not built and not tested: ONNX Runtime's C++ headers are not "
            "installed (give their folder as ONNXRUNTIME_INCLUDE_DIR)"
        )
    return build(
        "examples_onnxruntime",
        f"-DONNXRUNTIME_INCLUDE_DIR={headers[0]}",
        f"-DONNXRUNTIME_LIBRARY={onnxruntime_library()}",
        "-DCMAKE_DISABLE_FIND_PACKAGE_ncnn=ON",
        "-DMBV3SSD_STRICT=ON",
        source=SOURCE / "examples",
    )


def build_arm_examples(ncnn="aarch64"):
    """Build the examples for 64-bit ARM with one of the builds of ncnn; return the folder."""
    need_arm()
    found = need_ncnn(ncnn, "make arm")
    options = f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}", f"-Dncnn_DIR={found}"
    return build(f"examples_{ncnn}", *options, source=SOURCE / "examples")
