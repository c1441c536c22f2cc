"""Steps that run in a child process, because they may crash, hang or print at will.

A child stays in our process group, so Ctrl-C in a terminal reaches it as well; whatever ends the
wait early (a time limit, an interrupt) kills it before the caller continues.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LENGTHS = struct.Struct("<II")
_SECONDS_TO_END = 1.0


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a child ended, and what it printed.

    Attributes:
        returncode: its exit code; -n if signal n ended it.
        timed_out: whether it was killed at its time limit.
        lines: its stdout.
        stderr: everything that it, and the native code in it, wrote there.
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
        return _ending(self.returncode, self.seconds if self.timed_out else None)

    @property
    def last_line(self) -> str:
        """The last line of stderr that is not blank; empty if there is none."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def script_command(script: str, *, python: str = sys.executable) -> tuple[str, ...]:
    """Return the command that runs the file `script` as a child.

    The file runs by its path, because its interpreter may be in an environment without this
    package. `-P` keeps the folders of the script and of the user off the module search path.
    """
    return (python, "-P", str(Path(script).resolve()))


def run_child(
    command: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
) -> ChildResult:
    """Run `command` to its end, passing each line of its stdout to `on_line` as it arrives.

    Raises:
        OSError: the program cannot be started.
    """
    began = time.perf_counter()
    timed_out = threading.Event()
    lines: list[str] = []
    with (
        tempfile.TemporaryFile() as stderr,  # unlike a pipe, a file never blocks the child
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
        log = stderr.read().decode(errors="replace")
    seconds = time.perf_counter() - began
    return ChildResult(child.returncode, timed_out.is_set(), tuple(lines), log, seconds)


class ChildEndedError(Exception):
    """A server ended before it answered.

    Attributes:
        ending: how, as `ChildResult.ending`.
        stderr: what it printed during the request.
    """

    def __init__(self, ending: str, stderr: str) -> None:
        super().__init__(ending)
        self.ending = ending
        self.stderr = stderr


class Server:
    """A child that answers requests, one after the other, over its stdin and stdout.

    A message is two little-endian uint32 (the length of header and payload), a JSON header and a
    binary payload. The child sends a first message, the greeting, when it is ready, and ends when
    its stdin does.
    """

    def __init__(self, command: Sequence[str], *, timeout_s: float) -> None:
        """Start `command` and wait for its greeting.

        Raises:
            OSError: the program cannot be started.
            ChildEndedError: it ended, or took longer than `timeout_s`, before its greeting.
        """
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `kill`
        self._stderr_from = 0
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        try:
            self._child = subprocess.Popen(command, stderr=self._stderr, **pipes)
        except OSError:
            self._stderr.close()
            raise
        self.greeting, _ = self._exchange(b"", timeout_s)

    @property
    def is_running(self) -> bool:
        """Whether it can take a request."""
        return self._child.poll() is None

    def ask(
        self, header: Mapping[str, object], payload: bytes, *, timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request; return the header and the payload of the answer.

        Raises:
            ChildEndedError: it crashed, or took longer than `timeout_s` and was killed.
        """
        text = json.dumps(header).encode()
        self._stderr_from = os.fstat(self._stderr.fileno()).st_size
        return self._exchange(_LENGTHS.pack(len(text), len(payload)) + text + payload, timeout_s)

    def recent_stderr(self) -> str:
        """Return what it printed to stderr since the last request."""
        self._stderr.seek(self._stderr_from)
        text = self._stderr.read().decode(errors="replace")
        self._stderr.seek(0, os.SEEK_END)  # the child writes through the same file offset
        return text

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()
        self._end()

    def close(self) -> None:
        """Let it end by itself; kill it if it does not within a second."""
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        try:
            self._child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._end()

    def _end(self) -> None:
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _exchange(self, request: bytes, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        began, timed_out = time.perf_counter(), threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._child.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._write(request)
            answer = self._read()
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()
        if answer is None:
            code = self._child.wait()
            seconds = time.perf_counter() - began if timed_out.is_set() else None
            ended = ChildEndedError(_ending(code, seconds), self.recent_stderr())
            self._end()
            raise ended
        return answer

    def _write(self, request: bytes) -> None:
        if self._child.stdin is not None:
            self._child.stdin.write(request)
            self._child.stdin.flush()

    def _read(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message; None if the child has ended."""
        stream = self._child.stdout
        lengths = b"" if stream is None else stream.read(_LENGTHS.size)
        if stream is None or len(lengths) < _LENGTHS.size:
            return None
        header_size, payload_size = _LENGTHS.unpack(lengths)
        header, payload = stream.read(header_size), stream.read(payload_size)
        if len(header) < header_size or len(payload) < payload_size:
            return None
        return json.loads(header), payload


def _ending(code: int, stopped_after_s: float | None) -> str:
    if stopped_after_s is not None:
        return f"was stopped after {stopped_after_s:.0f} s without an answer"
    return f"died of {_signal_name(-code)}" if code < 0 else f"exited with code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
