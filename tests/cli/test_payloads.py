"""A checkpoint that would run code is refused by every command that takes one: nothing is run."""

import copyreg
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from dataset_files import VocFolder, voc_object
from payloads import CALLS, EXTENSIONS, checkpoint, text

from mbv3ssd_deploy.cli.main import cli

COMMANDS = {
    "inspect": "inspect w.pth",
    "inspect --write-spec": "inspect w.pth --write-spec spec.json",
    "export": "export w.pth -o out",
    "convert": "convert w.pth --images photos/JPEGImages -o out",
    "eval": "eval w.pth --data voc:photos --split train",
    "train --backbone": "train --data voc:photos --val-data voc:photos --val-split train "
    "--backbone w.pth -o out --batch 2",
    "train --pretrained": "train --data voc:photos --val-data voc:photos --val-split train "
    "--pretrained w.pth -o out --batch 2",
    "train --resume": "train --resume w.pth -o out",
    "train-backbone --resume": "train-backbone --resume w.pth -o out",
}


@dataclass(frozen=True)
class Folder:
    path: Path
    mark: Path

    def refused(self, command, code, *, legacy):
        """Give `command` a checkpoint with the payload `code`; return what it said."""
        code = code.replace(b"%b", text(f"touch '{self.mark}'"))
        checkpoint(self.path, code, legacy=legacy)
        before = sorted(self.path.rglob("*"))
        result = CliRunner().invoke(cli, command.split())
        assert not self.mark.exists()
        assert result.exit_code == 5, result.output
        assert "Traceback" not in result.output
        assert "w.pth" in result.stderr
        assert "nothing was run" in result.stderr
        assert sorted(self.path.rglob("*")) == before  # and nothing was written
        return result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    photos = VocFolder(tmp_path / "photos")
    for stem in ("a", "b"):
        photos.add(stem, voc_object("cat", (5, 5, 40, 40)))
    photos.list("train", "a", "b")
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, tmp_path / "it ran")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_runs_what_a_checkpoint_calls(folder, command, legacy):
    for code, names in CALLS.values():
        assert f"would run {names};" in folder.refused(command, code, legacy=legacy)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_runs_what_copyreg_knows(folder, command):
    number, opcode = next(iter(EXTENSIONS.items()))
    copyreg.add_extension("os", "system", number)
    try:
        said = folder.refused(command, opcode + b"%b\x85R", legacy=False)
    finally:
        copyreg.remove_extension("os", "system", number)

    assert f"extension {number} of copyreg" in said
