"""qfgaohao/pytorch-ssd and the code made from it: jungin500, tongyu, shaoshengsong, lufficc.

Facts from qfgaohao/pytorch-ssd 7a839cb: `mobilenetv1_ssd_config.py`, `predictor.py` and
`mobilenetv3_ssd_lite.py`. The base net is one list: stem convolution, BatchNorm, activation, the
blocks, the last convolution with its BatchNorm and activation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import torch

from mbv3ssd_deploy.checkpoint.families.family import (
    SSD_DECODE,
    Family,
    HeadKeys,
    Preset,
    PriorTable,
    Signature,
    draft_by_key,
    full_arch,
    rgb_input,
)
from mbv3ssd_deploy.checkpoint.families.xiaolai import (
    BLOCK_PARTS,
    HEAD_ITEMS,
    POOLED_GATE,
    extra_rules,
    triple_block_rules,
)
from mbv3ssd_deploy.checkpoint.keymap import LEAF, KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    Backbone,
    DetectorSpec,
    NmsScope,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.nets.plan import BlockNames, NetNames, name_modules

EXTRAS = (512, 256, 256, 64)
FIRST_BLOCK = 3
"""The item of the base net that is the first block."""
LAST_LEVEL = 5
QFGAOHAO_TAPS = {
    Backbone.LARGE: (Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT)),
    Backbone.SMALL: (Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
}
# Large's second header was put one layer too early: it does not see the last h-swish.
TONGYU_TAPS = {
    Backbone.LARGE: (Tap(14, TapPlace.EXPANSION), Tap(17, TapPlace.BEFORE_ACTIVATION)),
    Backbone.SMALL: (Tap(9, TapPlace.EXPANSION), Tap(13, TapPlace.OUTPUT)),
}
_QFGAOHAO_LARGE = Preset(
    family="qfgaohao",
    name="mb3-large-ssd-lite",
    arch=full_arch("qfgaohao", Backbone.LARGE, QFGAOHAO_TAPS[Backbone.LARGE], EXTRAS),
    input=rgb_input(300, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
    priors=PriorTable(
        size=300,
        boxes=((60, 105), (105, 150), (150, 195), (195, 240), (240, 285), (285, 330)),
        # not 300 / map size: on the second level the last centre lies beyond the image, and is
        # clamped
        steps=(16, 32, 64, 100, 150, 300),
    ),
    decode=dataclasses.replace(
        SSD_DECODE, candidates_per_class=200, keep_total=None, iou_epsilon=1e-5
    ),
    heads=tuple(
        HeadKeys(
            f"classification_headers.{level}{item}.weight",
            f"regression_headers.{level}{item}.weight",
        )
        for level, item in enumerate((*[".3"] * LAST_LEVEL, ""))
    ),
    # each backbone's last convolution is at an item where the other has a block or nothing
    key="base_net.18.weight",
)
_QFGAOHAO_SMALL = dataclasses.replace(
    _QFGAOHAO_LARGE,
    name="mb3-small-ssd-lite",
    arch=full_arch("qfgaohao", Backbone.SMALL, QFGAOHAO_TAPS[Backbone.SMALL], EXTRAS),
    key="base_net.14.weight",
)
# jungin500/mobilenetv3-ssd-torch, commits b6f596a and 33a1c4a: a backbone of its own. Blocks
# without a gate multiply their map with itself, every block adds its input through a 1x1
# convolution, and the last convolution is activated before its BatchNorm. Its mb3-large and
# mb3-small are qfgaohao's.
_JUNGIN500 = dataclasses.replace(
    _QFGAOHAO_SMALL,
    family="jungin500",
    name="custom-mb3-small-ssd-lite",
    arch=dataclasses.replace(_QFGAOHAO_SMALL.arch, layout="jungin500"),
)
# tongyuhome/MobileNetV3-SSD 66984aa, and shaoshengsong/MobileNetV3-SSD 6a406b2 with the same keys:
# leaderj1001's backbone. Both feed RGB - 127; only shaoshengsong divides by 128 as pytorch-ssd does
# (tongyuhome has that line commented out everywhere). Keys and shapes cannot distinguish them, the
# BatchNorm statistics can. In Large, 18 is the last convolution and 21 the wide one.
_TONGYU_LARGE = dataclasses.replace(
    _QFGAOHAO_LARGE,
    family="tongyu",
    name="mb3l-ssd-lite",
    arch=full_arch("tongyu_large", Backbone.LARGE, TONGYU_TAPS[Backbone.LARGE], EXTRAS),
    input=rgb_input(300, mean=(127.0, 127.0, 127.0), std=(1.0, 1.0, 1.0)),
    key="base_net.21.weight",
    key_role="wide convolution",
)
_TONGYU_SMALL = dataclasses.replace(
    _TONGYU_LARGE,
    name="mb3s-ssd-lite",
    arch=full_arch("tongyu_small", Backbone.SMALL, TONGYU_TAPS[Backbone.SMALL], EXTRAS),
    key="base_net.18.weight",
)
_FOREIGN_LARGE = (
    "by its statistics this Large network was trained on (pixel - 127) / 128, which tongyuhome's "
    "code does not do: it is read as shaoshengsong, which does; --family tongyu if that is wrong"
)
_SHAOSHENGSONG_LARGE, _SHAOSHENGSONG_SMALL = (
    dataclasses.replace(
        preset, family="shaoshengsong", input=_QFGAOHAO_LARGE.input, notices=notices
    )
    for preset, notices in ((_TONGYU_LARGE, (_FOREIGN_LARGE,)), (_TONGYU_SMALL, ()))
)
# lufficc/SSD 68dc0a2: the backbone, `configs/mobilenet_v3_ssd320_voc0712.yaml`, the prior box and
# the post-processor; d-li14's MobileNetV3-Large at 320 x 320. Its extra levels are gated blocks.
_PREDICTOR = "box_head.predictor"
_LUFFICC = Preset(
    family="lufficc",
    name="mobilenet_v3_ssd320",
    arch=full_arch("lufficc", Backbone.LARGE, QFGAOHAO_TAPS[Backbone.LARGE], EXTRAS),
    input=rgb_input(320, mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0)),
    priors=dataclasses.replace(_QFGAOHAO_LARGE.priors, size=320, steps=(16, 32, 64, 107, 160, 320)),
    decode=dataclasses.replace(
        SSD_DECODE, keep_total=100, order=ResultOrder.SCORE, nms_scope=NmsScope.ALL_CLASSES
    ),
    heads=tuple(
        HeadKeys(
            f"{_PREDICTOR}.cls_headers.{level}{item}.weight",
            f"{_PREDICTOR}.reg_headers.{level}{item}.weight",
        )
        for level, item in enumerate((*[".conv.3"] * LAST_LEVEL, ""))
    ),
    key="backbone.features.16.0.weight",
)


def keys_like(base: str, extras: str) -> str:
    """Return the pattern of a family's keys; `base` and `extras` are the parts of their blocks."""
    return (
        rf"(base_net\.\d+(\.({base}))?|extras\.\d+\.({extras})"
        rf"|(classification|regression)_headers\.\d+(\.\d)?)\.{LEAF}"
    )


def header_rules(names: NetNames) -> list[KeyRule]:
    """Return the rules of `classification_headers` and `regression_headers`."""
    return [
        *predictor_rules("classification_headers", names.classification),
        *predictor_rules("regression_headers", names.regression),
    ]


def predictor_rules(source: str, targets: Sequence[str], inside: str = "") -> list[KeyRule]:
    """Return the rules of one head: `source`.0 to `source`.5, of which the last is bare."""
    rules = [
        move_leaves(f"{source}.{level}{inside}.{theirs}", f"{target}.{ours}")
        for level, target in enumerate(targets[:LAST_LEVEL])
        for theirs, ours in HEAD_ITEMS
    ]
    return [*rules, move_leaves(f"{source}.{LAST_LEVEL}", targets[LAST_LEVEL])]


def _base_net(
    source: str, names: NetNames, norm: int, block_rules: Callable[[str, BlockNames], list[KeyRule]]
) -> list[KeyRule]:
    """Return the rules of a base net; its last BatchNorm is `norm` items behind the convolution."""
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves(f"{source}0", f"{names.stem}.0"),
        move_leaves(f"{source}1", f"{names.stem}.1"),
        move_leaves(f"{source}{after}", str(names.last)),
        move_leaves(f"{source}{after + norm}", str(names.last_norm)),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += block_rules(f"{source}{number}", block)
    return rules


def qfgaohao_base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of qfgaohao's base net, whose items are `source`0, `source`1, ..."""
    return _base_net(source, names, 1, functools.partial(triple_block_rules, gate=POOLED_GATE))


def jungin500_base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of jungin500's base net, whose items are `source`0, `source`1, ..."""
    return _base_net(source, names, 2, _jungin500_block_rules)


def tongyu_base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of tongyuhome's base net: behind the last convolution a gate in Small."""
    after, gate = FIRST_BLOCK + len(names.blocks), names.last_squeeze
    norm = 1 if gate is None else 2
    rules = _base_net(source, names, norm, tongyu_block_rules)
    rules.append(move_leaves(f"{source}{after + norm + 2}", str(names.wide)))
    return rules if gate is None else [*rules, *gate_rules(f"{source}{after + 1}", gate)]


def _jungin500_block_rules(source: str, block: BlockNames) -> list[KeyRule]:
    parts = (("0", block.expand), ("1", block.depthwise), ("final", block.project))
    rules = [
        move_leaves(f"{source}.bottleneck_{theirs}_{item}", f"{ours}.{item}")
        for theirs, ours in parts
        for item in (0, 1)
    ]
    rules.append(move_leaves(f"{source}.bottleneck_final_2", str(block.shortcut)))
    if block.squeeze is not None:
        rules += [
            move_leaves(f"{source}.squeeze_excite_0.se_{number}_0", f"{block.squeeze}.fc{number}")
            for number in (1, 2)
        ]
    return rules


def tongyu_block_rules(source: str, block: BlockNames) -> list[KeyRule]:
    """Return the rules of leaderj1001's block `source`."""
    parts = (("conv", block.expand), ("depth_conv", block.depthwise), ("point_conv", block.project))
    rules = [
        move_leaves(f"{source}.{theirs}.{item}", f"{ours}.{item}")
        for theirs, ours in parts
        for item in (0, 1)
    ]
    if block.squeeze is not None:
        rules += gate_rules(f"{source}.squeeze_block", block.squeeze)
    return rules


def gate_rules(source: str, target: str) -> list[KeyRule]:
    """Return the rules of leaderj1001's gate `source`."""
    return [
        move_leaves(f"{source}.dense.{item}", f"{target}.{name}")
        for item, name in ((0, "fc1"), (2, "fc2"))
    ]


# Items of d-li14's block: 2 (and 6, behind the gate at 5) are activations.
EXPANDED = ((0, 1), (3, 4), (7, 8))
PLAIN = ((0, 1), (4, 5))
GATE = 5


def lufficc_block_rules(source: str, parts: Sequence[str], squeeze: str | None) -> list[KeyRule]:
    """Return the rules of d-li14's block `source`, which has two parts or, expanding, three."""
    places = EXPANDED if len(parts) == len(EXPANDED) else PLAIN
    rules = [
        move_leaves(f"{source}.conv.{theirs}", f"{part}.{item}")
        for part, items in zip(parts, places, strict=True)
        for item, theirs in enumerate(items)
    ]
    if squeeze is not None:
        rules += [
            move_leaves(f"{source}.conv.{GATE}.fc.{item}", f"{squeeze}.{name}")
            for item, name in ((0, "fc1"), (2, "fc2"))
        ]
    return rules


def _qfgaohao_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    base = qfgaohao_base_rules("base_net.", names)
    return KeyMap((*base, *extra_rules(names), *header_rules(names)))


def _jungin500_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    base = jungin500_base_rules("base_net.", names)
    return KeyMap((*base, *extra_rules(names), *header_rules(names)))


def _tongyu_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = tongyu_base_rules("base_net.", names)
    # convolution and BatchNorm of the parts of an extra level; 2 and 5 are activations
    for number, extra in enumerate(names.extras):
        rules += [
            move_leaves(f"extras.{number}.conv.{theirs}", f"{extra}.{part}.{item}")
            for part, items in enumerate((("0", "1"), ("3", "4"), ("6", "7")))
            for item, theirs in enumerate(items)
        ]
    return KeyMap((*rules, *header_rules(names)))


def _lufficc_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = [
        move_leaves("backbone.features.0.0", f"{names.stem}.0"),
        move_leaves("backbone.features.0.1", f"{names.stem}.1"),
        move_leaves("backbone.features.16.0", str(names.last)),
        move_leaves("backbone.features.16.1", str(names.last_norm)),
    ]
    for number, block in enumerate(names.blocks, start=1):
        parts = (block.expand, block.depthwise, block.project)
        source = f"backbone.features.{number}"
        rules += lufficc_block_rules(
            source, [part for part in parts if part is not None], block.squeeze
        )
    for number, extra in enumerate(names.extras):
        parts = (f"{extra}.0", f"{extra}.1", f"{extra}.2")
        rules += lufficc_block_rules(f"backbone.extras.{number}", parts, f"{extra}.1.2")
    rules += predictor_rules(f"{_PREDICTOR}.cls_headers", names.classification, ".conv")
    rules += predictor_rules(f"{_PREDICTOR}.reg_headers", names.regression, ".conv")
    return KeyMap(tuple(rules))


_SCALE_THRESHOLD = 40.0
"""Between the variance of pixels / 128 (about 0.3) and that of pixels (about 5000)."""
_FIRST_CONV, _FIRST_NORM = "base_net.0.weight", "base_net.1.running_var"


def _input_variance(contents: RawCheckpoint) -> float | None:
    """Return roughly the variance of the input, by the statistics of the first BatchNorm.

    The median over the channels of running variance / sum of the squared weights: what a
    convolution does to the variance of uncorrelated inputs. About 0.3 for (pixel - 127) / 128, 1.6
    for inputs normalised as for ImageNet, and 5000 for pixels less their mean.

    None where the tensors are missing, do not fit each other, or are not finite.
    """
    weight, running = map(contents.tensors.get, (_FIRST_CONV, _FIRST_NORM))
    if weight is None or running is None or weight.dim() < 2 or running.dim() != 1:
        return None
    if weight.is_meta or running.is_meta:  # tensors of a kind that has no usable values
        return None
    if len(weight) != len(running) or not len(running):
        return None
    gains = weight.to(torch.float64).square().flatten(1).sum(1)
    ratio = float((running.to(torch.float64) / gains).median())
    return ratio if math.isfinite(ratio) and ratio > 0 else None


def _decide_by_scale(contents: RawCheckpoint, *, divided: bool) -> tuple[bool, str]:
    variance = _input_variance(contents)
    if variance is None:
        return False, (
            f"{_FIRST_NORM} does not show whether it was trained on pixel - 127 (tongyu) or on "
            "(pixel - 127) / 128 (shaoshengsong)"
        )
    below = variance < _SCALE_THRESHOLD
    fed = "(pixel - 127) / 128, as shaoshengsong" if below else "pixel - 127, as tongyu"
    return below is divided, (
        f"{_FIRST_NORM} over the squares of {_FIRST_CONV} shows an input of variance "
        f"{variance:.3g} "
        f"({'below' if below else 'not below'} {_SCALE_THRESHOLD:g}): trained on {fed}"
    )


QFGAOHAO = Family(
    name="qfgaohao",
    title="qfgaohao/pytorch-ssd mb3-large-ssd-lite and mb3-small-ssd-lite",
    signature=Signature(
        present=(
            "classification_headers.0.0.weight",
            "base_net.3.conv1.weight",
            "base_net.3.bn3.weight",
        ),
        like=keys_like(rf"{BLOCK_PARTS}|se\.se\.\d|shortcut\.\d", BLOCK_PARTS),
    ),
    draft=functools.partial(draft_by_key, (_QFGAOHAO_LARGE, _QFGAOHAO_SMALL)),
    keymap=_qfgaohao_keymap,
)
_TONGYU_SIGNATURE = Signature(
    present=("classification_headers.0.0.weight", "base_net.3.depth_conv.0.weight"),
    like=keys_like(r"(depth_|point_)?conv\.\d|(squeeze_block\.)?dense\.\d", r"conv\.\d"),
)

TONGYU = Family(
    name="tongyu",
    title="tongyuhome/MobileNetV3-SSD mb3s-ssd-lite and mb3l-ssd-lite",
    signature=_TONGYU_SIGNATURE,
    draft=functools.partial(draft_by_key, (_TONGYU_LARGE, _TONGYU_SMALL)),
    keymap=_tongyu_keymap,
    decide=functools.partial(_decide_by_scale, divided=False),
)
SHAOSHENGSONG = Family(
    name="shaoshengsong",
    title="shaoshengsong/MobileNetV3-SSD (tongyuhome's keys, inputs divided by 128)",
    signature=_TONGYU_SIGNATURE,
    draft=functools.partial(draft_by_key, (_SHAOSHENGSONG_LARGE, _SHAOSHENGSONG_SMALL)),
    keymap=_tongyu_keymap,
    decide=functools.partial(_decide_by_scale, divided=True),
)
JUNGIN500 = Family(
    name="jungin500",
    title="jungin500/mobilenetv3-ssd-torch custom-mb3-small-ssd-lite",
    signature=Signature(
        present=("classification_headers.0.0.weight", "base_net.3.bottleneck_0_0.weight"),
        like=keys_like(r"bottleneck_(\d|final)_\d|squeeze_excite_0\.se_\d_0", BLOCK_PARTS),
    ),
    draft=functools.partial(draft_by_key, (_JUNGIN500,)),
    keymap=_jungin500_keymap,
)
LUFFICC = Family(
    name="lufficc",
    title="lufficc/SSD mobilenet_v3_ssd320",
    signature=Signature(
        present=(
            "backbone.features.1.conv.0.weight",
            "backbone.extras.0.conv.5.fc.0.weight",
            "box_head.predictor.cls_headers.0.conv.0.weight",
        ),
        like=r"(backbone\.(features|extras)\.\d+\.(conv\.\d(\.fc\.\d)?|\d)"
        rf"|box_head\.predictor\.(cls|reg)_headers\.\d+(\.conv\.\d)?)\.{LEAF}",
    ),
    draft=functools.partial(draft_by_key, (_LUFFICC,)),
    keymap=_lufficc_keymap,
)
