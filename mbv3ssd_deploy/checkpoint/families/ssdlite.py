"""What `native` and `torchvision` share: the ssdlite320 architecture and its prior sizes.

Facts from torchvision 0.28's `ssdlite320_mobilenet_v3_large` and `DefaultBoxGenerator`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, PriorLevel, Tap, TapPlace

SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
"""Box sizes level by level, as shares of the image's sides; the last closes the sixth level."""
RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)
FRAME = 320.0
"""Sizes are shares of each side, so the prior frame is square whatever the image is."""
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


def ssdlite_levels(sizes: Sequence[tuple[int, int]]) -> tuple[PriorLevel, ...]:
    """Return the six prior levels for feature maps of `sizes` (rows, columns) in `FRAME`.

    Cells divide the image evenly. Each level holds the squares s_k and sqrt(s_k * s_(k+1)), then a
    wide and a tall box for 2 and for 3.
    """
    return tuple(
        PriorLevel(
            rows=rows,
            cols=cols,
            step_x=FRAME / cols,
            step_y=FRAME / rows,
            min_size=small * FRAME,
            max_size=large * FRAME,
            ratios=RATIOS,
        )
        for (rows, cols), small, large in zip(sizes, SCALES[:-1], SCALES[1:], strict=True)
    )
