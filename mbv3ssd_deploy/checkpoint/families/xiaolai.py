"""The code made from xiaolai518/mobilenetv3: its block, compact and ujsyehao.

Convolutions and BatchNorms of a block are `conv1`, `bn1` to `conv3`, `bn3`, and the gate is the
Sequential `se.se`: convolution, BatchNorm, ReLU, convolution, BatchNorm. The early copies forgot
the pooling in front of it, so that there is a gate for each pixel; the later ones have it as
item 0. qfgaohao copied the block too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

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
    draft_by_key,
    full_arch,
    read_heads,
    rgb_input,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    Backbone,
    BoxCoder,
    BoxEdges,
    ClipRule,
    DetectorSpec,
    PriorRounding,
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.nets.plan import BlockNames, NetNames, name_modules

HEAD_ITEMS = (("0", "0.0"), ("1", "0.1"), ("3", "1"))
"""Items of a separable predictor (2 is the activation) and what they are called here."""
EXTRAS = (512, 256, 256, 128)
CUT_TAPS = (Tap(14, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT))
"""The taps of compact and ujsyehao: inside the block that strides last, and the last feature."""
BLOCK_PARTS = r"conv[123]|bn[123]"
POOLED_GATE = (("1", "fc1"), ("2", "norm1"), ("4", "fc2"), ("5", "norm2"))
BARE_GATE = (("0", "fc1"), ("1", "norm1"), ("3", "fc2"), ("4", "norm2"))


def triple_block_rules(
    source: str, block: BlockNames, gate: Sequence[tuple[str, str]] = BARE_GATE
) -> list[KeyRule]:
    """Return the rules of the block `source`; `gate` names the items of its Sequential."""
    rules = triple_rules(source, (str(block.expand), block.depthwise, block.project))
    if block.squeeze is not None:
        rules += [
            move_leaves(f"{source}.se.se.{item}", f"{block.squeeze}.{name}") for item, name in gate
        ]
    if block.shortcut is not None:
        rules += [move_leaves(f"{source}.shortcut.{i}", f"{block.shortcut}.{i}") for i in (0, 1)]
    return rules


def triple_rules(source: str, targets: tuple[str, str, str]) -> list[KeyRule]:
    """Return the rules of conv1, bn1, conv2, bn2, conv3, bn3: expansion, depthwise, projection."""
    return [
        move_leaves(f"{source}.{leaf}{number}", f"{target}.{item}")
        for number, target in enumerate(targets, start=1)
        for item, leaf in enumerate(("conv", "bn"))
    ]


def extra_rules(names: NetNames) -> list[KeyRule]:
    """Return the rules of `extras.N`, blocks of the same kind, in pytorch-ssd."""
    return [
        rule
        for number, extra in enumerate(names.extras)
        for rule in triple_rules(f"extras.{number}", (f"{extra}.0", f"{extra}.1", f"{extra}.2"))
    ]


def backbone_rules(
    source: str, names: NetNames, gate: Sequence[tuple[str, str]] = BARE_GATE
) -> list[KeyRule]:
    """Return the rules of the whole network, whose keys begin with `source`.

    Its classifier feeds no detector.
    """
    rules = [
        move_leaves(f"{source}conv1", f"{names.stem}.0"),
        move_leaves(f"{source}bn1", f"{names.stem}.1"),
        move_leaves(f"{source}conv2", str(names.last)),
        move_leaves(f"{source}bn2", str(names.last_norm)),
        KeyRule(
            rf"{re.escape(source)}(linear3|bn3|linear4)\..+",
            None,
            "part of the classifier, which no detector runs",
        ),
    ]
    for number, block in enumerate(names.blocks):
        rules += triple_block_rules(f"{source}bneck.{number}", block, gate)
    return rules


def flat_extra_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of extra levels that lie in one list of twelve `source`.N."""
    return [
        move_leaves(f"{source}.{3 * number + part}.{item}", f"{extra}.{part}.{item}")
        for number, extra in enumerate(names.extras)
        for part in range(3)
        for item in (0, 1)
    ]


# shaoshengsong/MobileNetV3-SSD-Compact-Version: MobileNetV3-Large at 300 x 300. Facts from its
# commit 37bf20f: `model.py`, `utils.py` and `detect.py`; xiaolai's backbone in the SSD of
# sgrvinod's tutorial. Its files are pickled modules; only their tensors are read.
_LEVEL_NAMES = ("conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2")
_SCALES = (0.1, 0.2, 0.375, 0.55, 0.725, 0.9)
# The last level has no next scale: its second square is the whole image.
_NEXT_SCALES = (*_SCALES[1:], 1.0 / _SCALES[-1])
_COMPACT = Preset(
    family="compact",
    name="mobilenetv3-ssd-compact",
    arch=full_arch("compact", Backbone.LARGE, CUT_TAPS, EXTRAS),
    input=rgb_input(
        300,
        mean=(255 * 0.485, 255 * 0.456, 255 * 0.406),
        std=(255 * 0.229, 255 * 0.224, 255 * 0.225),
        resize=ResizeRule.PIL_U8_ANTIALIAS,
    ),
    priors=PriorTable(
        size=300,
        boxes=tuple((a * 300, b * 300) for a, b in zip(_SCALES, _NEXT_SCALES, strict=True)),
        # the last one is written out in the original, 0.333 and not 1 / 3
        ratios=((2.0, 0.5), *((2.0, 3.0, 0.5, 0.333),) * 5),
    ),
    decode=SSD_DECODE,
    heads=tuple(
        HeadKeys(f"pred_convs.cl_{name}.weight", f"pred_convs.loc_{name}.weight")
        for name in _LEVEL_NAMES
    ),
    key="base.conv2.weight",
)


def _compact_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = [
        KeyRule("rescale_factors", f"{names.first_norm}.scale"),
        *backbone_rules("base.", names),
        *flat_extra_rules("aux_convs.extra_convs", names),
    ]
    for kind, targets in (("cl", names.classification), ("loc", names.regression)):
        rules += [
            move_leaves(f"pred_convs.{kind}_{level}", target)
            for level, target in zip(_LEVEL_NAMES, targets, strict=True)
        ]
    return KeyMap(tuple(rules))


COMPACT = Family(
    name="compact",
    title="shaoshengsong/MobileNetV3-SSD-Compact-Version",
    signature=Signature(
        present=("rescale_factors", "pred_convs.cl_conv4_3.weight"),
        like=r"rescale_factors|(base|aux_convs\.extra_convs|pred_convs)\..+",
    ),
    draft=functools.partial(draft_by_key, (_COMPACT,)),
    keymap=_compact_keymap,
)


# ujsyehao/mobilenetv3-ssd: MobileNetV3-Large in mmdetection 1.x, trained at 300 x 300. Facts from
# its commit 24162e4 (backbone, head, config), the mmdetection 0.6 code that it runs in, and the
# published ncnn model, which shows the boxes per cell of the released weights.
_RELEASED = (4, 6, 6, 6, 4, 4)
_COMMITTED = (4, 6, 6, 6, 6, 6)
"""Boxes per cell of the released weights, and of the configuration in the repository."""
_MAX_LOG_SIZE = math.log(1000 / 16)
_PLAIN_HEAD = "bbox_head.cls_convs.0.weight"
"""Exists where the configuration has no `depthwise_heads`: one 3x3 convolution per level."""


def _ujsyehao_heads(item: str) -> tuple[HeadKeys, ...]:
    return tuple(
        HeadKeys(*(f"bbox_head.{kind}_convs.{level}{item}.weight" for kind in ("cls", "reg")))
        for level in range(6)
    )


def _ujsyehao_priors(boxes_per_cell: Sequence[int]) -> PriorTable:
    return PriorTable(
        size=300,
        # the head's code has these sizes; it does not read those of its configuration
        boxes=((60, 105), (105, 150), (150, 195), (195, 240), (240, 285), (285, 300)),
        ratios=tuple(RATIOS[: boxes - 2] for boxes in boxes_per_cell),
        steps=(16, 30, 60, 100, 150, 300),
        clip=ClipRule.NONE,
        rounding=PriorRounding.PIXEL_CORNERS,
    )


_UJSYEHAO = Preset(
    family="ujsyehao",
    name="mobilenetv3-ssd",
    arch=full_arch("ujsyehao", Backbone.LARGE, CUT_TAPS, EXTRAS),
    input=rgb_input(300, mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0)),
    priors=_ujsyehao_priors(_COMMITTED),
    coder=BoxCoder(0.1, 0.2, max_log_size=_MAX_LOG_SIZE, min_log_size=-_MAX_LOG_SIZE),
    decode=dataclasses.replace(
        SSD_DECODE,
        score_threshold=0.02,
        clip_before_nms=True,
        order=ResultOrder.CLASS_PRIOR,
        box_edges=BoxEdges.INCLUSIVE,
        suppress_at_threshold=True,
    ),
    heads=_ujsyehao_heads(".3"),
    key="backbone.conv2.weight",
    names_in_file=True,
)
_UJSYEHAO_PLAIN = dataclasses.replace(
    _UJSYEHAO,
    arch=dataclasses.replace(_UJSYEHAO.arch, layout="ujsyehao_plain"),
    heads=_ujsyehao_heads(""),
)


def _ujsyehao_draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    preset = _UJSYEHAO_PLAIN if _PLAIN_HEAD in contents.tensors else _UJSYEHAO
    heads = read_heads(contents, preset.heads)
    configuration = "the priors of the committed configuration"
    if tuple(level.boxes_per_cell for level in heads) == _RELEASED:
        preset = dataclasses.replace(preset, priors=_ujsyehao_priors(_RELEASED))
        configuration = "the priors of the released weights"
    draft = draft_by_key((preset,), contents, request)
    first, *others = draft.evidence
    return dataclasses.replace(draft, evidence=(first, configuration, *others))


def _ujsyehao_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = [
        *backbone_rules("backbone.", names),
        *flat_extra_rules("backbone.extra_convs", names),
        KeyRule(r"bbox_head\.loss_weights", None, "weighs the losses of the training"),
    ]
    separable = tuple((f".{theirs}", f".{ours}") for theirs, ours in HEAD_ITEMS)
    items = (("", ""),) if spec.arch.layout == "ujsyehao_plain" else separable
    for kind, targets in (("cls", names.classification), ("reg", names.regression)):
        rules += [
            move_leaves(f"bbox_head.{kind}_convs.{level}{theirs}", f"{target}{ours}")
            for level, target in enumerate(targets)
            for theirs, ours in items
        ]
    return KeyMap(tuple(rules))


UJSYEHAO = Family(
    name="ujsyehao",
    title="ujsyehao/mobilenetv3-ssd (mmdetection 1.x)",
    signature=Signature(
        present=("backbone.bneck.0.conv1.weight",),
        starts=("bbox_head.cls_convs.0.",),
        like=r"(backbone\.(bneck|extra_convs|conv\d|bn\d|linear\d)|bbox_head)\..+",
    ),
    draft=_ujsyehao_draft,
    keymap=_ujsyehao_keymap,
)
