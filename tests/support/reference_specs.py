"""Specs of the families, written out by hand from their published tables.

They are the tests' own: the specs that `checkpoint` makes are held against the fixtures elsewhere.
"""

import dataclasses
import math

from mbv3ssd_deploy.core.spec import (
    ArchSpec,
    Backbone,
    BoxCoder,
    BoxEdges,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    NmsScope,
    PriorLevel,
    PriorRounding,
    PriorSpec,
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
)

# rows (= cols), step, min and max size, in pixels of a 300 x 300 image
QFGAOHAO_LEVELS = (
    (19, 16, 60, 105),
    (10, 32, 105, 150),
    (5, 64, 150, 195),
    (3, 100, 195, 240),
    (2, 150, 240, 285),
    (1, 300, 285, 330),
)
# rows (= cols), min and max size as a share of the image
TORCHVISION_LEVELS = (
    (20, 0.2, 0.35),
    (10, 0.35, 0.5),
    (5, 0.5, 0.65),
    (3, 0.65, 0.8),
    (2, 0.8, 0.95),
    (1, 0.95, 1.0),
)
# the same, but min size, second square and number of ratios
COMPACT_LEVELS = (
    (19, 0.1, math.sqrt(0.1 * 0.2), 2),
    (10, 0.2, math.sqrt(0.2 * 0.375), 4),
    (5, 0.375, math.sqrt(0.375 * 0.55), 4),
    (3, 0.55, math.sqrt(0.55 * 0.725), 4),
    (2, 0.725, math.sqrt(0.725 * 0.9), 4),
    (1, 0.9, 1.0, 4),
)
COMPACT_RATIOS = {2: (2.0, 0.5), 4: (2.0, 3.0, 0.5, 0.333)}
# rows (= cols), step, min and max size, in pixels of a 300 x 300 image
UJSYEHAO_LEVELS = (
    (19, 16, 60, 105),
    (10, 30, 105, 150),
    (5, 60, 150, 195),
    (3, 100, 195, 240),
    (2, 150, 240, 285),
    (1, 300, 285, 300),
)
# rows (= cols), step, min and max size, in pixels of a 320 x 320 image
LUFFICC_LEVELS = (
    (20, 16, 60, 105),
    (10, 32, 105, 150),
    (5, 64, 150, 195),
    (3, 107, 195, 240),
    (2, 160, 240, 285),
    (1, 320, 285, 330),
)
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)


def class_names(count):
    return ("background", *(f"class_{i}" for i in range(1, count)))


def qfgaohao_priors():
    levels = tuple(
        PriorLevel(cells, cells, step, step, small, large, RATIOS)
        for cells, step, small, large in QFGAOHAO_LEVELS
    )
    return PriorSpec(300, 300, levels, ClipRule.CENTRE_FORM)


def torchvision_priors():
    levels = tuple(
        PriorLevel(cells, cells, 320 / cells, 320 / cells, 320 * small, 320 * large, RATIOS)
        for cells, small, large in TORCHVISION_LEVELS
    )
    return PriorSpec(320, 320, levels, ClipRule.SIZES)


def compact_priors():
    levels = tuple(
        PriorLevel(cells, cells, 1 / cells, 1 / cells, size, second**2 / size, COMPACT_RATIOS[n])
        for cells, size, second, n in COMPACT_LEVELS
    )
    return PriorSpec(1, 1, levels, ClipRule.CENTRE_FORM)


def ujsyehao_priors(boxes_per_cell):
    levels = tuple(
        PriorLevel(cells, cells, step, step, small, large, RATIOS[: boxes - 2])
        for (cells, step, small, large), boxes in zip(UJSYEHAO_LEVELS, boxes_per_cell, strict=True)
    )
    return PriorSpec(300, 300, levels, ClipRule.NONE, PriorRounding.PIXEL_CORNERS)


def lufficc_priors():
    levels = tuple(
        PriorLevel(cells, cells, step, step, small, large, RATIOS)
        for cells, step, small, large in LUFFICC_LEVELS
    )
    return PriorSpec(320, 320, levels, ClipRule.CENTRE_FORM)


def qfgaohao_spec(num_classes=21):
    return DetectorSpec(
        name="mb3-large-ssd-lite",
        family="qfgaohao",
        arch=ArchSpec(
            layout="qfgaohao",
            backbone=Backbone.LARGE,
            width_mult=1.0,
            reduced_tail=False,
            taps=(Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT)),
            extras=(512, 256, 256, 64),
        ),
        input=InputSpec(300, 300, ChannelOrder.RGB, (127,) * 3, (128,) * 3, ResizeRule.CV2_U8),
        class_names=class_names(num_classes),
        priors=qfgaohao_priors(),
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


def torchvision_spec(num_classes=91):
    grey = (127.5, 127.5, 127.5)
    return DetectorSpec(
        name="ssdlite320_mobilenet_v3_large",
        family="torchvision",
        arch=ArchSpec(
            layout="torchvision",
            backbone=Backbone.LARGE,
            width_mult=1.0,
            reduced_tail=True,
            taps=(Tap(13, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT)),
            extras=(512, 256, 256, 128),
        ),
        input=InputSpec(320, 320, ChannelOrder.RGB, grey, grey, ResizeRule.FLOAT_AFTER_NORMALISE),
        class_names=class_names(num_classes),
        priors=torchvision_priors(),
        coder=BoxCoder(0.1, 0.2, max_log_size=4.135166556742356),
        decode=DecodeSpec(
            score_threshold=0.001,
            iou_threshold=0.55,
            candidates_per_class=300,
            keep_per_class=None,
            keep_total=300,
            clip_before_nms=True,
            iou_epsilon=0.0,
            order=ResultOrder.SCORE,
        ),
    )


def tongyu_spec(num_classes=31):
    grey = InputSpec(300, 300, ChannelOrder.RGB, (127,) * 3, (1,) * 3, ResizeRule.CV2_U8)
    return dataclasses.replace(qfgaohao_spec(num_classes), family="tongyu", input=grey)


def shaoshengsong_spec(num_classes=21):
    return dataclasses.replace(qfgaohao_spec(num_classes), family="shaoshengsong")


def jungin500_spec(num_classes=21):
    return dataclasses.replace(qfgaohao_spec(num_classes), family="jungin500")


def compact_spec(num_classes=21):
    mean, std = (123.675, 116.28, 103.53), tuple(255 * s for s in (0.229, 0.224, 0.225))
    return dataclasses.replace(
        qfgaohao_spec(num_classes),
        family="compact",
        input=InputSpec(300, 300, ChannelOrder.RGB, mean, std, ResizeRule.PIL_U8_ANTIALIAS),
        priors=compact_priors(),
        decode=DecodeSpec(
            score_threshold=0.01,
            iou_threshold=0.45,
            candidates_per_class=None,
            keep_per_class=None,
            keep_total=200,
            clip_before_nms=False,
            iou_epsilon=0.0,
            order=ResultOrder.CLASS,
        ),
    )


def ujsyehao_spec(boxes_per_cell=(4, 6, 6, 6, 4, 4), num_classes=21):
    mean = (123.675, 116.28, 103.53)
    most = math.log(1000 / 16)
    return dataclasses.replace(
        qfgaohao_spec(num_classes),
        family="ujsyehao",
        input=InputSpec(300, 300, ChannelOrder.RGB, mean, (1,) * 3, ResizeRule.CV2_U8),
        priors=ujsyehao_priors(boxes_per_cell),
        coder=BoxCoder(0.1, 0.2, max_log_size=most, min_log_size=-most),
        decode=DecodeSpec(
            score_threshold=0.02,
            iou_threshold=0.45,
            candidates_per_class=None,
            keep_per_class=None,
            keep_total=200,
            clip_before_nms=True,
            iou_epsilon=0.0,
            order=ResultOrder.CLASS_PRIOR,
            box_edges=BoxEdges.INCLUSIVE,
            suppress_at_threshold=True,
        ),
    )


def lufficc_spec(num_classes=21):
    return dataclasses.replace(
        qfgaohao_spec(num_classes),
        family="lufficc",
        input=InputSpec(320, 320, ChannelOrder.RGB, (123, 117, 104), (1,) * 3, ResizeRule.CV2_U8),
        priors=lufficc_priors(),
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


# every folder of zoo fixtures that holds a detector
ZOO_SPECS = {
    "compact_large": compact_spec(),
    "jungin500_small": jungin500_spec(),
    "lufficc_large": lufficc_spec(),
    "qfgaohao_large": qfgaohao_spec(),
    "qfgaohao_small": qfgaohao_spec(),
    "shaoshengsong1_small": shaoshengsong_spec(),
    "tongyu_large": tongyu_spec(6),
    "tongyu_small": tongyu_spec(31),
    "torchvision_coco": torchvision_spec(91),
    "torchvision_fulltail": torchvision_spec(21),
    "torchvision_small": torchvision_spec(21),
    "ujsyehao_config": ujsyehao_spec((4, 6, 6, 6, 6, 6)),
    "ujsyehao_released": ujsyehao_spec(),
}
