"""Photometric distortion: brightness, contrast, saturation, hue, channels, in a random order.

Ranges are SSD's own (arXiv 1512.02325, section 2.2, after Howard, arXiv 1312.5402). Everything
runs on uint8 through tables, which is several times quicker than on float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, U8

_LEVELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class ColourOptions:
    """How far colours may go.

    Attributes:
        chance: of each of the first three steps; saturation and hue have it each.
        brightness: added to all channels, at most so much up or down (0..255).
        contrast: least and most factor of all channels.
        saturation: least and most factor.
        hue_degrees: at most so much to either side.
        swap_chance: of exchanging the channels; for data in which colours mean nothing.
    """

    chance: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue_degrees: float = 18.0
    swap_chance: float = 0.0


def distort_colours(rng: np.random.Generator, image_rgb: U8, options: ColourOptions) -> U8:
    """Return the image with other colours: uint8 (H, W, 3); the one given stays as it is."""
    steps: tuple[Callable[[np.random.Generator, U8, ColourOptions], U8], ...] = (
        _with_other_brightness,
        _with_other_contrast,
        _with_other_hue_and_saturation,
    )
    for index in rng.permutation(len(steps)):
        image_rgb = steps[index](rng, image_rgb, options)
    if rng.random() < options.swap_chance:
        image_rgb = np.ascontiguousarray(image_rgb[..., rng.permutation(3)])
    return image_rgb


def brightened(image_rgb: U8, delta: float) -> U8:
    """Return the image with `delta` (in grey levels of 255) added to every channel, saturating."""
    return _through_table(image_rgb, _LEVELS + delta)


def contrasted(image_rgb: U8, factor: float) -> U8:
    """Return the image with every channel times `factor`, saturating."""
    return _through_table(image_rgb, _LEVELS * factor)


def recoloured(image_rgb: U8, saturation: float, hue_degrees: float) -> U8:
    """Return the image with its saturation times a factor and its hue turned."""
    hsv = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV_FULL)
    hue = np.mod(_LEVELS + hue_degrees * 256 / 360, 256)
    tables = np.stack([hue, np.clip(_LEVELS * saturation, 0, 255), _LEVELS], axis=-1)
    shifted = cv2.LUT(hsv, np.mod(np.round(tables), 256).astype(np.uint8)[None])
    return np.asarray(cv2.cvtColor(shifted, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def _with_other_brightness(rng: np.random.Generator, image: U8, options: ColourOptions) -> U8:
    if rng.random() >= options.chance:
        return image
    return brightened(image, options.brightness * (2 * rng.random() - 1))


def _with_other_contrast(rng: np.random.Generator, image: U8, options: ColourOptions) -> U8:
    if rng.random() >= options.chance:
        return image
    return contrasted(image, _between(rng, options.contrast))


def _with_other_hue_and_saturation(
    rng: np.random.Generator, image: U8, options: ColourOptions
) -> U8:
    saturation, hue = 1.0, 0.0
    if rng.random() < options.chance:
        saturation = _between(rng, options.saturation)
    if rng.random() < options.chance:
        hue = options.hue_degrees * (2 * rng.random() - 1)
    if saturation == 1.0 and hue == 0.0:
        return image
    return recoloured(image, saturation, hue)


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return limits[0] + (limits[1] - limits[0]) * rng.random()


def _through_table(image: U8, table: F32) -> U8:
    levels = np.clip(np.round(table), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, levels), np.uint8)
