"""What a user may say about a checkpoint that its file does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbv3ssd_deploy.core.spec import ChannelOrder


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to read a checkpoint; None leaves a decision to the file and its family.

    Attributes:
        family: the family to read it as, instead of the one that its keys show.
        image_size: height and width of the input.
        class_names: with or without the background first.
        num_classes: the background counted; only checked, the heads decide.
        mean: subtracted from 0..255 pixels, in the input's channel order.
        std: what the difference is divided by.
        channel_order: of the planes that the network was trained on.
        spec_changes: parsed JSON, laid over the spec that the family would give.
        class_names_from: the file that they stand in, for messages.
        spec_from: the file of `spec_changes`, for messages.
        ema: take the averaged (EMA) weights; a file that has none is refused.
    """

    family: str | None = None
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channel_order: ChannelOrder | None = None
    spec_changes: Mapping[str, Any] | None = None
    class_names_from: str = ""
    spec_from: str = ""
    ema: bool = False
