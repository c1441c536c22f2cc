#!/usr/bin/env python3
"""Build the part of ncnn that an MBV3-SSD network needs, from the archive that PyPI carries.

    build_ncnn.py                      for this machine, into .ncnn/native
    build_ncnn.py --target aarch64     with Debian's g++-aarch64-linux-gnu, into .ncnn/aarch64
    build_ncnn.py --archive FILE       where there is no network

Needs Python with pip and setuptools, CMake, Ninja or make, and a C++ compiler. What was built
stays, and the next run takes no time. On stdout stands the folder for CMake's `-Dncnn_DIR=`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

VERSION = "1.0.20261020"
SHA256 = "ad8cdd63e9755cfa8e23b9b6d9ce46156077d80298a89e7c3ba325ffccfca200"
ARCHIVE = f"ncnn-{VERSION}.tar.gz"
HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".ncnn"

# What our writer may use, and what ncnn puts in by itself (Packing, Cast, Padding).
LAYERS = (
    *("BatchNorm", "BinaryOp", "Cast", "Clip", "Concat", "Convolution", "ConvolutionDepthWise"),
    *("Crop", "DetectionOutput", "Dropout", "ELU", "Eltwise", "Flatten", "HardSigmoid"),
    *("HardSwish", "InnerProduct", "Input", "Interp", "MemoryData", "Mish", "Noop", "Normalize"),
    *("Packing", "Padding", "Permute", "Pooling", "PriorBox", "ReLU", "Reduction", "Reshape"),
    *("Scale", "Sigmoid", "Slice", "Softmax", "Split", "Swish", "UnaryOp"),
)
COMMON = {
    "CMAKE_BUILD_TYPE": "Release",
    **dict.fromkeys(
        (
            *("NCNN_VULKAN", "NCNN_BUILD_TOOLS", "NCNN_BUILD_EXAMPLES", "NCNN_BUILD_BENCHMARK"),
            *("NCNN_BUILD_TESTS", "NCNN_PYTHON", "NCNN_INT8", "NCNN_WEIGHT_QUANT", "NCNN_C_API"),
        ),
        "OFF",
    ),
}
# A Cortex-A76, the newest of a Raspberry Pi, has none of them that a float network could use.
_NEWER_ARM = dict.fromkeys(
    (
        *("NCNN_ARM82DOT", "NCNN_ARM82FP16FML", "NCNN_ARM84BF16", "NCNN_ARM84I8MM"),
        *("NCNN_ARM86SVE", "NCNN_ARM86SVE2", "NCNN_ARM86SVEBF16", "NCNN_ARM86SVEI8MM"),
        "NCNN_ARM86SVEF32MM",
    ),
    "OFF",
)
TARGETS = {
    # without dispatch everything is compiled for AVX2, and for what few CPUs have as well if it may
    "native": dict.fromkeys(
        (
            *("NCNN_RUNTIME_CPU", "NCNN_BF16", "NCNN_XOP", "NCNN_AVX512"),
            *("NCNN_AVXVNNI", "NCNN_AVXVNNIINT8", "NCNN_AVXVNNIINT16", "NCNN_AVXNECONVERT"),
        ),
        "OFF",
    ),
    # dispatch stays: fp16 arithmetic is taken where the CPU has it, and a Cortex-A53 has not
    "aarch64": {
        "CMAKE_TOOLCHAIN_FILE": str(HERE.parent / "cmake" / "aarch64.cmake"),
        **_NEWER_ARM,
    },
    # built on the board itself: as above, with the board's own compiler
    "board": _NEWER_ARM,
}

# ncnn's setup.py stamps the day of the build as its version, and pip then refuses the archive: this
# makes the day that of the release. Python imports a sitecustomize by itself.
_SITECUSTOMIZE = """\
import os, time
_strftime, _day = time.strftime, os.environ["NCNN_SDIST_DATE"]
time.strftime = lambda form, *when: _day if form == "%Y%m%d" else _strftime(form, *when)
"""


class CannotBuildError(Exception):
    """ncnn cannot be built here; the text says why and what to do."""


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", choices=TARGETS, default="native")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where it is kept")
    parser.add_argument("--archive", type=Path, help=f"{ARCHIVE}, if it is here already")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(words)
    try:
        found = built(options.cache, options.target)
        if found is None:
            found = build(options.cache.resolve(), options.target, options.archive, options.jobs)
    except CannotBuildError as error:
        sys.stderr.write(f"ncnn was not built: {error}\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


def built(cache: Path, target: str) -> Path | None:
    """Return the folder of ncnnConfig.cmake if this very recipe was built, else None."""
    stamp = cache / target / "recipe"
    if not stamp.is_file() or stamp.read_text() != recipe(target):
        return None
    return next((cache / target).glob("lib*/cmake/ncnn"), None)


def recipe(target: str) -> str:
    """Return all that decides what is built."""
    return "\n".join((SHA256, *LAYERS, *(f"{k}={v}" for k, v in options_of(target).items()), ""))


def options_of(target: str) -> dict[str, str]:
    """Return CMake's settings for `target`, but for the layers that are left out."""
    return COMMON | TARGETS[target]


def build(cache: Path, target: str, archive: Path | None, jobs: int) -> Path:
    """Fetch, check, unpack, compile and install; return the folder of ncnnConfig.cmake."""
    check_tools(target)
    cache.mkdir(parents=True, exist_ok=True)
    source = unpacked(cache, checked(archive or fetched(cache)))
    folder, prefix = cache / f"build-{target}", cache / target
    shutil.rmtree(prefix, ignore_errors=True)
    settings = options_of(target) | {"CMAKE_INSTALL_PREFIX": str(prefix)}
    settings |= {f"WITH_LAYER_{name}": "OFF" for name in left_out(source)}
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    say(f"building ncnn {VERSION} ({target}, {len(LAYERS)} layers); some minutes on two cores")
    words = [f"-D{name}={value}" for name, value in settings.items()]
    run("cmake", "-S", str(source), "-B", str(folder), *generator, *words)
    run("cmake", "--build", str(folder), "-j", str(jobs))
    run("cmake", "--install", str(folder))
    (prefix / "recipe").write_text(recipe(target))
    found = built(cache, target)
    if found is None:
        raise CannotBuildError(f"it was installed without ncnnConfig.cmake, in {prefix}")
    shutil.rmtree(folder)
    return found


def check_tools(target: str) -> None:
    """Look for what is needed before anything is fetched; all that is missing is told."""
    compiler = "aarch64-linux-gnu-g++" if target == "aarch64" else os.environ.get("CXX", "c++")
    wanted = {
        "cmake": "CMake (Debian: apt install cmake; or python -m pip install cmake)",
        compiler: "a C++ compiler (Debian: apt install g++"
        + ("-aarch64-linux-gnu)" if target == "aarch64" else ")"),
    }
    missing = [words for tool, words in wanted.items() if shutil.which(tool) is None]
    if not (shutil.which("ninja") or shutil.which("make")):
        missing.append("Ninja or make (Debian: apt install ninja-build)")
    if missing:
        raise CannotBuildError(f"this is missing: {'; '.join(missing)}")


def fetched(cache: Path) -> Path:
    """Return the archive, fetched by pip if it is not in `cache`."""
    kept = cache / ARCHIVE
    if kept.is_file() and sha256_of(kept) == SHA256:
        return kept
    missing = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotBuildError(
            f"Python has no {' and no '.join(missing)} (Debian: apt install python3-pip "
            f"python3-setuptools); or fetch {ARCHIVE} yourself and say --archive"
        )
    say(f"fetching {ARCHIVE}")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        (Path(scratch) / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        environment = os.environ | {
            "PYTHONPATH": scratch,
            "NCNN_SDIST_DATE": VERSION.rpartition(".")[2],
        }
        words = ("download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", scratch)
        run(
            *(sys.executable, "-m", "pip", *words, "--no-binary", "ncnn", "--no-build-isolation"),
            f"ncnn=={VERSION}",
            environment=environment,
            hint=f"no network? Fetch {ARCHIVE} elsewhere and say --archive",
        )
        (Path(scratch) / ARCHIVE).replace(kept)
    return kept


def checked(archive: Path) -> Path:
    """Return `archive` if its bytes are the known ones."""
    if not archive.is_file():
        raise CannotBuildError(f"there is no file {archive}")
    found = sha256_of(archive)
    if found != SHA256:
        raise CannotBuildError(f"{archive} has sha256 {found}, not {SHA256}: it was not unpacked")
    return archive


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpacked(cache: Path, archive: Path) -> Path:
    """Return the folder of ncnn's sources."""
    source = cache / f"ncnn-{VERSION}"
    if not (source / "CMakeLists.txt").is_file():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            (Path(scratch) / source.name).replace(source)
    return source


def left_out(source: Path) -> list[str]:
    """Return, in CMake's lower case, the layers of `source` that are not wanted."""
    listing = (source / "src" / "CMakeLists.txt").read_text().splitlines()
    starts = (line.strip() for line in listing if line.strip().startswith("ncnn_add_layer("))
    names = {line.partition("(")[2].partition(")")[0].split()[0] for line in starts}
    unknown = sorted(set(LAYERS) - names)
    if unknown:
        raise CannotBuildError(f"this ncnn has no layer {', '.join(unknown)}")
    return sorted(name.lower() for name in names - set(LAYERS))


def run(*words: str, environment: dict[str, str] | None = None, hint: str = "") -> None:
    """Run a command; only where it fails its output is shown, the end of it."""
    done = subprocess.run(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-12:])
        raise CannotBuildError(f"`{' '.join(words[:4])} ...` failed\n{tail}\n{hint}".rstrip())


def say(words: str) -> None:
    """Tell what is going on, on stderr."""
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
