#!/usr/bin/env python3
"""Build the part of ncnn that an MBV3-SSD network needs, from the archive on PyPI.

    build_ncnn.py                      for this machine
    build_ncnn.py --target aarch64     with Debian's g++-aarch64-linux-gnu
    build_ncnn.py --target board       on a Raspberry Pi or another ARM board itself
    build_ncnn.py --archive FILE       where there is no network

Needs Python with pip and setuptools, CMake, Ninja or make, and a C++ compiler. Builds stay
in the user's cache folder, one for each recipe and compiler, and are found by the next run of any
copy of this script. It prints the folder for CMake's `-Dncnn_DIR=` to stdout.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CROSS_COMPILER = "aarch64-linux-gnu-g++"
TOOLCHAIN = HERE.parent / "cmake" / "aarch64.cmake"
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = _CACHES / "mbv3ssd-deploy" / "ncnn"

# The layers of our writer, and those that ncnn inserts by itself (Packing, Cast, Padding).
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
# A float network can use none of these on a Cortex-A76, the newest CPU of a Raspberry Pi.
_NEWER_ARM = dict.fromkeys(
    (
        *("NCNN_ARM82DOT", "NCNN_ARM82FP16FML", "NCNN_ARM84BF16", "NCNN_ARM84I8MM"),
        *("NCNN_ARM86SVE", "NCNN_ARM86SVE2", "NCNN_ARM86SVEBF16", "NCNN_ARM86SVEI8MM"),
        "NCNN_ARM86SVEF32MM",
    ),
    "OFF",
)
# Without dispatch everything is compiled for AVX2, and for what few CPUs have as well if it may.
_NATIVE = dict.fromkeys(
    (
        *("NCNN_RUNTIME_CPU", "NCNN_XOP", "NCNN_AVX512", "NCNN_AVXVNNI"),
        *("NCNN_AVXVNNIINT8", "NCNN_AVXVNNIINT16", "NCNN_AVXNECONVERT"),
    ),
    "OFF",
)


@dataclass(frozen=True, slots=True)
class Release:
    """A source archive of ncnn, and its SHA-256."""

    version: str
    sha256: str

    @property
    def archive(self) -> str:
        """Return the archive's name."""
        return f"ncnn-{self.version}.tar.gz"

    @property
    def day(self) -> str:
        """Return the last part of the version, for which ncnn takes the day of its build."""
        return self.version.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Target:
    """A build: which release, which layers, for which machine."""

    settings: dict[str, str]
    release: Release = Release(
        "1.0.20261020", "ad8cdd63e9755cfa8e23b9b6d9ce46156077d80298a89e7c3ba325ffccfca200"
    )
    layers: tuple[str, ...] = LAYERS
    is_cross: bool = False


TARGETS = {
    "native": Target(_NATIVE),
    # dispatch stays: fp16 arithmetic is taken where the CPU has it, and a Cortex-A53 has not
    "aarch64": Target(_NEWER_ARM, is_cross=True),
    # built on the board itself: the same, with the board's own compiler
    "board": Target(_NEWER_ARM),
    # the last release that takes the bits of an integer for a float, to show what that does
    "aarch64-older": Target(
        _NEWER_ARM,
        Release("1.0.20260526", "282f0f4a1beec1f5212aa0d22c00737418645055f33c2d2082922931cdbdc537"),
        ("Cast", "DetectionOutput", "Input", "MemoryData", "Packing", "PriorBox", "Split"),
        is_cross=True,
    ),
}

# ncnn's setup.py stamps the day of the build as its version, and pip then refuses the archive: this
# makes the day that of the release. Python imports a sitecustomize by itself.
_SITECUSTOMIZE = """\
import os, time
_strftime, _day = time.strftime, os.environ["NCNN_SDIST_DATE"]
time.strftime = lambda form, *when: _day if form == "%Y%m%d" else _strftime(form, *when)
"""


class CannotBuildError(Exception):
    """ncnn cannot be built here; the message names the reason and what to do."""


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", choices=TARGETS, default="native")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where it is kept")
    parser.add_argument("--archive", type=Path, help="the source archive, if it is here already")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(words)
    cache = options.cache.resolve()
    try:
        found = built(cache, options.target)
        if found is None:
            found = build(cache, options.target, options.archive, options.jobs)
    except CannotBuildError as error:
        sys.stderr.write(f"ncnn was not built: {error}\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


def built(cache: Path, target: str) -> Path | None:
    """Return the folder of ncnnConfig.cmake if this very recipe was built, else None."""
    if shutil.which(compiler_of(target)) is None:
        return None
    return next((cache / key_of(target)).glob("lib*/cmake/ncnn"), None)


def key_of(target: str) -> str:
    """Return the name of what is built: another recipe or compiler gives another."""
    compiler = compiler_of(target)
    answers = (run(compiler, word) for word in ("--version", "-dumpmachine"))
    digest = hashlib.sha256("".join((recipe(target), *answers)).encode()).hexdigest()
    return f"{target}-{digest[:16]}"


def recipe(target: str) -> str:
    """Return all that decides what is built, but for the compiler."""
    spec = TARGETS[target]
    settings = (f"{name}={value}" for name, value in settings_of(spec).items())
    return "\n".join((spec.release.sha256, *spec.layers, *settings))


def settings_of(target: Target) -> dict[str, str]:
    """Return the settings for CMake that decide what is built."""
    return COMMON | target.settings | {"NCNN_VERSION": target.release.day}


def compiler_of(target: str) -> str:
    """Return the C++ compiler's name."""
    return CROSS_COMPILER if TARGETS[target].is_cross else os.environ.get("CXX") or "c++"


def build(cache: Path, target: str, archive: Path | None, jobs: int) -> Path:
    """Fetch, check, unpack, compile and install; return the folder of ncnnConfig.cmake.

    The build appears in `cache` when it is complete. A second process waits for the first.
    """
    check_tools(target)
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache):
        found = built(cache, target)
        if found is not None:
            return found
        for left_behind in cache.glob("building-*"):
            shutil.rmtree(left_behind)
        release = TARGETS[target].release
        archive = checked(archive or fetched(cache, release), release)
        with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as scratch:
            installed = compiled(Path(scratch), target, archive, jobs)
            shutil.rmtree(cache / key_of(target), ignore_errors=True)
            installed.replace(cache / key_of(target))
        found = built(cache, target)
    if found is None:
        raise CannotBuildError(f"it was installed without ncnnConfig.cmake, in {cache}")
    return found


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Lock the cache. The lock ends with the process, however that ends."""
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compiled(scratch: Path, target: str, archive: Path, jobs: int) -> Path:
    """Unpack, compile and install inside `scratch`; return the folder it is installed in."""
    spec, folder, installed = TARGETS[target], scratch / "build", scratch / "installed"
    source = unpacked(scratch, archive)
    settings = settings_of(spec) | {"CMAKE_INSTALL_PREFIX": str(installed)}
    settings |= {f"WITH_LAYER_{name}": "OFF" for name in left_out(source, spec.layers)}
    if spec.is_cross:
        settings["CMAKE_TOOLCHAIN_FILE"] = str(TOOLCHAIN)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    what = f"{spec.release.version} ({target}, {len(spec.layers)} layers)"
    report(f"building ncnn {what}; some minutes on two cores")
    words = [f"-D{name}={value}" for name, value in settings.items()]
    run("cmake", "-S", str(source), "-B", str(folder), *generator, *words)
    run("cmake", "--build", str(folder), "-j", str(jobs))
    run("cmake", "--install", str(folder))
    return installed


def check_tools(target: str) -> None:
    """Check for every tool that is needed, before anything is fetched."""
    compiler = compiler_of(target)
    tools = {
        "cmake": "CMake (Debian: apt install cmake; or python -m pip install cmake)",
        compiler: "a C++ compiler (Debian: apt install g++"
        + ("-aarch64-linux-gnu)" if TARGETS[target].is_cross else ")"),
    }
    missing = [words for tool, words in tools.items() if shutil.which(tool) is None]
    if not (shutil.which("ninja") or shutil.which("make")):
        missing.append("Ninja or make (Debian: apt install ninja-build)")
    if missing:
        raise CannotBuildError(f"this is missing: {'; '.join(missing)}")


def fetched(cache: Path, release: Release) -> Path:
    """Return the archive, fetched by pip if it is not in `cache`."""
    kept = cache / release.archive
    if kept.is_file() and sha256_of(kept) == release.sha256:
        return kept
    missing = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotBuildError(
            f"Python has no {' and no '.join(missing)} (Debian: apt install python3-pip "
            f"python3-setuptools); or fetch {release.archive} yourself and give it as --archive"
        )
    report(f"fetching {release.archive}")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        (Path(scratch) / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        environment = os.environ | {
            "PYTHONPATH": scratch,
            "NCNN_SDIST_DATE": release.day,
        }
        words = ("download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", scratch)
        run(
            *(sys.executable, "-m", "pip", *words, "--no-binary", "ncnn", "--no-build-isolation"),
            f"ncnn=={release.version}",
            environment=environment,
            hint=f"no network? Fetch {release.archive} elsewhere and give it as --archive",
        )
        (Path(scratch) / release.archive).replace(kept)
    return kept


def checked(archive: Path, release: Release) -> Path:
    """Return `archive` if its bytes are those of `release`."""
    if not archive.is_file():
        raise CannotBuildError(f"there is no file {archive}")
    found = sha256_of(archive)
    if found != release.sha256:
        problem = f"{archive} has sha256 {found}, not {release.sha256}"
        raise CannotBuildError(f"{problem}: it was not unpacked")
    return archive


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpacked(scratch: Path, archive: Path) -> Path:
    """Return the folder of ncnn's sources."""
    # Debian 12's Python has no filters yet; the bytes are known by their hash in any case
    careful: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, **careful)  # noqa: S202 -- see above
    return next(scratch.glob("ncnn-*"))


def left_out(source: Path, layers: Sequence[str]) -> list[str]:
    """Return, in CMake's lower case, the layers of `source` that are not among `layers`."""
    listing = (source / "src" / "CMakeLists.txt").read_text().splitlines()
    starts = (line.strip() for line in listing if line.strip().startswith("ncnn_add_layer("))
    names = {line.partition("(")[2].partition(")")[0].split()[0] for line in starts}
    unknown = sorted(set(layers) - names)
    if unknown:
        raise CannotBuildError(f"this ncnn has no layer {', '.join(unknown)}")
    return sorted(name.lower() for name in names - set(layers))


def run(*words: str, environment: dict[str, str] | None = None, hint: str = "") -> str:
    """Run a command and return its output; if it fails, the error has the last lines."""
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
    return done.stdout


def report(words: str) -> None:
    """Print a progress message to stderr."""
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
