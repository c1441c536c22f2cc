"""Packages, unpacked; their self-test, built by their own CMake files; and ways to break them."""

import hashlib
import io
import json
import struct
import subprocess
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cpp_build

from mbv3ssd_deploy.device.golden import GOLDEN
from mbv3ssd_deploy.device.package import Target, build_package

HEADER = 20


def unpacked(package, folder):
    """Unpack into `folder`; a file that is there already keeps its time, and is not built again."""
    with zipfile.ZipFile(io.BytesIO(package.data)) as archive:
        for name in archive.namelist():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != archive.read(name):
                path.write_bytes(archive.read(name))
    return folder / package.name


def built_program(bundle, images=None):
    """The words that start the self-test which a package of `bundle` builds."""
    cpp_build.need_compiler()
    found = cpp_build.need_ncnn("native", "make ncnn")
    return (_built("package", bundle, images, f"-Dncnn_DIR={found}"),)


def built_arm_program(bundle, cpu, images=None):
    """The same for 64-bit ARM, on an emulated `cpu`."""
    cpp_build.need_arm()
    found = cpp_build.need_ncnn("aarch64", "make arm")
    options = f"-Dncnn_DIR={found}", f"-DCMAKE_TOOLCHAIN_FILE={cpp_build.TOOLCHAIN}"
    program = _built("package_aarch64", bundle, images, *options)
    return cpp_build.first_of(*cpp_build.EMULATORS), "-cpu", cpu, program


def _built(name, bundle, images, *options):
    package = build_package(bundle, Target.SRC, images)
    source = unpacked(package, cpp_build.BUILDS / f"{name}_source")
    return cpp_build.build(name, *options, "-DMBV3SSD_STRICT=ON", source=source) / "selftest"


@dataclass(frozen=True)
class Packed:
    """The folder `model` of an unpacked package."""

    model: Path

    @property
    def param_path(self):
        return self.model / "model.ncnn.param"

    @property
    def bin_path(self):
        return self.model / "model.ncnn.bin"

    @property
    def contract_path(self):
        return self.model / "model.mbv3c"

    @property
    def golden_path(self):
        return self.model / GOLDEN

    def update_hash(self, name, before):
        """Write the hash of `name` into the golden file; `before` are the old bytes of the file."""
        self.rewrite_golden(_record(before), _record((self.model / name).read_bytes()))

    def rewrite_golden(self, old, new):
        """Replace `old` by `new` in the golden file, with a correct header."""
        golden = self.golden_path.read_bytes()
        assert golden.count(old) == 1
        body = golden[HEADER:].replace(old, new)
        start = golden[: HEADER - 8] + struct.pack("<2I", len(body), zlib.crc32(body))
        self.golden_path.write_bytes(start + body)


def _record(data):
    return struct.pack("<I", len(data)) + hashlib.sha256(data).digest()


def pack(bundle, folder, images=None):
    """Pack `bundle` and unpack it into `folder`."""
    return Packed(unpacked(build_package(bundle, Target.SRC, images), folder) / "model")


@dataclass(frozen=True)
class SelftestRun:
    """The exit code, output and result of a self-test."""

    exit_code: int
    stdout: str
    stderr: str
    result: dict | None

    def rows(self, status):
        return {row["name"] for row in self.result["rows"] if row["status"] == status}

    def text(self, name):
        return next(row["text"] for row in self.result["rows"] if row["name"] == name)


def run_selftest(program, packed, *words, arithmetic="fp32"):
    """Run a self-test without its times."""
    target = packed.model.parent / f"{arithmetic}.json"
    target.unlink(missing_ok=True)
    command = [*program, packed.model, "--arithmetic", arithmetic, "--rounds", "1", *words]
    done = subprocess.run(
        [*command, "--json", target], capture_output=True, text=True, check=False, timeout=300
    )
    text = target.read_text() if target.is_file() else ""
    result = json.loads(text) if text else None
    return SelftestRun(done.returncode, done.stdout, done.stderr, result)
