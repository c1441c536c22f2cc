"""lufficc/SSD: mobilenet_v3_ssd320_voc0712, d-li14's MobileNetV3-Large at 320 x 320.

Facts from its commit 68dc0a2: the backbone, `configs/mobilenet_v3_ssd320_voc0712.yaml`, the prior
box and the post-processor. Its extra levels are blocks with a gate.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.family import (
    Draft,
    Family,
    HeadKeys,
    Preset,
    Signature,
    SpecRequest,
    preset_draft,
    read_heads,
    shape_evidence,
    table_size,
)
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    EXTRAS,
    fixed_step_priors,
    predictor_rules,
)
from mbv3ssd_deploy.checkpoint.keymap import LEAF, KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    ChannelOrder,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    NmsScope,
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.nets.plan import feature_map_sizes, name_modules

SIZE = 320
STEPS = (16, 32, 64, 107, 160, 320)
PREDICTOR = "box_head.predictor"
LAST_CONV = "backbone.features.16.0.weight"
HEADS = tuple(
    HeadKeys(
        f"{PREDICTOR}.cls_headers.{level}{item}.weight",
        f"{PREDICTOR}.reg_headers.{level}{item}.weight",
    )
    for level, item in enumerate((*[".conv.3"] * 5, ""))
)
# Items of a block: 2 (and 6, behind the gate at 5) are activations.
EXPANDED = ((0, 1), (3, 4), (7, 8))
PLAIN = ((0, 1), (4, 5))
GATE = 5


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    height, width = table_size(request, SIZE)
    arch = ArchSpec(
        layout="lufficc",
        backbone=Backbone.LARGE,
        width_mult=1.0,
        reduced_tail=False,
        taps=(Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT)),
        extras=EXTRAS,
    )
    preset = Preset(
        family="lufficc",
        name="mobilenet_v3_ssd320",
        arch=arch,
        input=InputSpec(
            height,
            width,
            ChannelOrder.RGB,
            mean=(123.0, 117.0, 104.0),
            std=(1.0, 1.0, 1.0),
            resize=ResizeRule.CV2_U8,
        ),
        priors=fixed_step_priors(feature_map_sizes(arch, height, width), SIZE, STEPS),
        decode=DecodeSpec(
            score_threshold=0.01,
            iou_threshold=0.45,
            candidates_per_class=None,
            keep_per_class=None,
            keep_total=100,
            clip_before_nms=False,
            iou_epsilon=0.0,
            order=ResultOrder.SCORE,
            nms_scope=NmsScope.ALL_CLASSES,
        ),
    )
    found = shape_evidence(contents, LAST_CONV, "MobileNetV3-Large")
    return preset_draft(preset, read_heads(contents, HEADS), found)


def _keymap(spec: DetectorSpec) -> KeyMap:
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
    rules += predictor_rules(f"{PREDICTOR}.cls_headers", names.classification, ".conv")
    rules += predictor_rules(f"{PREDICTOR}.reg_headers", names.regression, ".conv")
    return KeyMap(tuple(rules))


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
    draft=_draft,
    keymap=_keymap,
)
