"""Photometric distortion: brightness, contrast, saturation, hue, channels, in a random order.

Ranges are SSD's own (arXiv 1512.02325, section 2.2, after Howard, arXiv 1312.5402). Everything
runs on uint8 through tables, which is several times quicker than on float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, I64, U8, Bools
from mbv3ssd_deploy.core.boxes import iou_matrix

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


IMAGENET_MEAN = (123.0, 117.0, 104.0)
"""RGB; what zoom-out puts around an image, as in SSD's own code."""

_LEAST_SIDE_PX = 1.0
_ROUNDS, _TRIES = 8, 50


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """What is done to a training image, and how often.

    Attributes:
        colours: brightness, contrast, saturation, hue and channels.
        zoom_out_chance: of putting the image on a larger plane.
        zoom_out_most: the plane's side is at most so many times the image's.
        fill_rgb: the plane's colour, 0..255.
        crop_overlaps: one is drawn per image: an object must overlap the crop by so much (IoU);
            0.0 means any crop, None the whole picture. Empty: never crop.
        crop_least: a crop's side is at least this share of the picture's.
        crop_ratios: least and most width / height of a crop.
        flip_chance: of mirroring left and right.
        keep_difficult: train on objects that VOC flags as difficult too (`data.loader` asks).
    """

    colours: ColourOptions = ColourOptions()
    zoom_out_chance: float = 0.5
    zoom_out_most: float = 4.0
    fill_rgb: tuple[float, float, float] = IMAGENET_MEAN
    crop_overlaps: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
    crop_least: float = 0.3
    crop_ratios: tuple[float, float] = (0.5, 2.0)
    flip_chance: float = 0.5
    keep_difficult: bool = False


SSD_AUGMENTATION = AugmentOptions()
"""As the paper has it."""

NO_AUGMENTATION = AugmentOptions(
    colours=ColourOptions(chance=0.0),
    zoom_out_chance=0.0,
    crop_overlaps=(),
    flip_chance=0.0,
)
"""Leaves every image as it is."""


class Augmented(NamedTuple):
    """A training image with what is left in it: RGB uint8, corners in its pixels, labels."""

    image: U8
    boxes: F32
    labels: I64


class Window(NamedTuple):
    """A rectangle of whole pixels in the image's frame; it may reach beyond the image."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Its width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Its height in pixels."""
        return self.bottom - self.top


def augment(
    rng: np.random.Generator,
    image_rgb: U8,
    boxes: F32,
    labels: I64,
    options: AugmentOptions = SSD_AUGMENTATION,
) -> Augmented:
    """Return the image distorted, zoomed out, cropped and mirrored as chance has it.

    A pure function of the generator's state and the arguments, which stay as they are. Objects
    whose centre the crop leaves out are dropped, the others' boxes are cut at its edge; an image
    that had objects of a pixel or more keeps at least one.

    Args:
        rng: source of every choice.
        image_rgb: uint8 (H, W, 3).
        boxes: float32 (n, 4) corners in pixels, inside the image.
        labels: int64 (n,).
        options: how much of everything.

    Returns:
        An image of any size, and m <= n boxes within it.
    """
    image = distort_colours(rng, image_rgb, options.colours)
    height, width = image.shape[:2]
    window = draw_zoom_out(rng, Window(0, 0, width, height), options)
    window = draw_crop(rng, window, boxes, options)
    image = cut_window(image, window, options.fill_rgb)
    boxes, kept = boxes_in_window(boxes, window)
    if rng.random() < options.flip_chance:
        image, boxes = mirrored(image, boxes)
    return Augmented(image, boxes, labels[kept])


def draw_zoom_out(rng: np.random.Generator, frame: Window, options: AugmentOptions) -> Window:
    """Return a plane around `frame`, up to `zoom_out_most` times as wide and high, or `frame`."""
    if rng.random() >= options.zoom_out_chance:
        return frame
    ratio = 1 + (options.zoom_out_most - 1) * rng.random()
    width, height = round(frame.width * ratio), round(frame.height * ratio)
    left = frame.left - int(rng.integers(width - frame.width + 1))
    top = frame.top - int(rng.integers(height - frame.height + 1))
    return Window(left, top, left + width, top + height)


def draw_crop(
    rng: np.random.Generator, window: Window, boxes: F32, options: AugmentOptions
) -> Window:
    """Return a part of `window` that some object overlaps by as much as was drawn, or `window`.

    A crop without an object's centre is never used, unless there are no objects at all.
    """
    if not options.crop_overlaps:
        return window
    for _ in range(_ROUNDS):
        overlap = options.crop_overlaps[int(rng.integers(len(options.crop_overlaps)))]
        if overlap is None:
            return window
        crops = _any_crops(rng, window, options)
        allowed = _are_allowed(crops, boxes, overlap)
        if allowed.any():
            return Window(*map(int, crops[allowed.argmax()]))
    return window


def boxes_in_window(boxes: F32, window: Window) -> tuple[F32, Bools]:
    """Return the boxes whose centre lies in `window`, cut at its edge and in its frame.

    What is left thinner than one pixel is dropped.

    Args:
        boxes: float32 (n, 4) corners.
        window: the new frame; its corner becomes 0, 0.

    Returns:
        Boxes float32 (m, 4), and bool (n,): which of the boxes these are.
    """
    corner = np.array([window.left, window.top, window.left, window.top], np.float32)
    most = np.array([window.width, window.height, window.width, window.height], np.float32)
    moved = np.clip(boxes - corner, 0, most)
    kept = _kept_by(boxes, np.array(window, np.float32))
    return moved[kept], kept


def cut_window(image_rgb: U8, window: Window, fill_rgb: tuple[float, float, float]) -> U8:
    """Return the pixels of `window`: the image's where it has any, `fill_rgb` elsewhere."""
    height, width = image_rgb.shape[:2]
    inner = Window(
        max(window.left, 0),
        max(window.top, 0),
        min(window.right, width),
        min(window.bottom, height),
    )
    pixels = image_rgb[inner.top : inner.bottom, inner.left : inner.right]
    if inner == window:
        return pixels
    fill = np.round(fill_rgb).tolist()
    if inner.width <= 0 or inner.height <= 0:
        return np.full((window.height, window.width, 3), fill, np.uint8)
    plane = cv2.copyMakeBorder(
        pixels,
        inner.top - window.top,
        window.bottom - inner.bottom,
        inner.left - window.left,
        window.right - inner.right,
        cv2.BORDER_CONSTANT,
        value=fill,
    )
    return np.asarray(plane, np.uint8)


def mirrored(image_rgb: U8, boxes: F32) -> tuple[U8, F32]:
    """Return image and boxes mirrored left to right."""
    width = image_rgb.shape[1]
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return np.asarray(cv2.flip(image_rgb, 1), np.uint8), flipped


def _any_crops(rng: np.random.Generator, window: Window, options: AugmentOptions) -> I64:
    """Return random parts of `window` as corners (k, 4), k <= 50: those of a sound shape."""
    draws = rng.random((_TRIES, 4))
    size, corner = np.array([window.width, window.height]), np.array([window.left, window.top])
    sides = (size * (options.crop_least + (1 - options.crop_least) * draws[:, :2])).astype(np.int64)
    starts = corner + ((size - sides + 1) * draws[:, 2:]).astype(np.int64)
    crops: I64 = np.concatenate([starts, starts + sides], axis=1)
    least, most = options.crop_ratios
    sound = (sides[:, 0] >= least * sides[:, 1]) & (sides[:, 0] <= most * sides[:, 1])
    sound &= sides.min(axis=1) >= 1
    return np.compress(sound, crops, axis=0)


def _are_allowed(crops: I64, boxes: F32, overlap: float) -> Bools:
    """Return for each crop (k, 4) whether it keeps an object, and overlaps one enough: (k,)."""
    if not len(boxes):
        return np.ones(len(crops), bool)
    windows = crops.T.astype(np.float32)
    kept: Bools = np.any(_kept_by(boxes[:, :, None], windows), axis=0)
    if overlap > 0:
        kept &= iou_matrix(boxes, crops.astype(np.float32)).max(axis=0) >= overlap
    return kept


def _kept_by(boxes: F32, window: F32) -> Bools:
    """Return which boxes, x1, y1, x2, y2 along axis 1, have centre and size in `window`."""
    left, top, right, bottom = window
    x1, y1, x2, y2 = np.moveaxis(boxes, 1, 0)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    wide = np.minimum(x2, right) - np.maximum(x1, left) >= _LEAST_SIDE_PX
    high = np.minimum(y2, bottom) - np.maximum(y1, top) >= _LEAST_SIDE_PX
    kept: Bools = inside & wide & high
    return kept
