"""shaoshengsong/MobileNetV3-SSD-Compact-Version: MobileNetV3-Large at 300 x 300.

Facts from its commit 37bf20f: `model.py`, `utils.py` and `detect.py`; xiaolai's backbone in the SSD
of sgrvinod's tutorial. Its files are pickled modules; here only their tensors arrive.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.family import (
    Draft,
    Family,
    HeadKeys,
    Preset,
    Signature,
    SpecRequest,
    preset_draft,
    read_heads,
    shape_evidence,
    table_size,
)
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    CUT_TAPS,
    backbone_rules,
    flat_extra_rules,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
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
from mbv3ssd_deploy.nets.plan import feature_map_sizes, name_modules

SIZE = 300
LEVEL_NAMES = ("conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2")
SCALES = (0.1, 0.2, 0.375, 0.55, 0.725, 0.9)
LAST_SQUARE = 1.0
"""The last level has no next scale: its second square is the whole image."""
# The third is written out in the original, 0.333 and not 1 / 3.
RATIOS = (2.0, 3.0, 0.5, 0.333)
FIRST_RATIOS = (2.0, 0.5)
LAST_CONV = "base.conv2.weight"
HEADS = tuple(
    HeadKeys(f"pred_convs.cl_{name}.weight", f"pred_convs.loc_{name}.weight")
    for name in LEVEL_NAMES
)


def _priors(maps: Sequence[tuple[int, int]]) -> PriorSpec:
    following = (*SCALES[1:], LAST_SQUARE**2 / SCALES[-1])
    levels = tuple(
        PriorLevel(
            rows,
            cols,
            step_x=SIZE / cols,
            step_y=SIZE / rows,
            min_size=scale * SIZE,
            max_size=after * SIZE,
            ratios=RATIOS if number else FIRST_RATIOS,
        )
        for number, ((rows, cols), scale, after) in enumerate(
            zip(maps, SCALES, following, strict=True)
        )
    )
    return PriorSpec(float(SIZE), float(SIZE), levels, ClipRule.CENTRE_FORM)


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    height, width = table_size(request, SIZE)
    arch = ArchSpec(
        layout="compact",
        backbone=Backbone.LARGE,
        width_mult=1.0,
        reduced_tail=False,
        taps=CUT_TAPS,
        extras=(512, 256, 256, 128),
    )
    preset = Preset(
        family="compact",
        name="mobilenetv3-ssd-compact",
        arch=arch,
        input=InputSpec(
            height,
            width,
            ChannelOrder.RGB,
            mean=(255 * 0.485, 255 * 0.456, 255 * 0.406),
            std=(255 * 0.229, 255 * 0.224, 255 * 0.225),
            resize=ResizeRule.PIL_U8_ANTIALIAS,
        ),
        priors=_priors(feature_map_sizes(arch, height, width)),
        decode=DecodeSpec(
            score_threshold=0.01,
            iou_threshold=0.45,
            candidates_per_class=None,
            keep_per_class=None,
            keep_total=200,
            clip_before_nms=False,
            iou_epsilon=0.0,
            order=ResultOrder.CLASS,
        ),
    )
    found = shape_evidence(contents, LAST_CONV, "MobileNetV3-Large")
    return preset_draft(preset, read_heads(contents, HEADS), found)


def _keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = [
        KeyRule("rescale_factors", f"{names.first_norm}.scale"),
        *backbone_rules("base.", names),
        *flat_extra_rules("aux_convs.extra_convs", names),
    ]
    for kind, targets in (("cl", names.classification), ("loc", names.regression)):
        rules += [
            move_leaves(f"pred_convs.{kind}_{level}", target)
            for level, target in zip(LEVEL_NAMES, targets, strict=True)
        ]
    return KeyMap(tuple(rules))


COMPACT = Family(
    name="compact",
    title="shaoshengsong/MobileNetV3-SSD-Compact-Version",
    signature=Signature(
        present=("rescale_factors", "pred_convs.cl_conv4_3.weight"),
        like=r"rescale_factors|(base|aux_convs\.extra_convs|pred_convs)\..+",
    ),
    draft=_draft,
    keymap=_keymap,
)
