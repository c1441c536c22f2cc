"""qfgaohao/pytorch-ssd: mb3-large-ssd-lite and mb3-small-ssd-lite, trained at 300 x 300.

Facts from its commit 7a839cb: `mobilenetv3_ssd_lite.py`, `mobilenetv1_ssd_config.py` and
`predictor.py`. The base net is one flat list: 0 stem convolution, 1 its BatchNorm, 2 its
activation, the blocks from 3 on, then the last convolution, its BatchNorm and activation.
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.contents import Contents
from mbv3ssd_deploy.checkpoint.families.class_lists import numbered_names
from mbv3ssd_deploy.checkpoint.families.family import Draft, Family, Signature, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import (
    HeadKeys,
    class_count,
    head_evidence,
    read_heads,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    BoxCoder,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorLevel,
    PriorSpec,
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.nets.names import BlockNames, name_modules
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

SIZE = 300
# Step and smallest and largest box of each level, in pixels of a 300 x 300 image. The steps are not
# 300 / map size: on the second level the last centre lies beyond the image, and is clamped.
LEVELS = (
    (16, 60, 105),
    (32, 105, 150),
    (64, 150, 195),
    (100, 195, 240),
    (150, 240, 285),
    (300, 285, 330),
)
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)
EXTRAS = (512, 256, 256, 64)
# The last convolution tells the backbone: each stands where the other has a block or nothing.
LAST_CONV = {Backbone.LARGE: "base_net.18.weight", Backbone.SMALL: "base_net.14.weight"}
TAPS = {
    Backbone.LARGE: (Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT)),
    Backbone.SMALL: (Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
}
FIRST_BLOCK = 3
LAST_LEVEL = 5
HEADS = tuple(
    HeadKeys(
        f"classification_headers.{level}{item}.weight", f"regression_headers.{level}{item}.weight"
    )
    for level, item in ((0, ".3"), (1, ".3"), (2, ".3"), (3, ".3"), (4, ".3"), (LAST_LEVEL, ""))
)


def _arch(backbone: Backbone) -> ArchSpec:
    return ArchSpec(
        layout="qfgaohao",
        backbone=backbone,
        width_mult=1.0,
        reduced_tail=False,
        taps=TAPS[backbone],
        extras=EXTRAS,
    )


def fixed_step_priors(arch: ArchSpec, request: SpecRequest) -> PriorSpec:
    """Return the priors of pytorch-ssd's MobileNet configurations.

    Raises:
        SpecError: another image size than 300 x 300, and no priors for it.
    """
    height, width = request.image_size or (SIZE, SIZE)
    if (height, width) != (SIZE, SIZE) and not request.priors_given:
        raise SpecError(
            f"this family's prior table is for {SIZE} x {SIZE} only, not {height} x {width}",
            hint="leave --imgsz out, or bring the priors that it was trained with: --spec",
        )
    levels = tuple(
        PriorLevel(rows, cols, float(step), float(step), float(small), float(large), RATIOS)
        for (rows, cols), (step, small, large) in zip(
            feature_map_sizes(arch, height, width), LEVELS, strict=True
        )
    )
    return PriorSpec(float(SIZE), float(SIZE), levels, ClipRule.CENTRE_FORM)


def _draft(contents: Contents, request: SpecRequest) -> Draft:
    backbone = next((b for b, key in LAST_CONV.items() if key in contents.tensors), None)
    if backbone is None:
        raise CheckpointError(
            f"neither {' nor '.join(LAST_CONV.values())} is there: the last convolution of the "
            "Large and of the Small backbone"
        )
    arch = _arch(backbone)
    priors = fixed_step_priors(arch, request)
    heads = read_heads(contents, HEADS)
    classes = class_count(heads)
    height, width = request.image_size or (SIZE, SIZE)
    spec = DetectorSpec(
        name=f"mb3-{backbone}-ssd-lite",
        family="qfgaohao",
        arch=arch,
        input=InputSpec(
            height,
            width,
            ChannelOrder.RGB,
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
            resize=ResizeRule.CV2_U8,
        ),
        class_names=numbered_names(classes),
        priors=priors,
        coder=BoxCoder(0.1, 0.2),
        decode=DecodeSpec(
            score_threshold=0.01,
            iou_threshold=0.45,
            candidates_per_class=200,
            keep_per_class=None,
            keep_total=None,
            clip_before_nms=False,
            iou_epsilon=1e-5,
            order=ResultOrder.CLASS,
        ),
    )
    shape = list(contents.shapes[LAST_CONV[backbone]])
    return Draft(
        spec=spec,
        heads=heads,
        evidence=(
            f"{LAST_CONV[backbone]} is {shape}: MobileNetV3-{backbone.capitalize()}",
            head_evidence(heads, classes),
        ),
        provenance={
            "arch": "weight shapes",
            "input": "family preset",
            "class_names": "head channels",
            "priors": "family preset",
            "coder": "family preset",
            "decode": "family preset",
        },
        names_given=False,
    )


def _keymap(spec: DetectorSpec) -> KeyMap:
    names = name_modules(spec.arch)
    after = FIRST_BLOCK + len(names.blocks)
    rules = [
        move_leaves("base_net.0", f"{names.stem}.0"),
        move_leaves("base_net.1", f"{names.stem}.1"),
    ]
    for number, block in enumerate(names.blocks, start=FIRST_BLOCK):
        rules += _block_rules(f"base_net.{number}", block)
    rules += [
        move_leaves(f"base_net.{after}", f"{names.last}.0"),
        move_leaves(f"base_net.{after + 1}", f"{names.last}.1"),
    ]
    for number, extra in enumerate(names.extras):
        rules += _triple_rules(f"extras.{number}", (f"{extra}.0", f"{extra}.1", f"{extra}.2"))
    for source, targets in (
        ("classification_headers", names.classification),
        ("regression_headers", names.regression),
    ):
        for level, target in enumerate(targets):
            rules += _head_rules(f"{source}.{level}", target, bare=level == LAST_LEVEL)
    return KeyMap(tuple(rules))


def _block_rules(source: str, block: BlockNames) -> list[KeyRule]:
    rules = _triple_rules(source, (str(block.expand), block.depthwise, block.project))
    if block.squeeze is not None:
        # the gate is a Sequential: 0 pooling, 1 convolution, 2 BatchNorm, 3 ReLU, 4, 5 again
        rules += [
            move_leaves(f"{source}.se.se.{item}", f"{block.squeeze}.{name}")
            for item, name in ((1, "fc1"), (2, "norm1"), (4, "fc2"), (5, "norm2"))
        ]
    if block.shortcut is not None:
        rules += [move_leaves(f"{source}.shortcut.{i}", f"{block.shortcut}.{i}") for i in (0, 1)]
    return rules


def _triple_rules(source: str, targets: tuple[str, str, str]) -> list[KeyRule]:
    """Return the rules of conv1, bn1, conv2, bn2, conv3, bn3: expansion, depthwise, projection."""
    return [
        move_leaves(f"{source}.{leaf}{number}", f"{target}.{item}")
        for number, target in enumerate(targets, start=1)
        for item, leaf in enumerate(("conv", "bn"))
    ]


def _head_rules(source: str, target: str, *, bare: bool) -> list[KeyRule]:
    if bare:
        return [move_leaves(source, target)]
    items = (("0", "0.0"), ("1", "0.1"), ("3", "1"))
    return [move_leaves(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in items]


QFGAOHAO = Family(
    name="qfgaohao",
    title="qfgaohao/pytorch-ssd mb3-large-ssd-lite and mb3-small-ssd-lite",
    signature=Signature(
        present=(
            "classification_headers.0.0.weight",
            "base_net.3.conv1.weight",
            "base_net.3.bn3.weight",
        ),
        like=r"(base_net|extras|(classification|regression)_headers)\.\d+\..+",
    ),
    draft=_draft,
    keymap=_keymap,
)
