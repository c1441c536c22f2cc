"""jungin500/mobilenetv3-ssd-torch: custom-mb3-small-ssd-lite, trained at 300 x 300.

Facts from its commits b6f596a and 33a1c4a: pytorch-ssd on a backbone of its own. Blocks without a
gate multiply their map with itself, every block adds its input through a 1x1 convolution, and the
last convolution is activated before its BatchNorm. Its plain mb3-large and mb3-small are
`qfgaohao`'s.
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.families.family import Draft, Family, Signature, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import read_heads
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
from mbv3ssd_deploy.checkpoint.families.xiaolai import BLOCK_PARTS, extra_rules
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, DetectorSpec, Tap, TapPlace
from mbv3ssd_deploy.nets.names import BlockNames, NetNames, name_modules
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

LAST_CONV = "base_net.14.weight"


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
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
    found = shape_evidence(contents, LAST_CONV, "MobileNetV3-Small")
    return preset_draft(preset, read_heads(contents, HEADS), found)


def _keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    return KeyMap((*base_rules("base_net.", names), *extra_rules(names), *header_rules(names)))


def base_rules(source: str, names: NetNames) -> list[KeyRule]:
    """Return the rules of the base net, one list whose items are `source`0, `source`1, ..."""
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves(f"{source}0", f"{names.stem}.0"),
        move_leaves(f"{source}1", f"{names.stem}.1"),
        move_leaves(f"{source}{after}", str(names.last)),
        move_leaves(f"{source}{after + 2}", str(names.last_norm)),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += _block_rules(f"{source}{number}", block)
    return rules


def _block_rules(source: str, block: BlockNames) -> list[KeyRule]:
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
    draft=_draft,
    keymap=_keymap,
)
