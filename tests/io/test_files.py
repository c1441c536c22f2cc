"""Writing all or nothing, under real failures."""

import os
import subprocess
import sys

import pytest

from mbv3ssd_deploy.errors import OutputError
from mbv3ssd_deploy.io.files import publish_files, sha256_of, sha256_of_file, write_file

# Run by a child process whose files may not grow beyond some bytes: the disk is "full".
ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from mbv3ssd_deploy.io.files import publish_files
from mbv3ssd_deploy.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    publish_files(Path(sys.argv[1]), {"a": b"new", "b": b"x" * 2000}, remove=("old",))
except OutputError as error:
    print(error)
"""

# Run by a child process that is interrupted between the renames.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from mbv3ssd_deploy.io import files
real = Path.replace
def replace(self, target):
    os.kill(os.getpid(), signal.SIGINT)
    return real(self, target)
Path.replace = replace
try:
    files.publish_files(Path(sys.argv[1]), {"a": b"new a", "b": b"new b"})
except KeyboardInterrupt:
    print("interrupted")
"""


def run(script, *words, **options):
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_are_published_together_and_old_ones_go(tmp_path):
    (tmp_path / "stale").write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"mine")

    publish_files(tmp_path / ".", {"a": b"1", "b": b"2"}, remove=("stale", "never there"))

    assert names(tmp_path) == ["a", "b", "notes.txt"]
    assert (tmp_path / "b").read_bytes() == b"2"


def test_folders_on_the_way_are_made_and_files_are_readable_by_others(tmp_path):
    write_file(tmp_path / "x" / "y" / "f", b"data")

    assert (tmp_path / "x" / "y" / "f").read_bytes() == b"data"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "x" / "y" / "f").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_full_disk_changes_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "old").write_bytes(b"old")

    said = run(ON_A_FULL_DISK, tmp_path)

    assert "cannot write" in said
    assert names(tmp_path) == ["a", "old"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_name_taken_by_a_folder_changes_nothing(tmp_path):
    (tmp_path / "b").mkdir()

    with pytest.raises(OutputError, match="is a folder"):
        publish_files(tmp_path, {"a": b"1", "b": b"2"})

    assert names(tmp_path) == ["b"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match="cannot write"):
        write_file(tmp_path / "file" / "f", b"1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
def test_no_permission_is_an_error(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from mbv3ssd_deploy.io.files import write_file\n"
        "from mbv3ssd_deploy.errors import OutputError\n"
        "os.chdir(sys.argv[1]); os.setuid(65534)\n"
        "try:\n    write_file(Path('f'), b'1')\n"
        "except OutputError as error:\n    print(error)\n"
    )
    tmp_path.chmod(0o555)

    said = run(script, tmp_path)

    assert "Permission denied" in said
    assert names(tmp_path) == []


def test_an_interrupt_waits_for_the_renames(tmp_path):
    said = run(INTERRUPTED, tmp_path)

    assert said == "interrupted\n"
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "b").read_bytes() == b"new b"


def test_both_hashes_agree(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")

    assert sha256_of_file(tmp_path / "f") == sha256_of(b"abc")
    assert sha256_of(b"abc").startswith("ba7816bf")
