"""The command line: each command parses its options, calls the library and prints the result."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from mbv3ssd_deploy.errors import DeployError, OutputError
from mbv3ssd_deploy.io.interrupts import install_interrupt_handler, was_interrupted

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
_INTERRUPTED = "interrupted; nothing is left half-written"

# In the order of use; each module holds one click command called `command`.
COMMANDS: Mapping[str, str] = {
    "train": "mbv3ssd_deploy.cli.train",
    "train-backbone": "mbv3ssd_deploy.cli.train_backbone",
    "export": "mbv3ssd_deploy.cli.export",
    "to-ncnn": "mbv3ssd_deploy.cli.to_ncnn",
    "verify": "mbv3ssd_deploy.cli.verify",
    "convert": "mbv3ssd_deploy.cli.convert",
    "inspect": "mbv3ssd_deploy.cli.inspect",
    "eval": "mbv3ssd_deploy.cli.eval",
    "detect": "mbv3ssd_deploy.cli.detect",
    "bench": "mbv3ssd_deploy.cli.bench",
    "contract": "mbv3ssd_deploy.cli.contract",
    "package": "mbv3ssd_deploy.cli.package",
    "demo": "mbv3ssd_deploy.cli.demo",
    "env": "mbv3ssd_deploy.cli.env",
}


class Commands(click.Group):
    """Commands whose errors become a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's own signature
        """Run the command; print an error instead of a traceback, without --debug."""
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # click's own; it prints them itself
        except BrokenPipeError:
            # the reader of our output has closed the pipe (`| head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except KeyboardInterrupt:
            _stop(ctx, _INTERRUPTED, EXIT_INTERRUPTED)
        except DeployError as error:
            _stop(ctx, str(error), error.exit_code)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            reason = error.strerror or str(error)
            _stop(ctx, f"{place}{reason}; nothing is left half-written", OutputError.exit_code)
        except Exception as error:  # noqa: BLE001 -- a traceback never reaches a user
            _stop(
                ctx,
                f"this is a bug in mbv3ssd-deploy: {type(error).__name__}: {error}\n"
                "  hint: run `mbv3ssd-deploy --debug ...` and report what it prints, "
                "with the output of `mbv3ssd-deploy env`",
                EXIT_BUG,
            )


class _LazyCommands(Commands):
    """The commands of `COMMANDS`, each imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No such command {args[0]!r}.{_suggestion(args[0])}", ctx)
        return super().resolve_command(ctx, args)


def _stop(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    if was_interrupted():  # a package may have raised another error instead
        message, exit_code = _INTERRUPTED, EXIT_INTERRUPTED
    click.echo(f"Error: {message}", err=True)
    ctx.exit(exit_code)


def _suggestion(word: str) -> str:
    import difflib

    close = difflib.get_close_matches(word, COMMANDS, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from mbv3ssd_deploy import __version__

    click.echo(f"mbv3ssd-deploy {__version__}")
    ctx.exit()


@click.group(cls=_LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks instead of messages.")
def cli(debug: bool) -> None:
    """Deploy a MobileNetV3-SSD checkpoint to a phone or a small board, verified at every step.

    \b
        mbv3ssd-deploy export model.pth
        mbv3ssd-deploy to-ncnn
        mbv3ssd-deploy verify --images photos/

    Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 the input cannot be handled,
    4 a package or device is missing, 5 an unsafe checkpoint was refused, 70 a bug in
    mbv3ssd-deploy, 130 interrupted.
    """
    del debug  # read from the context by Commands.invoke


def main() -> None:
    """Run the command line (entry point of the console script)."""
    install_interrupt_handler()
    cli(prog_name="mbv3ssd-deploy")
