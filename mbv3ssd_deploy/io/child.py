"""Running one step in a child process, because it may crash, hang or leave noise behind.

The child stays in our process group, so that Ctrl-C in a terminal reaches it as well; whatever ends
the wait early (a time limit, an interrupt) kills it before the caller goes on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a child ended, and what it said.

    Attributes:
        returncode: its exit code; -n where signal n ended it.
        timed_out: whether it was killed because its time was up.
        lines: its stdout.
        stderr: everything it, and the native code in it, wrote there.
        seconds: wall time from start to end.
    """

    returncode: int
    timed_out: bool
    lines: tuple[str, ...]
    stderr: str
    seconds: float

    @property
    def ending(self) -> str:
        """How it ended, to follow a subject: "died of SIGSEGV", "exited with code 3"."""
        if self.timed_out:
            return f"was stopped after {self.seconds:.0f} s without an answer"
        if self.returncode < 0:
            return f"died of {_signal_name(-self.returncode)}"
        return f"exited with code {self.returncode}"

    @property
    def last_words(self) -> str:
        """The last line of stderr that says anything; empty where there is none."""
        said = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return said[-1] if said else ""


def script_command(script: str, *, python: str = sys.executable) -> tuple[str, ...]:
    """Return the command that runs the file `script` as a child.

    The file runs by its path: its interpreter may lie in another environment that lacks this
    package. `-P` keeps the folders of the script and of the user off the module search path.
    """
    return (python, "-P", str(Path(script).resolve()))


def run_child(
    command: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
) -> ChildResult:
    """Run `command` to its end, handing each line of its stdout to `on_line` as it comes.

    Raises:
        OSError: the program cannot be started.
    """
    began = time.perf_counter()
    timed_out = threading.Event()
    lines: list[str] = []
    with (
        tempfile.TemporaryFile() as stderr,  # a file never fills up, so nobody waits for a reader
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
        ) as child,
    ):

        def give_up() -> None:
            timed_out.set()
            child.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            for line in child.stdout or ():
                lines.append(line.rstrip("\n"))
                if on_line is not None:
                    on_line(lines[-1])
            child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")
    seconds = time.perf_counter() - began
    return ChildResult(child.returncode, timed_out.is_set(), tuple(lines), said, seconds)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
