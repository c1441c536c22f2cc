"""Signals: every handler that the package installs."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_RESEND_AFTER_S = 0.02


class StopRequest:
    """Whether a signal has asked a run to stop; a second one interrupts at once."""

    def __init__(self) -> None:
        self.is_set = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Record the signal.

        Raises:
            KeyboardInterrupt: this is the second one.
        """
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop, for the duration of the block."""
    request = StopRequest()
    if not _in_main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Delay SIGINT until the block has ended.

    Raises:
        KeyboardInterrupt: at the end of the block, if SIGINT arrived during it.
    """
    if not _in_main_thread():
        yield
        return
    arrived: list[int] = []

    def record(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = signal.signal(signal.SIGINT, record)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived:
        raise KeyboardInterrupt


def install_interrupt_handler() -> None:
    """Record every SIGINT from now on, and make sure that it stops the command.

    Python may run a signal handler inside a callback or finaliser (the import system has some),
    which no exception can leave: Python prints "Exception ignored in" and continues. The
    unraisable hook sends such a lost signal again, from another thread, once the callback is over.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's `&` ignores it
        signal.signal(signal.SIGINT, _RecordingHandler())
    sys.unraisablehook = _resend_lost_interrupt


def was_interrupted() -> bool:
    """Return whether SIGINT has arrived since `install_interrupt_handler`.

    A package that is interrupted while it is being imported may raise an error of its own instead.
    """
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(handler, _RecordingHandler) and handler.called


class _RecordingHandler:
    """Python's default handler of SIGINT; remembers that it was called."""

    def __init__(self) -> None:
        self.called = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.called = True
        signal.default_int_handler(number, frame)


def _resend_lost_interrupt(lost: UnraisableHookArgs) -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    timer = threading.Timer(_RESEND_AFTER_S, _interrupt_main_thread)
    timer.daemon = True
    timer.start()


def _interrupt_main_thread() -> None:
    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, signal.SIGINT)


def _in_main_thread() -> bool:
    """Only the main thread receives signals and may install handlers."""
    return threading.current_thread() is threading.main_thread()
