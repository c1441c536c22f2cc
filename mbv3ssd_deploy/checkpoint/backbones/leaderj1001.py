"""leaderj1001/MobileNetV3-Pytorch, and tongyuhome's classifier that holds the same network twice.

In tongyuhome's file `init_conv`, `block`, `out_conv1` and `out_conv2` are what its forward runs and
trains. `features` is a second network, which only its SSD reads, and which stays as it was drawn:
the original SSD starts from noise. We take the trained one.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

from mbv3ssd_deploy.checkpoint.backbones.family import CLASSIFIER_DROPPED, BackboneFamily
from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.families.tongyu import base_rules, block_rules, gate_rules
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.names import NetNames

_OLD_GATE = (
    "files of this repository from before 10 May 2019 were trained with another gate, "
    "clip(0.2 x + 0.5), under the same keys: such a file is a rough start only"
)
_UNTRAINED = "a second backbone that the classifier's forward never runs: it was not trained"


def _keymap(_arch: ArchSpec, names: NetNames) -> KeyMap:
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
        rules += block_rules(f"block.{number}", block)
    return KeyMap(tuple(rules))


def _base_net(_arch: ArchSpec, names: NetNames) -> KeyMap:
    return KeyMap(tuple(base_rules("", names)))


LEADERJ1001 = BackboneFamily(
    name="leaderj1001",
    title="leaderj1001/MobileNetV3-Pytorch",
    signature=Signature(
        present=("init_conv.0.weight", "block.0.conv.0.weight"), absent=("features.0.weight",)
    ),
    large_key="block.14.conv.0.weight",
    layouts=MappingProxyType({Backbone.LARGE: "tongyu_large", Backbone.SMALL: "tongyu_small"}),
    why_not=MappingProxyType({}),
    bn_eps=1e-5,
    keymap=_keymap,
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
    keymap=_base_net,
    trained_on="not known",
    notes=("tongyuhome's own scripts never train this network: see where yours comes from",),
)
