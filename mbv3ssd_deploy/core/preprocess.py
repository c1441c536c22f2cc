"""The families' three ways to resize an image, in numpy and OpenCV.

All take RGB or BGR uint8 pixels (H, W, 3). They agree on what a pixel is (its centre is at
+0.5), and differ by many grey levels where an image shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from mbv3ssd_deploy.core.arrays import F32, I64, U8
from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule

_Int32 = npt.NDArray[np.int32]

# Pillow keeps the weights of 8-bit images as integers of this many fractional bits.
_FRACTION_BITS = 22


def resized_cv2(image: U8, height: int, width: int) -> U8:
    """Return `image` as `cv2.resize` makes it with INTER_LINEAR: uint8, no antialias."""
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def resized_antialias(image: U8, height: int, width: int) -> U8:
    """Return `image` as Pillow's `Image.resize` makes it with BILINEAR: uint8, antialiased.

    A triangle filter, as wide as the reduction, first along the rows and then along the columns;
    each pass rounds to uint8. Source: Pillow, src/libImaging/Resample.c.
    """
    across = _filtered_columns(image, width)
    return np.ascontiguousarray(_filtered_columns(across.swapaxes(0, 1), height).swapaxes(0, 1))


def resized_float(image: U8, height: int, width: int) -> F32:
    """Return `image` (0..255) as torch's bilinear `interpolate` makes it: float32, no antialias.

    align_corners=False; positions and weights in float32, as in ATen/native/UpSample.h: in double,
    the weights of a wide image would differ in the fifth digit.
    """
    left, right, along_x = _neighbours(image.shape[1], width)
    upper, lower, along_y = _neighbours(image.shape[0], height)

    def blended_row(rows: I64) -> F32:
        at_left = image[np.ix_(rows, left)].astype(np.float32)
        at_right = image[np.ix_(rows, right)].astype(np.float32)
        return at_left * (1 - along_x[None, :, None]) + at_right * along_x[None, :, None]

    down = along_y[:, None, None]
    return blended_row(upper) * (1 - down) + blended_row(lower) * down


def _neighbours(old: int, new: int) -> tuple[I64, I64, F32]:
    """Return for each of `new` places the two old ones beside it, and the second one's weight."""
    # float64 holds the product exactly, so that the place is rounded once: torch's kernels use a
    # fused multiply-add here
    scale = float(np.float32(old) / np.float32(new))
    place = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    place = np.maximum(place, np.float32(0))
    first = np.minimum(place.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)


def _filtered_columns(image: U8, width: int) -> U8:
    """Return `image` (H, W, 3) with its rows resized to `width` by Pillow's triangle filter."""
    if image.shape[1] == width:
        return image
    columns, weights = _triangle_filter(image.shape[1], width)
    # int32 is wide enough: weights are positive and add up to about 1 << 22, pixels are below 256
    total = np.full((image.shape[0], width, 3), 1 << (_FRACTION_BITS - 1), dtype=np.int32)
    for tap in range(columns.shape[1]):
        total += image[:, columns[:, tap]] * weights[None, :, tap, None]
    return (total >> _FRACTION_BITS).clip(0, 255).astype(np.uint8)


def _triangle_filter(old: int, new: int) -> tuple[I64, _Int32]:
    """Return for each of `new` places the old ones it mixes and their weights: (new, taps)."""
    scale = old / new
    reach = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + reach + 0.5).astype(np.int64), old)
    columns = first[:, None] + np.arange((stop - first).max())
    distance = np.abs((columns - centre[:, None] + 0.5) * (1.0 / reach))
    weights = np.where(columns < stop[:, None], np.maximum(1.0 - distance, 0.0), 0.0)
    weights *= 1.0 / weights.sum(axis=1, keepdims=True)
    fixed = (weights * (1 << _FRACTION_BITS) + 0.5).astype(np.int32)
    return np.minimum(columns, old - 1), fixed


# FLOAT_AFTER_NORMALISE is also "resize, then normalise" here: both are linear, so the
# order matters in the last bits of float32 only, and the smaller image is quicker to normalise.
_RESIZERS: Mapping[ResizeRule, Callable[[U8, int, int], U8 | F32]] = MappingProxyType(
    {
        ResizeRule.CV2_U8: resized_cv2,
        ResizeRule.PIL_U8_ANTIALIAS: resized_antialias,
        ResizeRule.FLOAT_AFTER_NORMALISE: resized_float,
    }
)


def input_from_image(image_rgb: U8, spec: InputSpec) -> F32:
    """Return the input tensor of an image: float32 (3, height, width), contiguous.

    The image is stretched to the input size (no family keeps the aspect ratio); then, in the
    spec's channel order, (pixel - mean) / std on 0..255 pixels.

    Args:
        image_rgb: (H, W, 3) uint8, RGB, of any size.
        spec: the input's size, channel order, mean, std and resize rule.

    Raises:
        ValueError: the image is not a non-empty (H, W, 3) array of uint8.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"{image_rgb.dtype} {image_rgb.shape} is not a uint8 (H, W, 3) image")
    if image_rgb.size == 0:
        raise ValueError(f"an image of {image_rgb.shape} has no pixels")
    pixels = _RESIZERS[spec.resize](image_rgb, spec.height, spec.width)
    if spec.channel_order is ChannelOrder.BGR:
        pixels = pixels[..., ::-1]
    mean, std = np.array(spec.mean, dtype=np.float32), np.array(spec.std, dtype=np.float32)
    # plane by plane: several times quicker than across three channels, and the same numbers
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    planes -= mean[:, None, None]
    planes /= std[:, None, None]
    return planes
