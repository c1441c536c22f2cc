"""Writes the pages that are made from the code: `make docs`. A test fails when one is stale."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.checkpoint.backbones.page import render_backbone_page
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import COMMON_PARAMS, LAYERS
from mbv3ssd_deploy.ncnn_graph.schema import LayerSchema, Same, WeightField, When

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


_LAYERS_HEAD = """\
# ncnn layers that we read and write

Made from `mbv3ssd_deploy/ncnn_graph/layers.py` by `make docs`; change it there.

The spelling of parameters is described in [ncnn-param.md](ncnn-param.md), the layout of weights in
[ncnn-bin.md](ncnn-bin.md). A default that is a name is the value of that parameter. Weights are
listed in the order of the `.bin` file; a *flagged* one begins with a word that gives its storage, a
*raw* one is bare float32. "always written" marks the layers whose every parameter we write, because
their defaults surprise.

Every layer also takes `shape_hints` (30, ints: the shapes of its outputs, for tools) and `featmask`
(31, int: what the runtime may not do in this layer. 1 no fp16 arithmetic, 2 no fp16 storage,
4 no bf16 storage, 8 no int8, 16 no Vulkan, 32 no sgemm, 64 no Winograd, 128 one thread).
"""


def layer_page() -> str:
    """Return docs/formats/ncnn-layers.md: the layer table for people."""
    return "\n".join((_LAYERS_HEAD, *(_layer_section(schema) for schema in LAYERS.values())))


def _layer_section(schema: LayerSchema) -> str:
    note = "; always written" if schema.explicit else ""
    lines = [
        f"## {schema.type}",
        "",
        f"Blobs in: {schema.inputs}. Out: {schema.outputs}{note}.",
        "",
    ]
    fields = [field for field in schema.fields if field.name not in COMMON_PARAMS]
    if fields:
        lines += ["| id | parameter | holds | default |", "|---|---|---|---|"]
        lines += [
            f"| {field.id} | `{field.name}` | {field.kind} | {_default_text(field.default)} |"
            for field in fields
        ]
        lines.append("")
    if schema.weights:
        lines += ["| weight | | numbers | present when |", "|---|---|---|---|"]
        lines += [_weight_row(weight) for weight in schema.weights]
        lines.append("")
    return "\n".join(lines)


def _default_text(default: Param | Same) -> str:
    if isinstance(default, Same):
        return f"`{default.name}`"
    if isinstance(default, tuple):
        return "none"
    return str(default) if isinstance(default, int) else f"{default:.9g}"


def _weight_row(weight: WeightField) -> str:
    place = "flagged" if weight.flagged else "raw"
    count = " * ".join(f"`{name}`" for name in weight.factors) or "1"
    if weight.zero_is_one:
        count += " (a 0 counts as 1)"
    present = ", ".join(map(_condition, weight.when)) or "always"
    return f"| {weight.role} | {place} | {count} | {present} |"


def _condition(when: When) -> str:
    if not when.values:
        return f"`{when.name}` is not 0"
    return f"`{when.name}` is {' or '.join(map(str, when.values))}"


PAGES = {
    "cli.md": cli_page,
    "backbones.md": render_backbone_page,
    "formats/ncnn-layers.md": layer_page,
}


def main() -> None:
    """Write every generated page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
        click.echo(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
