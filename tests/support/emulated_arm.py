"""Programs for 64-bit ARM, run under qemu on one of its CPUs.

`cortex-a53` has no float16 arithmetic, `cortex-a76` (a Raspberry Pi 5) has, `max` has all there is.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cpp_build
import numpy as np

CPUS = ("cortex-a53", "cortex-a76", "max")


def emulated(cpu, program, *words):
    """Return the output of `program`."""
    qemu = cpp_build.first_of(*cpp_build.EMULATORS)
    return cpp_build.run(qemu, "-cpu", cpu, str(program), *map(str, words))


@dataclass(frozen=True)
class Arm:
    """The examples, built for ARM, and the CPU that they run on."""

    programs: Path
    cpu: str = "cortex-a76"

    def run(self, program, *words):
        return emulated(self.cpu, self.programs / program, *words)

    def blobs(self, param, weights, tensor, names, arithmetic):
        """The blobs that a network computes from `tensor` (C, H, W), as {name: array}."""
        channels, height, width = tensor.shape
        with tempfile.TemporaryDirectory() as scratch:
            given = Path(scratch, "input.f32")
            given.write_bytes(np.ascontiguousarray(tensor, np.float32).tobytes())
            sizes = width, height, channels
            output = self.run(
                "dump_blobs", param, weights, given, *sizes, arithmetic, scratch, *names
            )
            lines = enumerate(output.splitlines())
            return dict(_blob(Path(scratch, f"{index}.f32"), line) for index, line in lines)


def _blob(path, line):
    name, *sizes = line.split()
    return name, np.fromfile(path, np.float32).reshape([int(size) for size in sizes])


def relative_error(found, expected):
    """The root of the mean square of the difference, as a share of that of `expected`."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))
