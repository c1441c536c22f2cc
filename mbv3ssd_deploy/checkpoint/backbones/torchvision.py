"""torchvision's classifiers (V1 and V2 weights have the same keys), and timm's of the same graph.

timm divides by sqrt(variance + 1e-5), torchvision and its detectors by sqrt(variance + 1e-3).
`load.py` takes that into the BatchNorm's factors, so that the numbers stay.
"""

from __future__ import annotations

from types import MappingProxyType

from mbv3ssd_deploy.checkpoint.backbones.family import CLASSIFIER, BackboneFamily
from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.names import BlockNames, NetNames

BOTH = MappingProxyType({Backbone.LARGE: "torchvision", Backbone.SMALL: "torchvision"})
TIMM_STAGES = {Backbone.LARGE: (1, 2, 3, 4, 2, 3), Backbone.SMALL: (1, 2, 3, 2, 3)}
"""Blocks of each stage; the last convolution is a stage of its own behind them."""


def _torchvision(_arch: ArchSpec, names: NetNames) -> KeyMap:
    last = len(names.blocks) + 1
    rules = [
        move_leaves("features.0.0", f"{names.stem}.0"),
        move_leaves("features.0.1", f"{names.stem}.1"),
        move_leaves(f"features.{last}.0", str(names.last)),
        move_leaves(f"features.{last}.1", str(names.last_norm)),
        *(move_leaves(f"classifier.{item}", f"{CLASSIFIER}.{item}") for item in (0, 3)),
    ]
    for number, block in enumerate(names.blocks, start=1):
        rules += _torchvision_block(f"features.{number}.block", block)
    return KeyMap(tuple(rules))


def _torchvision_block(source: str, block: BlockNames) -> list[KeyRule]:
    parts = (block.expand, block.depthwise, block.squeeze, block.project)
    rules: list[KeyRule] = []
    for item, part in enumerate(part for part in parts if part is not None):
        inner = ("fc1", "fc2") if part == block.squeeze else ("0", "1")
        rules += [move_leaves(f"{source}.{item}.{leaf}", f"{part}.{leaf}") for leaf in inner]
    return rules


def _timm(arch: ArchSpec, names: NetNames) -> KeyMap:
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
    return KeyMap(tuple(rules))


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
    why_not=MappingProxyType({}),
    bn_eps=1e-3,
    keymap=_torchvision,
    trained_on="ImageNet's mean and deviation",
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
    why_not=MappingProxyType({}),
    bn_eps=1e-5,
    keymap=_timm,
    trained_on="ImageNet's mean and deviation",
    dense=("conv_head.weight",),
)
