"""Ctrl-C while a net learns: the step is finished, then the run is saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether somebody asked the run to stop. A second Ctrl-C no longer asks."""

    def __init__(self) -> None:
        self.asked = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Take the signal; the second one interrupts at once.

        Raises:
            KeyboardInterrupt: it was asked before.
        """
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request for the time of the block."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals arrive in the main thread only
        return
    before = {number: signal.signal(number, request.note) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
