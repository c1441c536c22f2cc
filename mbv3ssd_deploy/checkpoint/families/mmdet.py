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
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import torch

from mbv3ssd_deploy.checkpoint.families.family import Draft, Family, Signature, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import HeadKeys, HeadLevel, read_heads
from mbv3ssd_deploy.checkpoint.families.mmdet_arch import (
    CLASS_STEM,
    FIRST_NORM,
    arch_from_shapes,
    extra_key,
)
from mbv3ssd_deploy.checkpoint.families.preset import (
    Preset,
    preset_draft,
    table_size,
    with_names,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import HOOKS_COPY, RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    BoxCoder,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorLevel,
    PriorSpec,
    ResizeRule,
    ResultOrder,
)
from mbv3ssd_deploy.nets.names import BlockNames, name_modules
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

SIZE = 320
# Stride, smallest and largest box of each level, in pixels.
LEVELS = (
    (16, 48, 100),
    (32, 100, 150),
    (64, 150, 202),
    (107, 202, 253),
    (160, 253, 304),
    (320, 304, 320),
)
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)
FOUR_BOXES = 4
MAX_LOG_SIZE = math.log(1000 / 16)
HEADS = tuple(
    HeadKeys(f"bbox_head.cls_convs.{level}.1.weight", f"bbox_head.reg_convs.{level}.1.weight")
    for level in range(len(LEVELS))
)
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


def _priors(maps: Sequence[tuple[int, int]], heads: Sequence[HeadLevel]) -> PriorSpec:
    levels = tuple(
        PriorLevel(
            *cells,
            float(step),
            float(step),
            float(small),
            float(large),
            RATIOS[:2] if head.boxes_per_cell == FOUR_BOXES else RATIOS,
        )
        for cells, (step, small, large), head in zip(maps, LEVELS, heads, strict=True)
    )
    return PriorSpec(float(SIZE), float(SIZE), levels, ClipRule.NONE)


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    height, width = table_size(request, SIZE)
    heads = read_heads(contents, HEADS)
    arch, evidence = arch_from_shapes(contents)
    preset = Preset(
        family="mmdet",
        name=f"ssdlite_mobilenetv3_{arch.backbone}",
        arch=arch,
        input=InputSpec(
            height,
            width,
            ChannelOrder.RGB,
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            resize=ResizeRule.CV2_U8,
        ),
        priors=_priors(feature_map_sizes(arch, height, width), heads),
        coder=BoxCoder(0.1, 0.2, max_log_size=MAX_LOG_SIZE, min_log_size=-MAX_LOG_SIZE),
        # batched_nms shifts the classes apart and the boxes are clipped before: one NMS a class
        decode=DecodeSpec(
            score_threshold=0.02,
            iou_threshold=0.45,
            candidates_per_class=None,
            keep_per_class=None,
            keep_total=200,
            clip_before_nms=True,
            iou_epsilon=0.0,
            order=ResultOrder.SCORE,
        ),
    )
    last = "the background is the last class of the file; its channels were moved to the front"
    copies = any(key.startswith(HOOKS_COPY) for key in contents.tensors)
    draft = preset_draft(preset, heads, *evidence, last)
    notices = (UNPROVEN, EXCHANGED) if copies else (UNPROVEN,)
    return with_names(dataclasses.replace(draft, notices=notices), contents.class_names)


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
