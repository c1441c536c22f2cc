"""Progress of long steps: the library reports, the command line draws."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(step, done, total)`: called with done = 0 at the start and done = total at the end."""


def silent(step: str, done: int, total: int) -> None:
    """Report nothing: the default of library calls."""
    del step, done, total
