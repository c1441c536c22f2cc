"""What commands print: results on stdout, notes and progress on stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mbv3ssd_deploy.io.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command prints, by the options -v, -q and --json.

    `verbosity` is -1 with -q, 0, or 1 with -v; `as_json` prints one JSON object and nothing else.
    """

    verbosity: int
    as_json: bool

    def note(self, text: str) -> None:
        """Print something that a user should know, on stderr."""
        if self.verbosity >= 0:
            click.echo(text, err=True)

    def detail(self, text: str) -> None:
        """Print a detail on stderr; with -v only."""
        if self.verbosity > 0:
            click.echo(text, err=True)

    def result(self, text: str) -> None:
        """Print a line of the result on stdout; not with --json."""
        if self.verbosity >= 0 and not self.as_json:
            click.echo(text)

    def json(self, value: Any) -> None:  # noqa: ANN401 -- any JSON value
        """Print the result as JSON on stdout; with --json only."""
        if self.as_json:
            click.echo(json.dumps(value, indent=1, ensure_ascii=False))

    def json_line(self, value: Any) -> None:  # noqa: ANN401 -- any JSON value
        """Print one of many results as a line of JSON on stdout; with --json only."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False))

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table: as wide as the terminal, or up to 200 columns elsewhere."""
        if self.verbosity < 0 or self.as_json or not rows:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        width = None if sys.stdout.isatty() else 200
        console = Console(file=sys.stdout, width=width, highlight=False)
        if title:
            console.print(Text(title, style="bold"), soft_wrap=True)
        with console.capture() as captured:
            console.print(table)
        lines = captured.get().splitlines()
        click.echo("\n".join(line.rstrip() for line in lines))

    def written(self, paths: Sequence[Path]) -> None:
        """Print the names and sizes of the files that a command wrote."""
        for path in paths:
            self.result(f"wrote {path}  ({size_format(path.stat().st_size)})")

    def next_step(self, *words: str | Path) -> None:
        """Print the command to run next, quoted for a shell."""
        import shlex

        self.result("next: mbv3ssd-deploy " + shlex.join(map(str, words)))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yield a progress callback; on a terminal it draws bars with an ETA on stderr."""
        if self.verbosity < 0 or not sys.stderr.isatty():
            from mbv3ssd_deploy.io.progress import silent

            yield silent
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def advance(step: str, done: int, total: int) -> None:
                if step not in tasks:
                    tasks[step] = bars.add_task(step, total=total)
                bars.update(tasks[step], completed=done, total=total)

            yield advance


_STYLES = {
    "PASS": "green",
    "FAIL": "bold red",
    "SKIPPED": "yellow",
    "UNPROVEN": "bold yellow",
    "INFO": "cyan",
}


def size_format(size: int) -> str:
    """Return a size in bytes as text: 640 bytes, 12.30 kB or 6.23 MB."""
    for unit, scale in (("MB", 1_000_000), ("kB", 1_000)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} bytes"


def output_options(function: Command) -> Command:
    """Add the options -v, -q and --json to a command, which gets them as its argument `out`."""

    @click.option("-v", "--verbose", is_flag=True, help="Print more detail.")
    @click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @functools.wraps(function)
    def wrapper(*args: Any, verbose: bool, quiet: bool, as_json: bool, **kwargs: Any) -> Any:  # noqa: ANN401
        if verbose and quiet:
            raise click.UsageError("-v and -q contradict each other")
        verbosity = 1 if verbose else -1 if quiet else 0
        return function(*args, out=Output(verbosity, as_json), **kwargs)

    return wrapper  # type: ignore[return-value]


def named(bundle: Path) -> tuple[Path, ...]:
    """Return the argument that names `bundle` in the next command; empty for the default."""
    return () if str(bundle) == "deploy" else (bundle,)


def command_line() -> str:
    """Return the command line as typed, quoted for a shell."""
    import shlex

    return shlex.join(["mbv3ssd-deploy", *sys.argv[1:]])
