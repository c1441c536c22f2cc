"""What qfgaohao/pytorch-ssd and the code made from it share: priors, heads, decoding, extras.

Facts from qfgaohao/pytorch-ssd 7a839cb: `mobilenetv1_ssd_config.py`, `predictor.py` and
`mobilenetv3_ssd_lite.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.family import HeadKeys
from mbv3ssd_deploy.checkpoint.keymap import LEAF, KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import (
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    InputSpec,
    PriorLevel,
    PriorSpec,
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.nets.plan import BlockNames, NetNames

SIZE = 300
# Pixels of a 300 x 300 image. The steps are not 300 / map size: on the second level the last centre
# lies beyond the image, and is clamped.
STEPS = (16, 32, 64, 100, 150, 300)
BOX_SIZES = ((60, 105), (105, 150), (150, 195), (195, 240), (240, 285), (285, 330))
"""Smallest and largest box of each level, in pixels of the input."""
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)
EXTRAS = (512, 256, 256, 64)
FIRST_BLOCK = 3
"""The base net is one list: 0 stem convolution, 1 BatchNorm, 2 activation, then the blocks."""
LAST_LEVEL = 5
HEAD_ITEMS = (("0", "0.0"), ("1", "0.1"), ("3", "1"))
"""Items of a predictor (2 is the activation) and what they are called here."""
HEADS = tuple(
    HeadKeys(
        f"classification_headers.{level}{item}.weight", f"regression_headers.{level}{item}.weight"
    )
    for level, item in ((0, ".3"), (1, ".3"), (2, ".3"), (3, ".3"), (4, ".3"), (LAST_LEVEL, ""))
)
DECODE = DecodeSpec(
    score_threshold=0.01,
    iou_threshold=0.45,
    candidates_per_class=200,
    keep_per_class=None,
    keep_total=None,
    clip_before_nms=False,
    iou_epsilon=1e-5,
    order=ResultOrder.CLASS,
)


def fixed_step_priors(
    maps: Sequence[tuple[int, int]], size: int = SIZE, steps: Sequence[int] = STEPS
) -> PriorSpec:
    """Return the priors of six feature maps (rows, columns) for an image of `size` x `size`."""
    levels = tuple(
        PriorLevel(rows, cols, float(step), float(step), float(small), float(large), RATIOS)
        for (rows, cols), step, (small, large) in zip(maps, steps, BOX_SIZES, strict=True)
    )
    return PriorSpec(float(size), float(size), levels, ClipRule.CENTRE_FORM)


def grey_input(height: int, width: int, std: float) -> InputSpec:
    """Return an RGB input of (pixel - 127) / std."""
    return InputSpec(
        height,
        width,
        ChannelOrder.RGB,
        mean=(127.0, 127.0, 127.0),
        std=(std, std, std),
        resize=ResizeRule.CV2_U8,
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


CUT_TAPS = (Tap(14, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT))
"""The taps of compact and ujsyehao: inside the block that strides last, and the last feature."""
BLOCK_PARTS = r"conv[123]|bn[123]"
POOLED_GATE = (("1", "fc1"), ("2", "norm1"), ("4", "fc2"), ("5", "norm2"))
BARE_GATE = (("0", "fc1"), ("1", "norm1"), ("3", "fc2"), ("4", "norm2"))


def triple_block_rules(
    source: str, block: BlockNames, gate: Sequence[tuple[str, str]] = BARE_GATE
) -> list[KeyRule]:
    """Return the rules of the block `source`; `gate` tells the items of its Sequential."""
    rules = triple_rules(source, (str(block.expand), block.depthwise, block.project))
    if block.squeeze is not None:
        rules += [
            move_leaves(f"{source}.se.se.{item}", f"{block.squeeze}.{name}") for item, name in gate
        ]
    if block.shortcut is not None:
        rules += [move_leaves(f"{source}.shortcut.{i}", f"{block.shortcut}.{i}") for i in (0, 1)]
    return rules


def triple_rules(source: str, targets: tuple[str, str, str]) -> list[KeyRule]:
    """Return the rules of conv1, bn1, conv2, bn2, conv3, bn3: expansion, depthwise, projection."""
    return [
        move_leaves(f"{source}.{leaf}{number}", f"{target}.{item}")
        for number, target in enumerate(targets, start=1)
        for item, leaf in enumerate(("conv", "bn"))
    ]


def extra_rules(names: NetNames) -> list[KeyRule]:
    """Return the rules of `extras.N`, blocks of the same kind, in pytorch-ssd."""
    return [
        rule
        for number, extra in enumerate(names.extras)
        for rule in triple_rules(f"extras.{number}", (f"{extra}.0", f"{extra}.1", f"{extra}.2"))
    ]


def backbone_rules(
    source: str, names: NetNames, gate: Sequence[tuple[str, str]] = BARE_GATE
) -> list[KeyRule]:
    """Return the rules of the whole network, whose keys begin with `source`.

    Its classifier feeds no detector.
    """
    rules = [
        move_leaves(f"{source}conv1", f"{names.stem}.0"),
        move_leaves(f"{source}bn1", f"{names.stem}.1"),
        move_leaves(f"{source}conv2", str(names.last)),
        move_leaves(f"{source}bn2", str(names.last_norm)),
        KeyRule(
            rf"{re.escape(source)}(linear3|bn3|linear4)\..+",
            None,
            "part of the classifier, which no detector runs",
        ),
    ]
    for number, block in enumerate(names.blocks):
        rules += triple_block_rules(f"{source}bneck.{number}", block, gate)
    return rules


def flat_extra_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of extra levels that lie in one list of twelve `source`.N."""
    return [
        move_leaves(f"{source}.{3 * number + part}.{item}", f"{extra}.{part}.{item}")
        for number, extra in enumerate(names.extras)
        for part in range(3)
        for item in (0, 1)
    ]
