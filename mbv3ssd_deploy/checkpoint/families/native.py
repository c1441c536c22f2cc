"""This project's own checkpoints: torchvision's network, priors that ncnn expresses, a spec inside.

`checkpoint/native_file.py` writes and reads the file around it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.class_lists import numbered_names
from mbv3ssd_deploy.checkpoint.families.family import Draft, Family, Signature, SpecRequest
from mbv3ssd_deploy.checkpoint.families.heads import (
    HeadKeys,
    class_count,
    head_evidence,
    read_heads,
)
from mbv3ssd_deploy.checkpoint.families.ssdlite import FRAME, ssdlite_arch, ssdlite_levels
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import (
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
)
from mbv3ssd_deploy.core.spec_json import spec_from_json
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.nets.layouts import layout_of
from mbv3ssd_deploy.nets.shapes import feature_map_sizes

GREY = (127.5, 127.5, 127.5)


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
    levels = ssdlite_levels(feature_map_sizes(arch, height, width))
    return DetectorSpec(
        name=name or _name(height, backbone),
        family="native",
        arch=arch,
        input=InputSpec(height, width, ChannelOrder.RGB, GREY, GREY, ResizeRule.CV2_U8),
        class_names=tuple(class_names),
        priors=PriorSpec(FRAME, FRAME, levels, ClipRule.NONE),
        coder=BoxCoder(centre_variance=0.1, size_variance=0.2),
        decode=DecodeSpec(
            score_threshold=0.01,
            iou_threshold=0.55,
            candidates_per_class=300,
            keep_per_class=None,
            keep_total=300,
            clip_before_nms=False,
            iou_epsilon=0.0,
            order=ResultOrder.SCORE,
        ),
    )


def _name(height: int, backbone: Backbone) -> str:
    return f"ssdlite{height}_mobilenet_v3_{backbone}"


def _draft(contents: RawCheckpoint, request: SpecRequest) -> Draft:
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
    bare = layout_of(spec.arch).head.bare_last_level
    items = ["" if bare and level == last else ".1" for level in range(last + 1)]
    return [
        HeadKeys(
            f"head.classification_head.module_list.{level}{item}.weight",
            f"head.regression_head.module_list.{level}{item}.weight",
        )
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


def _keymap(_spec: DetectorSpec) -> KeyMap:
    return KeyMap((KeyRule(r".+", r"\g<0>"),))


NATIVE = Family(
    name="native",
    title="this project's own checkpoint, with its spec",
    signature=Signature(like=r"(backbone|head)\..+"),
    draft=_draft,
    keymap=_keymap,
    carries_spec=True,
)
