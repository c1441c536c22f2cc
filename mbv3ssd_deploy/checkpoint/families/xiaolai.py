"""The block of xiaolai518/mobilenetv3, that qfgaohao, compact and ujsyehao copied.

Convolutions and BatchNorms are `conv1`, `bn1` to `conv3`, `bn3`, and the gate is the Sequential
`se.se`: convolution, BatchNorm, ReLU, convolution, BatchNorm. The early copies forgot the pooling
in front of it, so that there is a gate for each pixel; the later ones have it as item 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.keymap import KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import Tap, TapPlace
from mbv3ssd_deploy.nets.names import BlockNames, NetNames

CUT_TAPS = (Tap(14, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT))
"""The taps of compact and ujsyehao: inside the block that strides last, and the last feature."""
BLOCK_PARTS = r"conv[123]|bn[123]"
POOLED_GATE = (("1", "fc1"), ("2", "norm1"), ("4", "fc2"), ("5", "norm2"))
BARE_GATE = (("0", "fc1"), ("1", "norm1"), ("3", "fc2"), ("4", "norm2"))


def block_rules(
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
        rules += block_rules(f"{source}bneck.{number}", block, gate)
    return rules


def flat_extra_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of extra levels that lie in one list of twelve `source`.N."""
    return [
        move_leaves(f"{source}.{3 * number + part}.{item}", f"{extra}.{part}.{item}")
        for number, extra in enumerate(names.extras)
        for part in range(3)
        for item in (0, 1)
    ]
