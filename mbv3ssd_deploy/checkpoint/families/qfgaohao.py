"""qfgaohao/pytorch-ssd: mb3-large-ssd-lite and mb3-small-ssd-lite, trained at 300 x 300.

Facts from its commit 7a839cb: `mobilenetv3_ssd_lite.py`. After the blocks of the base net come the
last convolution, its BatchNorm and activation.
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
from mbv3ssd_deploy.checkpoint.families.xiaolai import (
    BLOCK_PARTS,
    POOLED_GATE,
    block_rules,
    extra_rules,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, DetectorSpec, Tap, TapPlace
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.nets.names import NetNames, name_modules
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

# The last convolution tells the backbone: each stands where the other has a block or nothing.
LAST_CONV = {Backbone.LARGE: "base_net.18.weight", Backbone.SMALL: "base_net.14.weight"}
TAPS = {
    Backbone.LARGE: (Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT)),
    Backbone.SMALL: (Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
}


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    backbone = next((b for b, key in LAST_CONV.items() if key in contents.tensors), None)
    if backbone is None:
        raise CheckpointError(
            f"neither {' nor '.join(LAST_CONV.values())} is there: the last convolution of the "
            "Large and of the Small backbone"
        )
    height, width = table_size(request, SIZE)
    arch = ArchSpec(
        layout="qfgaohao",
        backbone=backbone,
        width_mult=1.0,
        reduced_tail=False,
        taps=TAPS[backbone],
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
    found = shape_evidence(contents, LAST_CONV[backbone], f"MobileNetV3-{backbone.capitalize()}")
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
        move_leaves(f"{source}{after + 1}", str(names.last_norm)),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += block_rules(f"{source}{number}", block, POOLED_GATE)
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
    draft=_draft,
    keymap=_keymap,
)
