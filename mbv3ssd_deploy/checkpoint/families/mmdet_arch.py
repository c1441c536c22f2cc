"""Which MobileNetV3 a mmdetection file holds: read from its keys and shapes alone.

mmclassification and mmdetection changed their MobileNetV3 several times under nearly the same keys
(`nets/layouts.py`, the rows `mmdet*`); each of these differences shows in a shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, Tap, TapPlace
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.nets.layouts import LAST_CONV_FACTOR, MMDET_LAYOUTS, BlockRow, Layout
from mbv3ssd_deploy.nets.plan import Part, plan_net

CLASS_STEM = "backbone.conv1"
"""What early mmclassification calls the stem; later it is layer0."""
FIRST_NORM = "neck.l2_norm.weight"
FIRST_EXPANSION = "backbone.layer1.expand_conv.conv.weight"
EXTRA_LEVELS = 4
DEPTHWISE = "backbone.layer{}.depthwise_conv.conv.weight"
GATE = "backbone.layer{}.se.conv1.conv.weight"
PROJECTION = "backbone.layer{}.linear_conv.conv.weight"
FIRST_MAP, SECOND_MAP = (f"bbox_head.cls_convs.{level}.0.conv.weight" for level in (0, 1))


def extra_key(level: int, part: int) -> str:
    """Return the ConvModule of an extra level: 0 the 1x1, 1 the depthwise, 2 the second 1x1."""
    module = ("0", "1.depthwise_conv", "1.pointwise_conv")[part]
    return f"neck.extra_layers.{level}.{module}"


def arch_from_shapes(contents: RawCheckpoint) -> tuple[ArchSpec, tuple[str, ...]]:
    """Return the architecture that keys and shapes tell, with the evidence.

    Raises:
        CheckpointError: a telling tensor is missing, or the shapes are those of no known network.
    """
    numbers = _block_numbers(contents)
    expansions = contents.channels(*map(DEPTHWISE.format, numbers))
    outputs = contents.channels(*map(PROJECTION.format, numbers))
    first, second, *extras = contents.channels(
        FIRST_MAP, SECOND_MAP, *(f"{extra_key(n, 2)}.conv.weight" for n in range(EXTRA_LEVELS))
    )
    layout, backbone, reduced = _row(contents, expansions, outputs)
    rows = layout.tables[backbone, reduced]
    arch = ArchSpec(
        layout=layout.name,
        backbone=backbone,
        width_mult=1.0,
        reduced_tail=reduced,
        taps=(_first_tap(rows, first), _second_tap(rows, second)),
        extras=tuple(extras),
    )
    tail = "halved" if reduced else "full"
    network = f"MobileNetV3-{backbone.capitalize()}, the {tail} tail, wired as {layout.name}"
    reads = (
        f"the first head reads the {first} channels of {_in_words(arch.taps[0])}, the second the "
        f"{second} of {_in_words(arch.taps[1])}"
    )
    return arch, (f"{len(numbers)} blocks of the widths of {network}", reads)


def _block_numbers(contents: RawCheckpoint) -> list[int]:
    pattern = re.compile(r"backbone\.layer(\d+)\.depthwise_conv\.conv\.weight")
    return sorted(int(m[1]) for key in contents.tensors if (m := pattern.fullmatch(key)))


def _row(
    contents: RawCheckpoint, expansions: Sequence[int], outputs: Sequence[int]
) -> tuple[Layout, Backbone, bool]:
    """Return the layout whose blocks, gates and first expansion have these widths."""
    expands = FIRST_EXPANSION in contents.tensors
    normalises = FIRST_NORM in contents.tensors
    widths = list(zip(expansions, outputs, strict=True))
    for layout in MMDET_LAYOUTS:
        if layout.head.normalises_first is not normalises:
            continue
        for (backbone, reduced), rows in layout.tables.items():
            always = layout.block.always_expands or rows[0].expansion != rows[0].out
            same = widths == [(row.expansion, row.out) for row in rows] and always is expands
            if same and _gates_fit(contents, layout, backbone, reduced=reduced):
                return layout, backbone, reduced
    raise CheckpointError(
        "the blocks are those of no MobileNetV3 that mmdetection or mmclassification has: their "
        f"expansions are {', '.join(map(str, expansions))}",
        hint="a network that was changed needs a family file of its own: docs/adding.md",
    )


def _gates_fit(
    contents: RawCheckpoint, layout: Layout, backbone: Backbone, *, reduced: bool
) -> bool:
    blocks = plan_net(
        ArchSpec(layout.name, backbone, 1.0, reduced, (Tap(1, TapPlace.OUTPUT),), ())
    ).blocks
    shapes = contents.shapes
    return all(
        shapes.get(GATE.format(number), (block.squeeze_hidden,))[0] == block.squeeze_hidden
        for number, block in enumerate(blocks, start=1)
        if Part.SQUEEZE in block.parts
    )


def _first_tap(rows: Sequence[BlockRow], channels: int) -> Tap:
    """Return the last feature of stride 16 with as many channels as the first head reads.

    Raises:
        CheckpointError: there is none.
    """
    last, before = [n for n, row in enumerate(rows, start=1) if row.stride == 2][:-3:-1]
    if rows[last - 1].expansion == channels:
        return Tap(last, TapPlace.EXPANSION)
    found = [n for n in range(before, last) if rows[n - 1].out == channels]
    if not found:
        raise CheckpointError(
            f"{FIRST_MAP} reads {channels} channels, and no block of stride 16 has as many"
        )
    return Tap(found[-1], TapPlace.OUTPUT)


def _second_tap(rows: Sequence[BlockRow], channels: int) -> Tap:
    """Return the last convolution, or the last block of as many channels.

    Raises:
        CheckpointError: neither has.
    """
    widths = (rows[-1].out, LAST_CONV_FACTOR * rows[-1].out)
    if channels not in widths:
        raise CheckpointError(
            f"{SECOND_MAP} reads {channels} channels; the last block has {widths[0]}, the last "
            f"convolution {widths[1]}"
        )
    return Tap(len(rows) + widths.index(channels), TapPlace.OUTPUT)


def _in_words(tap: Tap) -> str:
    inside = "the expansion in " if tap.place is TapPlace.EXPANSION else ""
    return f"{inside}layer{tap.feature}"
