"""ujsyehao/mobilenetv3-ssd: MobileNetV3-Large in mmdetection 1.x, trained at 300 x 300.

Facts from its commit 24162e4 (backbone, head, config), the mmdetection 0.6 code that it runs in,
and the published ncnn model, which shows the boxes per cell of the released weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.family import (
    Draft,
    Family,
    HeadKeys,
    HeadLevel,
    Preset,
    Signature,
    SpecRequest,
    preset_draft,
    read_heads,
    shape_evidence,
    table_size,
    with_names,
)
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    CUT_TAPS,
    HEAD_ITEMS,
    backbone_rules,
    flat_extra_rules,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    BoxCoder,
    BoxEdges,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorLevel,
    PriorRounding,
    PriorSpec,
    ResizeRule,
    ResultOrder,
)
from mbv3ssd_deploy.nets.plan import feature_map_sizes, name_modules

SIZE = 300
# Step, smallest and largest box of each level, in pixels. The sizes stand in the head's code, which
# does not look at those of its configuration.
LEVELS = (
    (16, 60, 105),
    (30, 105, 150),
    (60, 150, 195),
    (100, 195, 240),
    (150, 240, 285),
    (300, 285, 300),
)
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)
RELEASED = (4, 6, 6, 6, 4, 4)
"""Boxes per cell of the released weights."""
COMMITTED = (4, 6, 6, 6, 6, 6)
"""Boxes per cell of the configuration in the repository."""
MAX_LOG_SIZE = math.log(1000 / 16)
LAST_CONV = "backbone.conv2.weight"
PLAIN_HEAD = "bbox_head.cls_convs.0.weight"
"""There where the configuration did not ask for `depthwise_heads`: one 3x3 convolution a level."""
LEVEL_COUNT = 6
SEPARABLE_ITEMS = tuple((f".{theirs}", f".{ours}") for theirs, ours in HEAD_ITEMS)


def _head_keys(contents: RawCheckpoint) -> list[HeadKeys]:
    item = "" if PLAIN_HEAD in contents.tensors else ".3"
    return [
        HeadKeys(*(f"bbox_head.{kind}_convs.{level}{item}.weight" for kind in ("cls", "reg")))
        for level in range(LEVEL_COUNT)
    ]


def _priors(maps: Sequence[tuple[int, int]], boxes_per_cell: Sequence[int]) -> PriorSpec:
    levels = tuple(
        PriorLevel(
            *cells, float(step), float(step), float(small), float(large), RATIOS[: boxes - 2]
        )
        for cells, (step, small, large), boxes in zip(maps, LEVELS, boxes_per_cell, strict=True)
    )
    rounding = PriorRounding.PIXEL_CORNERS
    return PriorSpec(float(SIZE), float(SIZE), levels, ClipRule.NONE, rounding)


def _configuration(heads: Sequence[HeadLevel]) -> tuple[tuple[int, ...], str]:
    """Return the boxes per cell of the configuration that the heads show, and its name."""
    if tuple(level.boxes_per_cell for level in heads) == RELEASED:
        return RELEASED, "the priors of the released weights"
    return COMMITTED, "the priors of the committed configuration"


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    height, width = table_size(request, SIZE)
    heads = read_heads(contents, _head_keys(contents))
    boxes, configuration = _configuration(heads)
    arch = ArchSpec(
        layout="ujsyehao_plain" if PLAIN_HEAD in contents.tensors else "ujsyehao",
        backbone=Backbone.LARGE,
        width_mult=1.0,
        reduced_tail=False,
        taps=CUT_TAPS,
        extras=(512, 256, 256, 128),
    )
    preset = Preset(
        family="ujsyehao",
        name="mobilenetv3-ssd",
        arch=arch,
        input=InputSpec(
            height,
            width,
            ChannelOrder.RGB,
            mean=(123.675, 116.28, 103.53),
            std=(1.0, 1.0, 1.0),
            resize=ResizeRule.CV2_U8,
        ),
        priors=_priors(feature_map_sizes(arch, height, width), boxes),
        coder=BoxCoder(0.1, 0.2, max_log_size=MAX_LOG_SIZE, min_log_size=-MAX_LOG_SIZE),
        decode=DecodeSpec(
            score_threshold=0.02,
            iou_threshold=0.45,
            candidates_per_class=None,
            keep_per_class=None,
            keep_total=200,
            clip_before_nms=True,
            iou_epsilon=0.0,
            order=ResultOrder.CLASS_PRIOR,
            box_edges=BoxEdges.INCLUSIVE,
            suppress_at_threshold=True,
        ),
    )
    found = shape_evidence(contents, LAST_CONV, "MobileNetV3-Large")
    return with_names(preset_draft(preset, heads, found, configuration), contents.class_names)


def _keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = [
        *backbone_rules("backbone.", names),
        *flat_extra_rules("backbone.extra_convs", names),
        KeyRule(r"bbox_head\.loss_weights", None, "weighs the losses of the training"),
    ]
    items = (("", ""),) if spec.arch.layout == "ujsyehao_plain" else SEPARABLE_ITEMS
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
    draft=_draft,
    keymap=_keymap,
)
