"""Ctrl-C must stop a command wherever Python happens to be when it arrives."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_PAUSE_S = 0.02


def listen_for_interrupts() -> None:
    """Let every Ctrl-C from now on be remembered, and arrive.

    Python runs signal handlers between any two instructions, those of callbacks and finalisers
    included (the import system has some). An exception cannot leave these: Python prints a
    traceback, "Exception ignored in", and the command goes on as if nobody had asked it to stop.
    `sys.unraisablehook` hears of it; the signal is sent again from another thread, a moment later,
    when the callback is over.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's `&` ignores it
        signal.signal(signal.SIGINT, _Ear())
    sys.unraisablehook = _hear_of_a_lost_exception


def was_interrupted() -> bool:
    """Tell whether Ctrl-C has arrived since `listen_for_interrupts`.

    A package that is interrupted while it is being imported may turn that into an error of its own.
    """
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(handler, _Ear) and handler.heard


class _Ear:
    """Python's own handler of SIGINT, with a memory."""

    def __init__(self) -> None:
        self.heard = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        signal.default_int_handler(number, frame)


def _hear_of_a_lost_exception(lost: UnraisableHookArgs) -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    timer = threading.Timer(_PAUSE_S, _interrupt_main_thread)
    timer.daemon = True
    timer.start()


def _interrupt_main_thread() -> None:
    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, signal.SIGINT)
