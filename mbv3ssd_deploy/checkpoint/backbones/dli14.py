"""d-li14/mobilenetv3.pytorch: lufficc's backbone, with the last convolution outside the list."""

from __future__ import annotations

from types import MappingProxyType

from mbv3ssd_deploy.checkpoint.backbones.family import (
    CLASSIFIER,
    CLASSIFIER_DROPPED,
    BackboneFamily,
)
from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.families.lufficc import block_rules
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.names import NetNames


def _keymap(_arch: ArchSpec, names: NetNames) -> KeyMap:
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
        rules += block_rules(f"features.{number}", parts, block.squeeze)
    return KeyMap(tuple(rules))


DLI14 = BackboneFamily(
    name="d-li14",
    title="d-li14/mobilenetv3.pytorch",
    signature=Signature(
        present=("features.0.0.weight", "features.1.conv.0.weight", "conv.0.weight")
    ),
    large_key="features.15.conv.0.weight",
    layouts=MappingProxyType({Backbone.LARGE: "lufficc"}),
    why_not=MappingProxyType(
        {
            Backbone.SMALL: "its gates stand before the activation (in the first block behind "
            "it), and every Small detector's behind it or behind the projection"
        }
    ),
    bn_eps=1e-5,
    keymap=_keymap,
    trained_on="ImageNet's mean and deviation",
)
