"""mmdetection 2.x and 3.x: SSDNeck and SSDHead with `use_depthwise`, on a MobileNetV3 at 320 x 320.

Facts from mmdetection's `ssd_head.py`, `ssd_neck.py` and `anchor_generator.py`, its configuration
`ssdlite_mobilenetv2_scratch_600e_coco.py` (neck, heads, priors, input, test settings), and its
MobileNetV3 with the configuration for it (724845a), which no release has; and mmclassification's
`mobilenet_v3.py`, which a configuration can name as `mmcls.MobileNetV3`. No published weights are
known, and nothing here was run against the original.

Priors (`SSDAnchorGenerator` with `min_sizes` and `max_sizes`): cell centres at (i + 0.5) * stride;
in each cell the squares min and sqrt(min * max), then for each ratio a wide and a tall box of the
area of min; nothing is rounded or clipped. The coder (`DeltaXYWHBBoxCoder`) limits log sizes to
+-ln(1000 / 16) and clips boxes to the image. The background is the LAST class (`SSDHead`, class
index num_classes); its channel is moved to the front when a file is loaded.

mmclassification and mmdetection changed their MobileNetV3 several times under nearly the same keys
(`nets/layouts.py`, the rows `mmdet*`); each of these differences shows in a shape.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import torch

from mbv3ssd_deploy.checkpoint.families.family import (
    RATIOS,
    SSD_DECODE,
    Draft,
    Family,
    HeadKeys,
    Preset,
    PriorTable,
    Signature,
    SpecRequest,
    preset_draft,
    read_heads,
    rgb_input,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import HOOKS_COPY, RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    BoxCoder,
    ClipRule,
    DetectorSpec,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.nets.layouts import LAST_CONV_FACTOR, MMDET_LAYOUTS, BlockRow, Layout
from mbv3ssd_deploy.nets.plan import BlockNames, Part, name_modules, plan_net

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
    """Return the architecture that keys and shapes decide, with the evidence.

    Raises:
        CheckpointError: a tensor is missing, or the shapes are those of no known network.
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
        if layout.normalises_first is not normalises:
            continue
        for (backbone, reduced), rows in layout.tables.items():
            always = layout.always_expands or rows[0].expansion != rows[0].out
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


_MAX_LOG_SIZE = math.log(1000 / 16)
_PRIORS = PriorTable(
    size=320,
    boxes=((48, 100), (100, 150), (150, 202), (202, 253), (253, 304), (304, 320)),
    steps=(16, 32, 64, 107, 160, 320),
    clip=ClipRule.NONE,
)
_HEADS = tuple(
    HeadKeys(f"bbox_head.cls_convs.{level}.1.weight", f"bbox_head.reg_convs.{level}.1.weight")
    for level in range(6)
)
_FOUR_BOXES = 4
UNPROVEN = (
    "the mmdet family was built from mmdetection's documented layout and never run against the "
    "original: compare a few images with mmdetection before you rely on it"
)
EXCHANGED = (
    "two copies of the weights are here: mmdetection's EMA hook keeps the averaged ones under the "
    "plain keys when it saves, and those were taken"
)
# Parts of a ConvModule and of ours.
ITEMS = (("conv", "0"), ("bn", "1"))


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    ratios = tuple(
        RATIOS[:2] if head.boxes_per_cell == _FOUR_BOXES else RATIOS
        for head in read_heads(contents, _HEADS)
    )
    arch, evidence = arch_from_shapes(contents)
    copies = any(key.startswith(HOOKS_COPY) for key in contents.tensors)
    preset = Preset(
        family="mmdet",
        name=f"ssdlite_mobilenetv3_{arch.backbone}",
        arch=arch,
        input=rgb_input(320, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        priors=dataclasses.replace(_PRIORS, ratios=ratios),
        coder=BoxCoder(0.1, 0.2, max_log_size=_MAX_LOG_SIZE, min_log_size=-_MAX_LOG_SIZE),
        # batched_nms shifts the classes apart and the boxes are clipped before: one NMS per class
        decode=dataclasses.replace(
            SSD_DECODE, score_threshold=0.02, clip_before_nms=True, order=ResultOrder.SCORE
        ),
        heads=_HEADS,
        names_in_file=True,
        notices=(UNPROVEN, EXCHANGED) if copies else (UNPROVEN,),
    )
    last = "the background is the last class of the file; its channels were moved to the front"
    return preset_draft(preset, contents, request, (*evidence, last))


def _keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = [
        *_conv_module("backbone.layer0", names.stem),
        *_conv_module(CLASS_STEM, names.stem),
        *(rule for n, b in enumerate(names.blocks, 1) for rule in _block(f"backbone.layer{n}", b)),
    ]
    last = f"backbone.layer{len(names.blocks) + 1}"
    if names.last is None:
        rules.append(KeyRule(rf"{last}\.(conv|bn)\..+", None, "no head reads this last layer"))
    else:
        rules.append(move_leaves(f"{last}.conv", names.last))
        rules.append(move_leaves(f"{last}.bn", str(names.last_norm)))
    if names.first_norm is not None:
        rules.append(KeyRule(FIRST_NORM, f"{names.first_norm}.scale"))
    for level, extra in enumerate(names.extras):
        rules += [
            rule
            for part in range(3)
            for rule in _conv_module(extra_key(level, part), f"{extra}.{part}")
        ]
    for kind, targets in (("cls", names.classification), ("reg", names.regression)):
        for level, target in enumerate(targets):
            source = f"bbox_head.{kind}_convs.{level}"
            rules += [*_conv_module(f"{source}.0", f"{target}.0")]
            rules.append(move_leaves(f"{source}.1", f"{target}.1"))
    rules.append(KeyRule(rf"{HOOKS_COPY}.+", None, "the other copy that the EMA hook keeps"))
    return KeyMap(tuple(rules))


def _conv_module(source: str, target: str) -> list[KeyRule]:
    return [move_leaves(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in ITEMS]


def _block(source: str, block: BlockNames) -> list[KeyRule]:
    rules = _conv_module(f"{source}.depthwise_conv", block.depthwise)
    rules += _conv_module(f"{source}.linear_conv", block.project)
    if block.expand is not None:
        rules += _conv_module(f"{source}.expand_conv", block.expand)
    if block.squeeze is not None:
        rules += [
            move_leaves(f"{source}.se.conv{n}.conv", f"{block.squeeze}.fc{n}") for n in (1, 2)
        ]
    return rules


def _background_first(key: str, tensor: torch.Tensor, spec: DetectorSpec) -> torch.Tensor:
    """Return a class predictor's `tensor` with the last of each box's classes moved to the front.

    The channels are box * num_classes + class, with a weight (channels, in, 1, 1) or a bias.
    """
    if not re.fullmatch(r"bbox_head\.cls_convs\.\d+\.1\.(weight|bias)", key):
        return tensor
    by_box = tensor.reshape(-1, spec.num_classes, *tensor.shape[1:])
    return by_box.roll(1, dims=1).reshape(tensor.shape)


MMDET = Family(
    name="mmdet",
    title="mmdetection 2.x or 3.x, SSDLite on MobileNetV3 (never run against the original)",
    signature=Signature(
        present=(
            "backbone.layer1.depthwise_conv.conv.weight",
            "neck.extra_layers.0.0.conv.weight",
            "bbox_head.cls_convs.0.0.conv.weight",
        ),
        like=r"(backbone\.(conv1|layer\d+)|neck\.(extra_layers|l2_norm)|bbox_head|ema)\b.+",
    ),
    draft=_draft,
    keymap=_keymap,
    arranged=_background_first,
)
