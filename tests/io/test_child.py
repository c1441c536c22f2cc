"""Child processes: how they end is told, and none outlives the wait."""

import os
import sys

import pytest

from mbv3ssd_deploy.io.child import run_child, script_command


def run(code, timeout_s=60.0, on_line=None):
    return run_child((sys.executable, "-c", code), timeout_s=timeout_s, on_line=on_line)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_lines_arrive_one_by_one_and_stderr_is_kept():
    heard = []

    result = run(
        "import sys; print('one'); print('two'); sys.stderr.write('noise\\n\\nlast\\n\\n')",
        on_line=heard.append,
    )

    assert heard == ["one", "two"]
    assert result.lines == ("one", "two")
    assert result.returncode == 0
    assert result.last_line == "last"


def test_an_exit_code_is_told():
    result = run("raise SystemExit(3)")

    assert result.ending == "exited with code 3"
    assert result.last_line == ""


def test_a_deadly_signal_is_told_by_name():
    result = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

    assert result.returncode < 0
    assert result.ending == "died of SIGSEGV"


def test_a_hanging_child_is_stopped():
    result = run("import time; print('here', flush=True); time.sleep(600)", timeout_s=1.0)

    assert result.timed_out
    assert "was stopped after" in result.ending
    assert result.lines == ("here",)


def test_much_noise_on_stderr_does_not_block():
    result = run("import sys; sys.stderr.write('x' * 1_000_000); print('end')")

    assert result.lines == ("end",)
    assert len(result.stderr) == 1_000_000


def test_an_interrupt_ends_the_child():
    pids = []

    def interrupted(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("import os, time; print(os.getpid(), flush=True); time.sleep(600)", on_line=interrupted)

    assert not is_alive(pids[0])


def test_a_script_does_not_see_its_own_folder_or_ours(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.path[0])")
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)

    result = run_child(script_command(str(script)), timeout_s=60)

    assert result.lines[0] not in {"", str(tmp_path)}


def test_a_missing_program_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_child((str(tmp_path / "nothing"),), timeout_s=1)
