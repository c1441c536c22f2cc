"""torchvision's ssdlite320_mobilenet_v3_large with either tail, and the same on Small.

Facts from torchvision 0.28: `ssdlite320_mobilenet_v3_large`, `SSD`, `DefaultBoxGenerator` and
`BoxCoder`. The published COCO_V1 weights have the reduced tail; fine-tuning from an ImageNet
backbone gives the full one.
"""

from __future__ import annotations

import math

from mbv3ssd_deploy.checkpoint.families.class_lists import coco_names, numbered_names
from mbv3ssd_deploy.checkpoint.families.family import Draft, Family, Signature, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import (
    HeadKeys,
    class_count,
    head_evidence,
    read_heads,
)
from mbv3ssd_deploy.checkpoint.families.ssdlite import (
    EXTRAS,
    FRAME,
    ssdlite_arch,
    ssdlite_levels,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    BoxCoder,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorSpec,
    ResizeRule,
    ResultOrder,
)
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.nets.plan import plan_net
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

GREY = (127.5, 127.5, 127.5)
DEFAULT_SIZE = (320, 320)
STEM = "backbone.features.0.0.0.weight"
LAST_CONV = "backbone.features.1.3.0.weight"
EXPANSION = {
    Backbone.LARGE: "backbone.features.0.13.0.weight",
    Backbone.SMALL: "backbone.features.0.9.0.weight",
}
EXTRA_OUT = tuple(f"backbone.extra.{number}.2.0.weight" for number in range(len(EXTRAS)))
HEADS = tuple(
    HeadKeys(
        f"head.classification_head.module_list.{level}.1.weight",
        f"head.regression_head.module_list.{level}.1.weight",
    )
    for level in range(6)
)


def _keymap(_spec: DetectorSpec) -> KeyMap:
    return KeyMap((KeyRule(r".+", r"\g<0>"),))


def _arch_from_shapes(contents: RawCheckpoint) -> tuple[ArchSpec, tuple[str, ...]]:
    """Return the architecture that torchvision's keys and shapes tell, with the evidence.

    Raises:
        CheckpointError: a telling tensor is missing, or the last convolution fits no tail.
    """
    backbone = next((b for b, key in EXPANSION.items() if key in contents.tensors), None)
    if backbone is None:
        raise CheckpointError(
            f"neither {' nor '.join(EXPANSION.values())} is there: this is the ssdlite head on a "
            "backbone other than MobileNetV3"
        )
    stem, last, *extras = contents.channels(STEM, LAST_CONV, *EXTRA_OUT)
    archs = _candidates(backbone, tuple(extras))
    if (stem, last) not in archs:
        known = " or ".join(f"{first} and {final}" for first, final in archs)
        raise CheckpointError(
            f"{STEM} and {LAST_CONV} have {stem} and {last} channels; a {backbone} network with "
            f"these extras has {known}"
        )
    arch = archs[stem, last]
    tail = "reduced" if arch.reduced_tail else "full"
    evidence = (
        f"{EXPANSION[backbone]} is there: MobileNetV3-{backbone.capitalize()}",
        f"{LAST_CONV} has {last} channels: the {tail} tail at width {arch.width_mult:g}",
    )
    return arch, evidence


def _candidates(backbone: Backbone, extras: tuple[int, ...]) -> dict[tuple[int, int], ArchSpec]:
    """Return the architectures with these extras, by the channels of first and last convolution."""
    # torchvision scales the extras with the backbone; who changes only them leaves it at 1.0
    archs: dict[tuple[int, int], ArchSpec] = {}
    for width in (1.0, extras[0] / EXTRAS[0]):
        for reduced in (False, True):
            arch = ssdlite_arch(backbone, width_mult=width, reduced_tail=reduced, extras=extras)
            plan = plan_net(arch)
            archs.setdefault((plan.stem_channels, plan.last_channels), arch)
    return archs


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    arch, evidence = _arch_from_shapes(contents)
    height, width = request.image_size or DEFAULT_SIZE
    levels = ssdlite_levels(feature_map_sizes(arch, height, width))
    heads = read_heads(contents, HEADS)
    classes = class_count(heads)
    coco = classes == len(coco_names())
    spec = DetectorSpec(
        name=f"ssdlite{height}_mobilenet_v3_{arch.backbone}",
        family="torchvision",
        arch=arch,
        input=InputSpec(
            height, width, ChannelOrder.RGB, GREY, GREY, ResizeRule.FLOAT_AFTER_NORMALISE
        ),
        class_names=coco_names() if coco else numbered_names(classes),
        priors=PriorSpec(FRAME, FRAME, levels, ClipRule.SIZES),
        coder=BoxCoder(0.1, 0.2, max_log_size=math.log(1000 / 16)),
        decode=DecodeSpec(
            score_threshold=0.001,
            iou_threshold=0.55,
            candidates_per_class=300,
            keep_per_class=None,
            keep_total=300,
            clip_before_nms=True,
            iou_epsilon=0.0,
            order=ResultOrder.SCORE,
        ),
    )
    return Draft(
        spec=spec,
        heads=heads,
        evidence=(*evidence, head_evidence(heads, classes)),
        provenance={
            "arch": "weight shapes",
            "input": "family preset",
            "class_names": "family preset" if coco else "head channels",
            "priors": "family preset",
            "coder": "family preset",
            "decode": "family preset",
        },
        names_given=coco,
    )


TORCHVISION = Family(
    name="torchvision",
    title="torchvision's ssdlite320 on MobileNetV3",
    signature=Signature(
        present=(STEM, "head.classification_head.module_list.0.0.0.weight"),
        like=r"(backbone\.(features\.[01]\.\d+\.(\d|block)|extra\.\d)"
        r"|head\.(classification|regression)_head\.module_list)\..+",
    ),
    draft=_draft,
    keymap=_keymap,
)
