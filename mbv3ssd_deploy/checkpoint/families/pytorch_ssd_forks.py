"""qfgaohao/pytorch-ssd: mb3-large-ssd-lite and mb3-small-ssd-lite, trained at 300 x 300.

Facts from its commit 7a839cb: `mobilenetv3_ssd_lite.py`. After the blocks of the base net come the
last convolution, its BatchNorm and activation.
"""

from __future__ import annotations

import dataclasses
import functools

from mbv3ssd_deploy.checkpoint.families.family import (
    Draft,
    Family,
    Preset,
    Signature,
    SpecRequest,
    input_variance,
    preset_draft,
    read_heads,
    shape_evidence,
    table_size,
)
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    BLOCK_PARTS,
    DECODE,
    EXTRAS,
    FIRST_BLOCK,
    HEADS,
    POOLED_GATE,
    SIZE,
    extra_rules,
    fixed_step_priors,
    grey_input,
    header_rules,
    keys_like,
    triple_block_rules,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, DetectorSpec, Tap, TapPlace
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.nets.plan import BlockNames, NetNames, feature_map_sizes, name_modules

# The last convolution tells the backbone: each stands where the other has a block or nothing.
_QFGAOHAO_LAST_CONV = {Backbone.LARGE: "base_net.18.weight", Backbone.SMALL: "base_net.14.weight"}
QFGAOHAO_TAPS = {
    Backbone.LARGE: (Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT)),
    Backbone.SMALL: (Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
}


def _qfgaohao_draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    backbone = next((b for b, key in _QFGAOHAO_LAST_CONV.items() if key in contents.tensors), None)
    if backbone is None:
        raise CheckpointError(
            f"neither {' nor '.join(_QFGAOHAO_LAST_CONV.values())} exists: the last convolutions "
            "of the Large and the Small backbone"
        )
    height, width = table_size(request, SIZE)
    arch = ArchSpec(
        layout="qfgaohao",
        backbone=backbone,
        width_mult=1.0,
        reduced_tail=False,
        taps=QFGAOHAO_TAPS[backbone],
        extras=EXTRAS,
    )
    preset = Preset(
        family="qfgaohao",
        name=f"mb3-{backbone}-ssd-lite",
        arch=arch,
        input=grey_input(height, width, 128.0),
        priors=fixed_step_priors(feature_map_sizes(arch, height, width)),
        decode=DECODE,
    )
    found = shape_evidence(
        contents, _QFGAOHAO_LAST_CONV[backbone], f"MobileNetV3-{backbone.capitalize()}"
    )
    return preset_draft(preset, read_heads(contents, HEADS), found)


def _qfgaohao_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    return KeyMap(
        (*qfgaohao_base_rules("base_net.", names), *extra_rules(names), *header_rules(names))
    )


def qfgaohao_base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of the base net, one list whose items are `source`0, `source`1, ..."""
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves(f"{source}0", f"{names.stem}.0"),
        move_leaves(f"{source}1", f"{names.stem}.1"),
        move_leaves(f"{source}{after}", str(names.last)),
        move_leaves(f"{source}{after + 1}", str(names.last_norm)),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += triple_block_rules(f"{source}{number}", block, POOLED_GATE)
    return rules


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
    draft=_qfgaohao_draft,
    keymap=_qfgaohao_keymap,
)


# The wide convolution tells the backbone: in Large, 18 is the last one and 21 the wide one.
WIDE_CONV = {Backbone.LARGE: "base_net.21.weight", Backbone.SMALL: "base_net.18.weight"}
# Large's second header was put one layer too early: it does not see the last h-swish.
TONGYU_TAPS = {
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


def _tongyu_draft(
    contents: RawCheckpoint, request: SpecRequest, *, family: str, std: float
) -> Draft:
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
        taps=TONGYU_TAPS[backbone],
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


def _tongyu_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    rules = tongyu_base_rules("base_net.", names)
    for number, extra in enumerate(names.extras):
        rules += [
            move_leaves(f"extras.{number}.conv.{theirs}", f"{extra}.{part}.{item}")
            for part, items in enumerate(EXTRA_ITEMS)
            for item, theirs in enumerate(items)
        ]
    return KeyMap((*rules, *header_rules(names)))


def tongyu_base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of the base net, one list whose items are `source`0, `source`1, ..."""
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves(f"{source}0", f"{names.stem}.0"),
        move_leaves(f"{source}1", f"{names.stem}.1"),
        *_tail_rules(source, names, after),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += tongyu_block_rules(f"{source}{number}", block)
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
    draft=functools.partial(_tongyu_draft, family="tongyu", std=1.0),
    keymap=_tongyu_keymap,
    tell=functools.partial(_told_apart, divided=False),
)
SHAOSHENGSONG = Family(
    name="shaoshengsong",
    title="shaoshengsong/MobileNetV3-SSD (tongyuhome's keys, inputs divided by 128)",
    signature=_SIGNATURE,
    draft=functools.partial(_tongyu_draft, family="shaoshengsong", std=128.0),
    keymap=_tongyu_keymap,
    tell=functools.partial(_told_apart, divided=True),
)


_JUNGIN500_LAST_CONV = "base_net.14.weight"


def _jungin500_draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    height, width = table_size(request, SIZE)
    arch = ArchSpec(
        layout="jungin500",
        backbone=Backbone.SMALL,
        width_mult=1.0,
        reduced_tail=False,
        taps=(Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
        extras=EXTRAS,
    )
    preset = Preset(
        family="jungin500",
        name="custom-mb3-small-ssd-lite",
        arch=arch,
        input=grey_input(height, width, 128.0),
        priors=fixed_step_priors(feature_map_sizes(arch, height, width)),
        decode=DECODE,
    )
    found = shape_evidence(contents, _JUNGIN500_LAST_CONV, "MobileNetV3-Small")
    return preset_draft(preset, read_heads(contents, HEADS), found)


def _jungin500_keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    return KeyMap(
        (*jungin500_base_rules("base_net.", names), *extra_rules(names), *header_rules(names))
    )


def jungin500_base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of the base net, one list whose items are `source`0, `source`1, ..."""
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves(f"{source}0", f"{names.stem}.0"),
        move_leaves(f"{source}1", f"{names.stem}.1"),
        move_leaves(f"{source}{after}", str(names.last)),
        move_leaves(f"{source}{after + 2}", str(names.last_norm)),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += _jungin500_block_rules(f"{source}{number}", block)
    return rules


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


JUNGIN500 = Family(
    name="jungin500",
    title="jungin500/mobilenetv3-ssd-torch custom-mb3-small-ssd-lite",
    signature=Signature(
        present=("classification_headers.0.0.weight", "base_net.3.bottleneck_0_0.weight"),
        like=keys_like(r"bottleneck_(\d|final)_\d|squeeze_excite_0\.se_\d_0", BLOCK_PARTS),
    ),
    draft=_jungin500_draft,
    keymap=_jungin500_keymap,
)
