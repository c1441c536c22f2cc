"""How the tests of this folder call the command line."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle_folder import build_bundle_folder
from click.testing import CliRunner

from mbv3ssd_deploy.cli.main import cli


@dataclass(frozen=True)
class Place:
    """A folder of one test: a checkpoint, images, and a finished bundle `deploy`."""

    folder: Path

    def run(self, *words):
        """Run a command in this process; what it said and its exit code."""
        return CliRunner().invoke(cli, [str(word) for word in words])

    def spawn(self, *words, **options):
        """Start a command as a process of its own; it has begun to listen when this returns."""
        command = [sys.executable, "-c", _PROGRAM, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=self.folder, **pipes, **options)
        assert process.stdout.readline() == "listening\n"
        return process

    def files(self, name="deploy"):
        """Every file of a bundle, with its bytes."""
        return {p.name: p.read_bytes() for p in sorted((self.folder / name).iterdir())}


_PROGRAM = """
from mbv3ssd_deploy.io.interrupts import install_interrupt_handler
from mbv3ssd_deploy.cli.main import main
install_interrupt_handler()
print("listening", flush=True)
main()
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    bench = build_bundle_folder(tmp_path_factory.mktemp("cli"))
    images = bench.folder / "images"
    images.mkdir()
    for path in bench.images:
        path.rename(images / path.name)
    return bench.folder


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    folder = tmp_path / "a place"  # with a blank, as users have them
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return Place(folder)
