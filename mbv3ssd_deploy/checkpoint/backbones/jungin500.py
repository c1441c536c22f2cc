"""jungin500/mobilenetv3-ssd-torch: the base nets of its two classifiers."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

from mbv3ssd_deploy.checkpoint.backbones.family import CLASSIFIER_DROPPED, BackboneFamily
from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.families.jungin500 import base_rules
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.names import NetNames


def _keymap(_arch: ArchSpec, names: NetNames) -> KeyMap:
    rules = (
        KeyRule(r"conv_\d+_\d+\..+", None, "the same tensor as under `features`"),
        KeyRule(r"classifiers\..+", None, CLASSIFIER_DROPPED),
    )
    return KeyMap((*base_rules("features.", names), *rules))


def _base_net(_arch: ArchSpec, names: NetNames) -> KeyMap:
    return KeyMap(tuple(base_rules("", names)))


JUNGIN500_V1 = BackboneFamily(
    name="jungin500-v1",
    title="jungin500/mobilenetv3-ssd-torch, its first classifier",
    signature=Signature(present=("features.3.bottleneck_0_0.weight", "conv_0_0.weight")),
    large_key=None,
    layouts=MappingProxyType({Backbone.SMALL: "jungin500"}),
    why_not=MappingProxyType({}),
    bn_eps=1e-5,
    keymap=_keymap,
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
    keymap=_base_net,
    trained_on="not known",
)
