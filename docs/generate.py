"""Writes the pages that are made from the code: `make docs`. A test fails when one is stale."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.checkpoint.backbones.families import BACKBONES, BackboneFamily
from mbv3ssd_deploy.checkpoint.backbones.source import fed_layouts, network_of_family
from mbv3ssd_deploy.cli.main import cli
from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import COMMON_PARAMS, LAYERS
from mbv3ssd_deploy.ncnn_graph.schema import LayerSchema, Same, WeightField, When

DOCS = Path(__file__).parent

_CLI_HEAD = """# The command line

Made from the commands' own `--help` by `make docs`; do not edit.

Results go to standard output, notes and progress to standard error. `--json` prints one JSON value
and nothing else, `-q` errors only, `-v` more detail.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a check failed |
| 2 | wrong usage |
| 3 | the input cannot be handled: unknown checkpoint, unsupported operator, broken file, no space |
| 4 | a package or device is missing |
| 5 | an unsafe checkpoint was refused; nothing in it was run |
| 70 | a bug in mbv3ssd-deploy; please report it |
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
their defaults are unexpected.

Every layer also takes `shape_hints` (30, ints: the shapes of its outputs, for tools) and `featmask`
(31, int: what the runtime may not do in this layer. 1 no fp16 arithmetic, 2 no fp16 storage,
4 no bf16 storage, 8 no int8, 16 no Vulkan, 32 no sgemm, 64 no Winograd, 128 one thread).
"""


def layer_page() -> str:
    """Return docs/formats/ncnn-layers.md."""
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


_BACKBONES_HEAD = """# Backbone weights

Made from the table of the backbone families by `make docs`; do not edit.

Training works better from a pretrained backbone. `load_backbone` reads public classification
weights, the result of our own `train-backbone`, and the backbone of any detector that this
version loads. It loads every tensor of the backbone or refuses the file with the reason, never a
part. Shapes alone are not enough, because different networks share them (gates with and without
pooling, for example).

`inspect FILE` shows what a file is and which detectors can start from it.

## Which backbone fits which detector

A detector is named by its layout (a row of `nets/layouts.py`). The layout `torchvision` is that of
`native` detectors too; `ujsyehao` and `compact` have the same backbone.

| family | files | Large fits exactly | Small fits exactly |
|---|---|---|---|
"""
_TAIL = """
A detector's backbone fits every detector with the same backbone, whatever its classes, priors and
heads, and a result of `train-backbone` fits those of its own layout. The widths must be the same;
no weights are cropped or resized. jungin500's files of width 0.5 narrow other parts than a
detector of that width does, and fit none; d-li14's of 0.75 were not available, so only their
shapes are compared.

## What is taken

Everything except the classifier: a detector does not use the pooling and dense layers after the
backbone. `train-backbone` loads the classifier too if it is equivalent to ours (torchvision's,
timm's, d-li14's and our own) and has the same number of classes; otherwise it is dropped. Every
dropped key is listed with its reason.

tongyuhome's classifier holds two backbones. Its forward runs and trains `init_conv`, `block`,
`out_conv1` and `out_conv2`; its SSD reads `features`, which keep their random values. We take the
trained one.

**BatchNorm's eps.** timm adds 1e-5 to the variance, the layout `torchvision` 1e-3. A BatchNorm is
`factor * (x - mean) / sqrt(variance + eps) + bias`, so the factor times
`sqrt((variance + 1e-3) / (variance + 1e-5))` makes the results equal. Shifting the variance by the
difference would be exact too, but makes small variances negative, and is lost as soon as training
updates the variance.

**The input.** These backbones were trained on inputs scaled as in the table below; a detector
keeps the scale of its own spec. That is not an error: the BatchNorms adapt to the new scale.

## Facts

| family | BatchNorm eps | trained on | remarks |
|---|---|---|---|
"""
_FOOT = """
Verified: on the weights of 19 recorded files (`tests/data/backbones.npz`) each such network
computes the outputs of the original code within 1e-5 (of numbers up to 5; equal to the last bit
for torchvision's and jungin500's), and the pairs that are not in the table are refused. For
`mmdet` and `mmdet_l2norm` that means torchvision's and timm's numbers in our network of that
layout; mmdetection itself was not run. Published files were not available, and trained weights
were not tested.
"""


def backbone_page() -> str:
    """Return docs/backbones.md."""
    fed, facts = "".join(map(_fed_row, BACKBONES)), "".join(map(_fact_row, BACKBONES))
    return _BACKBONES_HEAD + fed + _TAIL + facts + _FOOT


def _fed_row(family: BackboneFamily) -> str:
    cells = " | ".join(_fed_cell(family, backbone) for backbone in Backbone)
    return f"| `{family.name}` | {family.title} | {cells} |\n"


def _fed_cell(family: BackboneFamily, backbone: Backbone) -> str:
    if backbone not in {*family.layouts, *family.why_not}:
        return "none"
    network = network_of_family(family, backbone)
    layouts = ", ".join(f"`{name}`" for name in fed_layouts(network))
    return layouts or f"no detector: {network.why_not}"


def _fact_row(family: BackboneFamily) -> str:
    notes = "; ".join(family.notes)
    return f"| `{family.name}` | {family.bn_eps:g} | {family.trained_on} | {notes} |\n"


PAGES = {
    "cli.md": cli_page,
    "backbones.md": backbone_page,
    "formats/ncnn-layers.md": layer_page,
}


def main() -> None:
    """Write every generated page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
        click.echo(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
