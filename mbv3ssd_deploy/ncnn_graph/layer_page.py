"""The layer table as a page for people: docs/formats/ncnn-layers.md."""

from __future__ import annotations

from typing import Final

from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.layers import COMMON_PARAMS, LAYERS
from mbv3ssd_deploy.ncnn_graph.schema import LayerSchema, Same, WeightField, When

_INTRODUCTION: Final = """\
# ncnn layers that we read and write

Made from `mbv3ssd_deploy/ncnn_graph/layers.py` by `make docs`; change it there.

How a parameter is spelt stands in [ncnn-param.md](ncnn-param.md), how a weight lies in the file in
[ncnn-bin.md](ncnn-bin.md). A default that is a name is the value of that parameter. Weights stand
in the order of the `.bin` file; a *flagged* one begins with a word that tells its storage, a *raw*
one is bare float32. "always written" marks the layers whose every parameter we write, because
their defaults surprise.

Every layer also takes `shape_hints` (30, ints: the shapes of its outputs, for tools) and `featmask`
(31, int: what the runtime may not do in this layer. 1 no fp16 arithmetic, 2 no fp16 storage,
4 no bf16 storage, 8 no int8, 16 no Vulkan, 32 no sgemm, 64 no Winograd, 128 one thread).
"""


def render_layer_page() -> str:
    """Return the page as Markdown."""
    return "\n".join((_INTRODUCTION, *(_section(schema) for schema in LAYERS.values())))


def _section(schema: LayerSchema) -> str:
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
            f"| {field.id} | `{field.name}` | {field.kind} | {_default(field.default)} |"
            for field in fields
        ]
        lines.append("")
    if schema.weights:
        lines += ["| weight | | numbers | present when |", "|---|---|---|---|"]
        lines += [_weight_row(weight) for weight in schema.weights]
        lines.append("")
    return "\n".join(lines)


def _default(default: Param | Same) -> str:
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
