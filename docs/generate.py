"""Writes the pages that are made from the code: `make docs`. A test fails when one is stale."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.checkpoint.backbones.page import render_backbone_page
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.ncnn_graph.layer_page import render_layer_page

DOCS = Path(__file__).parent

_CLI_HEAD = """# The command line

Made from the commands' own `--help` by `make docs`; do not edit.

Results go to standard output, out and progress to standard error. `--json` prints one JSON value
and nothing else; `-q` prints nothing but errors; `-v` says more.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | checks ran and failed |
| 2 | wrong usage |
| 3 | the input cannot be handled: unknown checkpoint, unsupported operator, broken file, no space |
| 4 | a dependency or a device that was asked for is missing |
| 5 | an unsafe checkpoint was refused; nothing in it was run |
| 70 | a bug of ours; please report it |
| 130 | interrupted; nothing is left half-written |
"""


def cli_page() -> str:
    """Return docs/cli.md: every command's help, as the user sees it."""
    width = {"terminal_width": 88, "max_content_width": 88}
    root = click.Context(cli, info_name="mbv3ssd-deploy", **cli.context_settings, **width)
    parts = [_CLI_HEAD, _section("mbv3ssd-deploy", cli.get_help(root))]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name) or cli
        inner = click.Context(command, info_name=name, parent=root, **width)
        parts.append(_section(f"mbv3ssd-deploy {name}", command.get_help(inner)))
    return "\n".join(parts)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text}\n```\n"


PAGES = {
    "cli.md": cli_page,
    "backbones.md": render_backbone_page,
    "formats/ncnn-layers.md": render_layer_page,
}


def main() -> None:
    """Write every generated page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
        click.echo(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
