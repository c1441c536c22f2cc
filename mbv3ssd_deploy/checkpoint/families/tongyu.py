"""tongyuhome/MobileNetV3-SSD, and shaoshengsong/MobileNetV3-SSD with the same keys.

Facts from tongyuhome 66984aa and shaoshengsong 6a406b2: pytorch-ssd on leaderj1001's backbone. Both
feed RGB - 127; only shaoshengsong divides by 128 as pytorch-ssd does (tongyuhome has that line
commented out everywhere). Keys and shapes cannot tell them apart, the BatchNorm statistics can.
"""

from __future__ import annotations

import dataclasses
import functools

from mbv3ssd_deploy.checkpoint.families.family import Draft, Family, Signature, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import read_heads
from mbv3ssd_deploy.checkpoint.families.input_scale import input_variance
from mbv3ssd_deploy.checkpoint.families.preset import (
    Preset,
    preset_draft,
    shape_evidence,
    table_size,
)
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    DECODE,
    EXTRAS,
    FIRST_BLOCK,
    HEADS,
    SIZE,
    fixed_step_priors,
    grey_input,
    header_rules,
    keys_like,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, DetectorSpec, Tap, TapPlace
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.nets.names import BlockNames, NetNames, name_modules
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

# The wide convolution tells the backbone: in Large, 18 is the last one and 21 the wide one.
WIDE_CONV = {Backbone.LARGE: "base_net.21.weight", Backbone.SMALL: "base_net.18.weight"}
# Large's second header was put one layer too early: it does not see the last h-swish.
TAPS = {
    Backbone.LARGE: (Tap(14, TapPlace.EXPANSION), Tap(17, TapPlace.BEFORE_ACTIVATION)),
    Backbone.SMALL: (Tap(9, TapPlace.EXPANSION), Tap(13, TapPlace.OUTPUT)),
}
EXTRA_ITEMS = ("0", "1"), ("3", "4"), ("6", "7")
"""Convolution and BatchNorm of the three parts of an extra level (2 and 5 are activations)."""
SCALE_THRESHOLD = 40.0
"""Between the variance of pixels / 128 (about 0.3) and that of pixels (about 5000)."""
FOREIGN_LARGE = (
    "by its statistics this Large network was trained on (pixel - 127) / 128, which tongyuhome's "
    "code does not do: it is read as shaoshengsong, which does; --family tongyu if that is wrong"
)
FIRST_CONV, FIRST_NORM = "base_net.0.weight", "base_net.1.running_var"


def _draft(contents: RawCheckpoint, request: SpecRequest, *, family: str, std: float) -> Draft:
    backbone = next((b for b, key in WIDE_CONV.items() if key in contents.tensors), None)
    if backbone is None:
        raise CheckpointError(
            f"neither {' nor '.join(WIDE_CONV.values())} is there: the wide convolution of the "
            "Large and of the Small backbone"
        )
    height, width = table_size(request, SIZE)
    arch = ArchSpec(
        layout=f"tongyu_{backbone}",
        backbone=backbone,
        width_mult=1.0,
        reduced_tail=False,
        taps=TAPS[backbone],
        extras=EXTRAS,
    )
    preset = Preset(
        family=family,
        name=f"mb3{backbone[0]}-ssd-lite",
        arch=arch,
        input=grey_input(height, width, std),
        priors=fixed_step_priors(feature_map_sizes(arch, height, width)),
        decode=DECODE,
    )
    found = shape_evidence(contents, WIDE_CONV[backbone], f"MobileNetV3-{backbone.capitalize()}")
    draft = preset_draft(preset, read_heads(contents, HEADS), found)
    foreign = family == "shaoshengsong" and backbone is Backbone.LARGE
    return dataclasses.replace(draft, notices=(FOREIGN_LARGE,)) if foreign else draft


def _keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = base_rules("base_net.", names)
    for number, extra in enumerate(names.extras):
        rules += [
            move_leaves(f"extras.{number}.conv.{theirs}", f"{extra}.{part}.{item}")
            for part, items in enumerate(EXTRA_ITEMS)
            for item, theirs in enumerate(items)
        ]
    return KeyMap((*rules, *header_rules(names)))


def base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of the base net, one list whose items are `source`0, `source`1, ..."""
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves(f"{source}0", f"{names.stem}.0"),
        move_leaves(f"{source}1", f"{names.stem}.1"),
        *_tail_rules(source, names, after),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += block_rules(f"{source}{number}", block)
    return rules


def block_rules(source: str, block: BlockNames) -> list[KeyRule]:
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


def _tail_rules(source: str, names: NetNames, after: int) -> list[KeyRule]:
    """Return the rules behind the blocks: the last convolution, its gate if any, the wide one."""
    norm = after + 1 + (names.last_squeeze is not None)
    rules = [
        move_leaves(f"{source}{after}", str(names.last)),
        move_leaves(f"{source}{norm}", str(names.last_norm)),
        move_leaves(f"{source}{norm + 2}", str(names.wide)),
    ]
    gate = names.last_squeeze
    return rules if gate is None else [*rules, *gate_rules(f"{source}{after + 1}", gate)]


def _told_apart(contents: RawCheckpoint, *, divided: bool) -> tuple[bool, str]:
    variance = input_variance(contents, FIRST_CONV, FIRST_NORM)
    if variance is None:
        return False, (
            f"{FIRST_NORM} does not tell whether it was trained on pixel - 127 (tongyu) or on "
            "(pixel - 127) / 128 (shaoshengsong)"
        )
    below = variance < SCALE_THRESHOLD
    fed = "(pixel - 127) / 128, as shaoshengsong" if below else "pixel - 127, as tongyu"
    return below is divided, (
        f"{FIRST_NORM} over the squares of {FIRST_CONV} tells an input of variance {variance:.3g} "
        f"({'below' if below else 'not below'} {SCALE_THRESHOLD:g}): trained on {fed}"
    )


_SIGNATURE = Signature(
    present=("classification_headers.0.0.weight", "base_net.3.depth_conv.0.weight"),
    like=keys_like(r"(depth_|point_)?conv\.\d|(squeeze_block\.)?dense\.\d", r"conv\.\d"),
)

TONGYU = Family(
    name="tongyu",
    title="tongyuhome/MobileNetV3-SSD mb3s-ssd-lite and mb3l-ssd-lite",
    signature=_SIGNATURE,
    draft=functools.partial(_draft, family="tongyu", std=1.0),
    keymap=_keymap,
    tell=functools.partial(_told_apart, divided=False),
)
SHAOSHENGSONG = Family(
    name="shaoshengsong",
    title="shaoshengsong/MobileNetV3-SSD (tongyuhome's keys, inputs divided by 128)",
    signature=_SIGNATURE,
    draft=functools.partial(_draft, family="shaoshengsong", std=128.0),
    keymap=_keymap,
    tell=functools.partial(_told_apart, divided=True),
)
