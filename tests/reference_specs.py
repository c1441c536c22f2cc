"""Specs of two families, written out by hand from their published tables.

They are the tests' own: the specs that `checkpoint` makes are held against the fixtures elsewhere.
"""

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
