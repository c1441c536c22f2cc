"""This project's own checkpoints: torchvision's network, priors that ncnn expresses, a spec inside.

The file is `{"format": FORMAT, "schema": SCHEMA, "spec": <plain JSON>, "state_dict": ...}` in
torch's container, readable with `weights_only`; or safetensors with the same three facts in its
metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbv3ssd_deploy.checkpoint.families.ssdlite import FRAME, ssdlite_arch, ssdlite_levels
from mbv3ssd_deploy.core.spec import (
    Backbone,
    BoxCoder,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    PriorSpec,
    ResizeRule,
    ResultOrder,
)
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
        name=name or f"ssdlite{height}_mobilenet_v3_{backbone}",
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
