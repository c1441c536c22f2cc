"""torchvision's ssdlite320_mobilenet_v3_large, the same on Small, and this project's own files.

Facts from torchvision 0.28: `ssdlite320_mobilenet_v3_large`, `SSD`, `DefaultBoxGenerator` and
`BoxCoder`. The published COCO_V1 weights have the reduced tail; fine-tuning from an ImageNet
backbone gives the full one. A native file has torchvision's network, priors that ncnn expresses,
and its spec inside (`checkpoint/native_file.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.family import (
    Draft,
    Family,
    HeadKeys,
    Preset,
    PriorTable,
    Signature,
    SpecRequest,
    class_count,
    head_evidence,
    numbered_names,
    preset_draft,
    read_heads,
    rgb_input,
)
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
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
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
    spec_from_json,
)
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.nets.layouts import layout_of
from mbv3ssd_deploy.nets.plan import feature_map_sizes, plan_net

_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
"""Box sizes level by level, as shares of the image's sides; the last closes the sixth level."""
SSDLITE_PRIORS = PriorTable(
    # sizes are shares of each side, so the frame is square whatever the image is
    size=320.0,
    boxes=tuple((small * 320.0, large * 320.0) for small, large in itertools.pairwise(_SCALES)),
    clip=ClipRule.NONE,
)
"""Cells divide the image evenly. Each level holds the squares s_k and sqrt(s_k * s_(k+1)), then a
wide and a tall box for 2 and for 3."""
EXTRAS = (512, 256, 256, 128)
MIN_EXTRA = 16

# The last block that strides is cut in two: its expansion feeds the first head.
_TAPS = {
    Backbone.LARGE: (Tap(13, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT)),
    Backbone.SMALL: (Tap(9, TapPlace.EXPANSION), Tap(12, TapPlace.OUTPUT)),
}


def ssdlite_arch(
    backbone: Backbone,
    *,
    width_mult: float,
    reduced_tail: bool,
    extras: tuple[int, ...] | None = None,
) -> ArchSpec:
    """Return torchvision's ssdlite on `backbone`; by default the extras follow the width."""
    scaled = tuple(max(MIN_EXTRA, int(channels * width_mult)) for channels in EXTRAS)
    return ArchSpec(
        layout="torchvision",
        backbone=backbone,
        width_mult=width_mult,
        reduced_tail=reduced_tail,
        taps=_TAPS[backbone],
        extras=scaled if extras is None else extras,
    )


GREY = (127.5, 127.5, 127.5)
STEM = "backbone.features.0.0.0.weight"
LAST_CONV = "backbone.features.1.3.0.weight"
EXPANSION = {
    Backbone.LARGE: "backbone.features.0.13.0.weight",
    Backbone.SMALL: "backbone.features.0.9.0.weight",
}
EXTRA_OUT = tuple(f"backbone.extra.{number}.2.0.weight" for number in range(len(EXTRAS)))
HEAD_KINDS = ("classification", "regression")
_HEADS = tuple(
    HeadKeys(*(f"head.{kind}_head.module_list.{level}.1.weight" for kind in HEAD_KINDS))
    for level in range(6)
)
_DECODE = DecodeSpec(
    score_threshold=0.01,
    iou_threshold=0.55,
    candidates_per_class=300,
    keep_per_class=None,
    keep_total=300,
    clip_before_nms=False,
    iou_epsilon=0.0,
    order=ResultOrder.SCORE,
)

# torchvision's list: the index is the COCO category id. COCO left eleven ids unused; their names
# must differ from each other all the same.
COCO_91 = (
    "background person bicycle car motorcycle airplane bus train truck boat traffic_light "
    "fire_hydrant N/A_12 stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear "
    "zebra giraffe N/A_26 backpack umbrella N/A_29 N/A_30 handbag tie suitcase frisbee skis "
    "snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket "
    "bottle N/A_45 wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli "
    "carrot hot_dog pizza donut cake chair couch potted_plant bed N/A_66 dining_table N/A_68 "
    "N/A_69 toilet N/A_71 tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator N/A_83 book clock vase scissors teddy_bear hair_drier toothbrush"
)


def coco_names() -> tuple[str, ...]:
    """Return the 91 names of torchvision's COCO detectors; unused ids are "N/A 12" and so on."""
    return tuple(name.replace("_", " ") for name in COCO_91.split())


def _keymap(_spec: DetectorSpec) -> KeyMap:
    return KeyMap((KeyRule(r".+", r"\g<0>"),))


def _arch_from_shapes(contents: RawCheckpoint) -> tuple[ArchSpec, tuple[str, ...]]:
    """Return the architecture that torchvision's keys and shapes decide, with the evidence.

    Raises:
        CheckpointError: a tensor that decides is missing, or the last convolution fits no tail.
    """
    backbone = next((b for b, key in EXPANSION.items() if key in contents.tensors), None)
    if backbone is None:
        raise CheckpointError(
            f"neither {' nor '.join(EXPANSION.values())} exists: this is the ssdlite head on a "
            "backbone other than MobileNetV3"
        )
    stem, last, *extras = contents.channels(STEM, LAST_CONV, *EXTRA_OUT)
    archs = _candidates(backbone, tuple(extras))
    if (stem, last) not in archs:
        known = " or ".join(f"{first} and {final}" for first, final in archs)
        raise CheckpointError(
            f"{STEM} and {LAST_CONV} have {stem} and {last} channels; a {backbone} network with "
            f"these extras has {known}"
        )
    arch = archs[stem, last]
    tail = "reduced" if arch.reduced_tail else "full"
    evidence = (
        f"{EXPANSION[backbone]} exists: MobileNetV3-{backbone.capitalize()}",
        f"{LAST_CONV} has {last} channels: the {tail} tail at width {arch.width_mult:g}",
    )
    return arch, evidence


def _candidates(backbone: Backbone, extras: tuple[int, ...]) -> dict[tuple[int, int], ArchSpec]:
    """Return the architectures with these extras, by the channels of first and last convolution."""
    # torchvision scales the extras with the backbone; who changes only them leaves it at 1.0
    archs: dict[tuple[int, int], ArchSpec] = {}
    for width in (1.0, extras[0] / EXTRAS[0]):
        for reduced in (False, True):
            arch = ssdlite_arch(backbone, width_mult=width, reduced_tail=reduced, extras=extras)
            plan = plan_net(arch)
            archs.setdefault((plan.stem_channels, plan.last_channels), arch)
    return archs


def _torchvision_draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    arch, evidence = _arch_from_shapes(contents)
    height = request.image_size[0] if request.image_size else 320
    preset = Preset(
        family="torchvision",
        name=_name(height, arch.backbone),
        arch=arch,
        input=rgb_input(320, GREY, GREY, ResizeRule.FLOAT_AFTER_NORMALISE),
        priors=dataclasses.replace(SSDLITE_PRIORS, clip=ClipRule.SIZES),
        coder=BoxCoder(0.1, 0.2, max_log_size=math.log(1000 / 16)),
        decode=dataclasses.replace(_DECODE, score_threshold=0.001, clip_before_nms=True),
        heads=_HEADS,
        any_size=True,
    )
    draft = preset_draft(preset, contents, request, evidence)
    if draft.spec.num_classes != len(coco_names()):
        return draft
    return dataclasses.replace(
        draft,
        spec=dataclasses.replace(draft.spec, class_names=coco_names()),
        provenance={**draft.provenance, "class_names": "family preset"},
        names_given=True,
    )


TORCHVISION = Family(
    name="torchvision",
    title="torchvision's ssdlite320 on MobileNetV3",
    signature=Signature(
        present=(STEM, "head.classification_head.module_list.0.0.0.weight"),
        like=r"(backbone\.(features\.[01]\.\d+\.(\d|block)|extra\.\d)"
        r"|head\.(classification|regression)_head\.module_list)\..+",
    ),
    draft=_torchvision_draft,
    keymap=_keymap,
)


def native_spec(  # noqa: PLR0913 -- one argument a decision of who makes a detector
    backbone: Backbone,
    class_names: Sequence[str],
    *,
    image_size: tuple[int, int] = (320, 320),
    width_mult: float = 1.0,
    reduced_tail: bool = False,
    name: str = "",
) -> DetectorSpec:
    """Return the spec of a native detector.

    Boxes, coder and decoding are such that ncnn's PriorBox and DetectionOutput express them
    exactly: nothing is clipped, and no size is limited.

    Args:
        backbone: Large or Small.
        class_names: the background first.
        image_size: height and width of the input.
        width_mult: width of backbone and extras.
        reduced_tail: half as many channels in the last backbone stage.
        name: what the detector is called; made from the other arguments when empty.

    Raises:
        SpecError: the values contradict each other.
    """
    height, width = image_size
    arch = ssdlite_arch(backbone, width_mult=width_mult, reduced_tail=reduced_tail)
    return DetectorSpec(
        name=name or _name(height, backbone),
        family="native",
        arch=arch,
        input=InputSpec(height, width, ChannelOrder.RGB, GREY, GREY, ResizeRule.CV2_U8),
        class_names=tuple(class_names),
        priors=SSDLITE_PRIORS.on_maps(feature_map_sizes(arch, height, width)),
        coder=BoxCoder(centre_variance=0.1, size_variance=0.2),
        decode=_DECODE,
    )


def _name(height: int, backbone: Backbone) -> str:
    return f"ssdlite{height}_mobilenet_v3_{backbone}"


def _native_draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
    if contents.spec_json is None:
        raise CheckpointError(
            "a native checkpoint carries its spec, and this file has none",
            hint="leave --family out: bare keys of this kind are read as torchvision",
        )
    spec = spec_from_json(contents.spec_json, where="the spec in the file")
    if request.image_size is not None:
        spec = _resized(spec, *request.image_size, rescale=not request.priors_given)
    heads = read_heads(contents, _head_keys(spec))
    classes = class_count(heads)
    if classes != spec.num_classes:
        raise CheckpointError(
            f"the heads predict {classes} classes, the spec in the file names {spec.num_classes}"
        )
    fields = ("arch", "input", "class_names", "priors", "coder", "decode")
    return Draft(
        spec=spec,
        heads=heads,
        evidence=("the file carries a spec: native", head_evidence(heads, classes)),
        provenance=dict.fromkeys(fields, "file"),
        names_given=spec.class_names != numbered_names(classes),
    )


def _head_keys(spec: DetectorSpec) -> list[HeadKeys]:
    last = len(spec.priors.levels) - 1
    bare = layout_of(spec.arch).bare_last_level
    items = ["" if bare and level == last else ".1" for level in range(last + 1)]
    return [
        HeadKeys(*(f"head.{kind}_head.module_list.{level}{item}.weight" for kind in HEAD_KINDS))
        for level, item in enumerate(items)
    ]


def _resized(spec: DetectorSpec, height: int, width: int, *, rescale: bool) -> DetectorSpec:
    """Return `spec` for another input size; priors whose cells divide the image evenly follow."""
    named_by_us = spec.name == _name(spec.input.height, spec.arch.backbone)
    resized = dataclasses.replace(
        spec,
        name=_name(height, spec.arch.backbone) if named_by_us else spec.name,
        input=dataclasses.replace(spec.input, height=height, width=width),
    )
    sizes = feature_map_sizes(spec.arch, height, width)
    levels, frame = spec.priors.levels, (spec.priors.frame_width, spec.priors.frame_height)
    if not rescale or sizes == tuple((level.rows, level.cols) for level in levels):
        return resized
    even = len(sizes) == len(levels) and all(
        math.isclose(level.step_x * level.cols, frame[0])
        and math.isclose(level.step_y * level.rows, frame[1])
        for level in levels
    )
    if not even:
        raise SpecError(
            f"the steps of this checkpoint's priors are fixed for {spec.input.height} x "
            f"{spec.input.width}, not {height} x {width}",
            hint="leave --imgsz out, or bring the priors that it was trained with: --spec",
        )
    moved = tuple(
        _with_cells(level, *size, frame) for level, size in zip(levels, sizes, strict=True)
    )
    return dataclasses.replace(resized, priors=dataclasses.replace(spec.priors, levels=moved))


def _with_cells(level: PriorLevel, rows: int, cols: int, frame: tuple[float, float]) -> PriorLevel:
    return dataclasses.replace(
        level, rows=rows, cols=cols, step_x=frame[0] / cols, step_y=frame[1] / rows
    )


NATIVE = Family(
    name="native",
    title="this project's own checkpoint, with its spec",
    signature=Signature(like=r"(backbone|head)\..+"),
    draft=_native_draft,
    keymap=_keymap,
    carries_spec=True,
)
