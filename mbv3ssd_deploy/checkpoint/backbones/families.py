"""The families of backbone weights: how each is recognised, its wiring and its keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    gate_rules,
    jungin500_base_rules,
    lufficc_block_rules,
    qfgaohao_base_rules,
    tongyu_base_rules,
    tongyu_block_rules,
)
from mbv3ssd_deploy.checkpoint.families.xiaolai import POOLED_GATE, backbone_rules
from mbv3ssd_deploy.checkpoint.keymap import KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.plan import BlockNames, NetNames

CLASSIFIER_DROPPED = "part of the classifier, which no detector runs"
CLASSIFIER = "classifier"
"""What our own classifier is called: `classifier.0` and `classifier.3` are its dense layers."""


@dataclass(frozen=True, slots=True)
class BackboneFamily:
    """Files of classification weights from one code base.

    Attributes:
        name: for people and for `--json`.
        title: where the files come from.
        signature: how its files are recognised.
        large_key: a key that only the Large network has; None where there is no Large.
        key_rules: the renaming of its keys. The classifier's layers go to `classifier.0` and
            `classifier.3` where they compute what ours do, and are dropped elsewhere.
        layouts: the layout of `nets/layouts.py` that has the same backbone, number by number.
        why_not: why the other networks feed no detector.
        bn_eps: of every BatchNorm.
        trained_on: the input that published files were trained on.
        notes: what a user should know of every file.
        dense: keys of 1x1 convolutions behind the pooling, which are dense layers here.
    """

    name: str
    title: str
    signature: Signature
    large_key: str | None
    key_rules: Callable[[ArchSpec, NetNames], list[KeyRule]]
    layouts: Mapping[Backbone, str] = field(default_factory=dict)
    why_not: Mapping[Backbone, str] = field(default_factory=dict)
    bn_eps: float = 1e-5
    trained_on: str = "ImageNet's mean and deviation"
    notes: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()


# d-li14/mobilenetv3.pytorch: lufficc's backbone, the last convolution outside the list.
def _dli14(_arch: ArchSpec, names: NetNames) -> list[KeyRule]:
    rules = [
        move_leaves("features.0.0", f"{names.stem}.0"),
        move_leaves("features.0.1", f"{names.stem}.1"),
        move_leaves("conv.0", str(names.last)),
        move_leaves("conv.1", str(names.last_norm)),
        *(move_leaves(f"classifier.{item}", f"{CLASSIFIER}.{item}") for item in (0, 3)),
        # early files have their dense layers elsewhere, with a BatchNorm between them
        KeyRule(r"classifier\..+", None, CLASSIFIER_DROPPED),
    ]
    for number, block in enumerate(names.blocks, start=1):
        parts = [part for part in (block.expand, block.depthwise, block.project) if part]
        rules += lufficc_block_rules(f"features.{number}", parts, block.squeeze)
    return rules


DLI14 = BackboneFamily(
    name="d-li14",
    title="d-li14/mobilenetv3.pytorch",
    signature=Signature(
        present=("features.0.0.weight", "features.1.conv.0.weight", "conv.0.weight")
    ),
    large_key="features.15.conv.0.weight",
    layouts={Backbone.LARGE: "lufficc"},
    why_not={
        Backbone.SMALL: "its gates are before the activation (in the first block behind "
        "it), and every Small detector's behind it or behind the projection"
    },
    key_rules=_dli14,
)


def _jungin500(_arch: ArchSpec, names: NetNames) -> list[KeyRule]:
    return [
        *jungin500_base_rules("features.", names),
        KeyRule(r"conv_\d+_\d+\..+", None, "the same tensor as under `features`"),
        KeyRule(r"classifiers\..+", None, CLASSIFIER_DROPPED),
    ]


JUNGIN500_V1 = BackboneFamily(
    name="jungin500-v1",
    title="jungin500/mobilenetv3-ssd-torch, its first classifier",
    signature=Signature(present=("features.3.bottleneck_0_0.weight", "conv_0_0.weight")),
    large_key=None,
    layouts={Backbone.SMALL: "jungin500"},
    key_rules=_jungin500,
    trained_on="VOC crops, ImageNet's mean and deviation",
)
JUNGIN500_V2 = dataclasses.replace(
    JUNGIN500_V1,
    name="jungin500-v2",
    title="jungin500/mobilenetv3-ssd-torch, its second classifier",
    signature=Signature(present=("features.3.bottleneck_0_0.weight",), absent=("conv_0_0.weight",)),
    trained_on="a mean and a deviation of its own",
    notes=("files of width 0.5 narrow blocks but not what they expand to: they feed no detector",),
)
JUNGIN500_BASE = dataclasses.replace(
    JUNGIN500_V1,
    name="jungin500-base",
    title="the bare base net of jungin500/mobilenetv3-ssd-torch",
    signature=Signature(present=("0.weight", "3.bottleneck_0_0.weight")),
    key_rules=lambda _, names: jungin500_base_rules("", names),
    trained_on="not known",
)


# leaderj1001/MobileNetV3-Pytorch, and tongyuhome's classifier that holds the same network twice:
# `init_conv`, `block`, `out_conv1` and `out_conv2` are what its forward runs and trains. `features`
# is a second network, which only its SSD reads and which keeps its random values: the original SSD
# starts from noise. We take the trained one.
_OLD_GATE = (
    "files of this repository from before 10 May 2019 were trained with another gate, "
    "clip(0.2 x + 0.5), under the same keys: such a file is a rough start only"
)
_UNTRAINED = "a second backbone that the classifier's forward never runs: it was not trained"


def _leaderj1001(_arch: ArchSpec, names: NetNames) -> list[KeyRule]:
    norm = 1 + (names.last_squeeze is not None)
    rules = [
        move_leaves("init_conv.0", f"{names.stem}.0"),
        move_leaves("init_conv.1", f"{names.stem}.1"),
        move_leaves("out_conv1.0", str(names.last)),
        move_leaves(f"out_conv1.{norm}", str(names.last_norm)),
        move_leaves("out_conv2.0", str(names.wide)),
        KeyRule(r"out_conv2\..+", None, CLASSIFIER_DROPPED),
        KeyRule(r"features\..+", None, _UNTRAINED),
    ]
    if names.last_squeeze is not None:
        rules += gate_rules("out_conv1.1", names.last_squeeze)
    for number, block in enumerate(names.blocks):
        rules += tongyu_block_rules(f"block.{number}", block)
    return rules


LEADERJ1001 = BackboneFamily(
    name="leaderj1001",
    title="leaderj1001/MobileNetV3-Pytorch",
    signature=Signature(
        present=("init_conv.0.weight", "block.0.conv.0.weight"), absent=("features.0.weight",)
    ),
    large_key="block.14.conv.0.weight",
    layouts={Backbone.LARGE: "tongyu_large", Backbone.SMALL: "tongyu_small"},
    key_rules=_leaderj1001,
    trained_on="CIFAR-100 (100 classes)",
    notes=(_OLD_GATE,),
)
TONGYU_CLASSIFIER = dataclasses.replace(
    LEADERJ1001,
    name="tongyu-classifier",
    title="tongyuhome/MobileNetV3-SSD, its classifier",
    signature=Signature(present=("init_conv.0.weight", "features.0.weight")),
    trained_on="not known; its script normalises by ImageNet's mean and deviation",
    notes=("the backbone that its forward trains was taken, not the one its SSD reads",),
)
TONGYU_BASE = dataclasses.replace(
    LEADERJ1001,
    name="tongyu-base",
    title="the bare base net of tongyuhome/MobileNetV3-SSD, as its --base_net takes it",
    signature=Signature(present=("0.weight", "3.depth_conv.0.weight")),
    large_key="17.conv.0.weight",
    key_rules=lambda _, names: tongyu_base_rules("", names),
    trained_on="not known",
    notes=("tongyuhome's own scripts never train this network: see where yours comes from",),
)


# torchvision's classifiers (V1 and V2 weights have the same keys), and timm's of the same graph.
# timm divides by sqrt(variance + 1e-5), torchvision and its detectors by sqrt(variance + 1e-3):
# load.py multiplies the BatchNorm's factors by the quotient, so that the numbers stay.
BOTH = {Backbone.LARGE: "torchvision", Backbone.SMALL: "torchvision"}
TIMM_STAGES = {Backbone.LARGE: (1, 2, 3, 4, 2, 3), Backbone.SMALL: (1, 2, 3, 2, 3)}
"""Blocks of each stage; the last convolution is a stage of its own behind them."""


def _torchvision(_arch: ArchSpec, names: NetNames) -> list[KeyRule]:
    last = len(names.blocks) + 1
    rules = [
        move_leaves("features.0.0", f"{names.stem}.0"),
        move_leaves("features.0.1", f"{names.stem}.1"),
        move_leaves(f"features.{last}.0", str(names.last)),
        move_leaves(f"features.{last}.1", str(names.last_norm)),
        *(move_leaves(f"classifier.{item}", f"{CLASSIFIER}.{item}") for item in (0, 3)),
    ]
    for number, block in enumerate(names.blocks, start=1):
        parts = (block.expand, block.depthwise, block.squeeze, block.project)
        for item, part in enumerate(part for part in parts if part is not None):
            source = f"features.{number}.block.{item}"
            leaves = ("fc1", "fc2") if part == block.squeeze else ("0", "1")
            rules += [move_leaves(f"{source}.{leaf}", f"{part}.{leaf}") for leaf in leaves]
    return rules


def _timm(arch: ArchSpec, names: NetNames) -> list[KeyRule]:
    stages = TIMM_STAGES[arch.backbone]
    places = [(stage, item) for stage, count in enumerate(stages) for item in range(count)]
    rules = [
        move_leaves("conv_stem", f"{names.stem}.0"),
        move_leaves("bn1", f"{names.stem}.1"),
        move_leaves(f"blocks.{len(stages)}.0.conv", str(names.last)),
        move_leaves(f"blocks.{len(stages)}.0.bn1", str(names.last_norm)),
        move_leaves("conv_head", f"{CLASSIFIER}.0"),
        move_leaves("classifier", f"{CLASSIFIER}.3"),
    ]
    for (stage, item), block in zip(places, names.blocks, strict=True):
        rules += _timm_block(f"blocks.{stage}.{item}", block)
    return rules


def _timm_block(source: str, block: BlockNames) -> list[KeyRule]:
    expands = (("conv_pw", block.expand), ("conv_dw", block.depthwise), ("conv_pwl", block.project))
    plain = (("conv_dw", block.depthwise), ("conv_pw", block.project))
    rules: list[KeyRule] = []
    for number, (theirs, ours) in enumerate(expands if block.expand else plain, start=1):
        rules.append(move_leaves(f"{source}.{theirs}", f"{ours}.0"))
        rules.append(move_leaves(f"{source}.bn{number}", f"{ours}.1"))
    if block.squeeze is not None:
        rules.append(move_leaves(f"{source}.se.conv_reduce", f"{block.squeeze}.fc1"))
        rules.append(move_leaves(f"{source}.se.conv_expand", f"{block.squeeze}.fc2"))
    return rules


TORCHVISION_CLASSIFIER = BackboneFamily(
    name="torchvision-classifier",
    title="torchvision's mobilenet_v3_large and _small, V1 and V2",
    signature=Signature(present=("features.0.0.weight", "features.1.block.0.0.weight")),
    large_key="features.15.block.0.0.weight",
    layouts=BOTH,
    bn_eps=1e-3,
    key_rules=_torchvision,
)
TIMM = BackboneFamily(
    name="timm",
    title="timm's mobilenetv3_large_100 and _small_100",
    # its EfficientNets and MobileNetV2 have a BatchNorm behind conv_head
    signature=Signature(
        present=("conv_stem.weight", "blocks.0.0.conv_dw.weight"), absent=("bn2.weight",)
    ),
    large_key="blocks.6.0.conv.weight",
    layouts=BOTH,
    key_rules=_timm,
    dense=("conv_head.weight",),
)


# xiaolai518/mobilenetv3 (once xiaolai-sqlai), three generations of files with three blocks: the
# oldest gates have no pooling; the next have it; the ones of 300 and 450 epochs ("act3") are
# another network. Compact, ujsyehao and qfgaohao copied the first and the second.
LARGE_KEY = "bneck.14.conv1.weight"
_ACT3 = (
    "its blocks activate after the addition and add their input through convolutions of "
    "their own, which no detector does"
)


XIAOLAI_OLD = BackboneFamily(
    name="xiaolai-old",
    title="xiaolai518/mobilenetv3, mbv3_large.old and mbv3_small.old",
    signature=Signature(present=("linear4.weight",), ranks=(("bneck.3.se.se.0.weight", 4),)),
    large_key=LARGE_KEY,
    layouts={Backbone.LARGE: "ujsyehao"},
    why_not={Backbone.SMALL: "its gates do not pool, and every Small detector's do"},
    key_rules=lambda _, names: backbone_rules("", names),
)
XIAOLAI_POOLED = BackboneFamily(
    name="xiaolai-pooled",
    title="xiaolai518/mobilenetv3, mbv3_small",
    signature=Signature(
        present=("linear4.weight", "bneck.3.se.se.5.weight"),
        absent=("bneck.1.skip.0.weight",),
        ranks=(("bneck.3.se.se.1.weight", 4),),
    ),
    large_key=LARGE_KEY,
    layouts={Backbone.LARGE: "qfgaohao", Backbone.SMALL: "qfgaohao"},
    key_rules=lambda _, names: backbone_rules("", names, POOLED_GATE),
)
XIAOLAI_ACT3 = BackboneFamily(
    name="xiaolai-act3",
    title="xiaolai518/mobilenetv3, 300_act3 and 450_act3",
    signature=Signature(present=("linear4.weight", "bneck.1.skip.0.weight")),
    large_key=LARGE_KEY,
    why_not={Backbone.LARGE: _ACT3, Backbone.SMALL: _ACT3},
    key_rules=lambda *_: [KeyRule(r".+", None, CLASSIFIER_DROPPED)],
)
QFGAOHAO_BASE = BackboneFamily(
    name="qfgaohao-base",
    title="the bare base net of qfgaohao/pytorch-ssd, as its --base_net takes it",
    signature=Signature(present=("0.weight", "3.conv1.weight", "3.bn3.weight")),
    large_key="17.conv1.weight",
    layouts=XIAOLAI_POOLED.layouts,
    key_rules=lambda _, names: qfgaohao_base_rules("", names),
    trained_on="not known",
)


BACKBONES = (
    TORCHVISION_CLASSIFIER,
    TIMM,
    XIAOLAI_OLD,
    XIAOLAI_POOLED,
    XIAOLAI_ACT3,
    DLI14,
    LEADERJ1001,
    TONGYU_CLASSIFIER,
    TONGYU_BASE,
    JUNGIN500_V1,
    JUNGIN500_V2,
    JUNGIN500_BASE,
    QFGAOHAO_BASE,
)
