"""xiaolai518/mobilenetv3 (once xiaolai-sqlai): three generations of files with three blocks.

The oldest gates have no pooling; the next have it; the ones of 300 and 450 epochs ("act3") are
another network. Compact, ujsyehao and qfgaohao copied the first and the second.
"""

from __future__ import annotations

from types import MappingProxyType

from mbv3ssd_deploy.checkpoint.backbones.family import CLASSIFIER_DROPPED, BackboneFamily
from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.families.qfgaohao import base_rules
from mbv3ssd_deploy.checkpoint.families.xiaolai import POOLED_GATE, backbone_rules
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.names import NetNames

LARGE_KEY = "bneck.14.conv1.weight"
_IMAGENET = "ImageNet's mean and deviation"
_ACT3 = (
    "its blocks activate after the addition and lead their input around through convolutions of "
    "their own, which no detector does"
)


def _old(_arch: ArchSpec, names: NetNames) -> KeyMap:
    return KeyMap(tuple(backbone_rules("", names)))


def _pooled(_arch: ArchSpec, names: NetNames) -> KeyMap:
    return KeyMap(tuple(backbone_rules("", names, POOLED_GATE)))


def _base_net(_arch: ArchSpec, names: NetNames) -> KeyMap:
    return KeyMap(tuple(base_rules("", names)))


def _nothing(_arch: ArchSpec, _names: NetNames) -> KeyMap:
    return KeyMap((KeyRule(r".+", None, CLASSIFIER_DROPPED),))


XIAOLAI_OLD = BackboneFamily(
    name="xiaolai-old",
    title="xiaolai518/mobilenetv3, mbv3_large.old and mbv3_small.old",
    signature=Signature(present=("linear4.weight",), ranks=(("bneck.3.se.se.0.weight", 4),)),
    large_key=LARGE_KEY,
    layouts=MappingProxyType({Backbone.LARGE: "ujsyehao"}),
    why_not=MappingProxyType(
        {Backbone.SMALL: "its gates do not pool, and every Small detector's do"}
    ),
    bn_eps=1e-5,
    keymap=_old,
    trained_on=_IMAGENET,
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
    layouts=MappingProxyType({Backbone.LARGE: "qfgaohao", Backbone.SMALL: "qfgaohao"}),
    why_not=MappingProxyType({}),
    bn_eps=1e-5,
    keymap=_pooled,
    trained_on=_IMAGENET,
)
XIAOLAI_ACT3 = BackboneFamily(
    name="xiaolai-act3",
    title="xiaolai518/mobilenetv3, 300_act3 and 450_act3",
    signature=Signature(present=("linear4.weight", "bneck.1.skip.0.weight")),
    large_key=LARGE_KEY,
    layouts=MappingProxyType({}),
    why_not=MappingProxyType({Backbone.LARGE: _ACT3, Backbone.SMALL: _ACT3}),
    bn_eps=1e-5,
    keymap=_nothing,
    trained_on=_IMAGENET,
)
QFGAOHAO_BASE = BackboneFamily(
    name="qfgaohao-base",
    title="the bare base net of qfgaohao/pytorch-ssd, as its --base_net takes it",
    signature=Signature(present=("0.weight", "3.conv1.weight", "3.bn3.weight")),
    large_key="17.conv1.weight",
    layouts=XIAOLAI_POOLED.layouts,
    why_not=MappingProxyType({}),
    bn_eps=1e-5,
    keymap=_base_net,
    trained_on="not known",
)
