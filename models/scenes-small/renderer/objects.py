"""The things in a rendered scene: outlines, textures, and how one is painted.

Shapes live in a plane of their own, (u, v) with radius about 1; a `Placement` says how that plane
lies in the picture. Both tables are read in order, so a new row goes to the end: it would
otherwise change every scene that was ever rendered.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64

Outline = tuple[F64, ...]
"""Polygons (n,2) of (u, v); a point inside an even number of them is outside."""

_SUBPIXEL_BITS = 6


@dataclass(frozen=True, slots=True)
class Placement:
    """How a shape's plane lies in the picture: pixel = centre + `axes` @ (u, v).

    `axes` is (2, 2): rotation, times an uneven stretch, times the radius in pixels.
    """

    centre: tuple[float, float]
    axes: F64


def random_placement(
    rng: np.random.Generator, size: tuple[int, int], radius_px: tuple[float, float]
) -> Placement:
    """Draw a place in a picture of `size` (width, height); small objects are the more frequent.

    The radius is log-uniform within `radius_px`; the centre lies inside the picture, so that at
    least about a quarter of the object does.
    """
    low, high = radius_px
    radius = low * (high / low) ** rng.random()
    margin = 0.4 * radius
    width, height = size
    centre = (
        margin + (width - 2 * margin) * rng.random(),
        margin + (height - 2 * margin) * rng.random(),
    )
    turn, lean = 2 * math.pi * rng.random(), math.pi * rng.random()
    stretch = np.diag([1.0, 0.72 + 0.28 * rng.random()])
    # the stretch has a direction of its own: an object seen from aside
    axes = radius * _rotation(lean) @ stretch @ _rotation(-lean) @ _rotation(turn)
    return Placement(centre, axes)


def coverage_of(outline: Outline, place: Placement, width: int, height: int) -> F32:
    """Return how much of each pixel the object takes: float32 (H, W) within 0..1."""
    scale = 1 << _SUBPIXEL_BITS
    polygons = [
        np.round((polygon @ place.axes.T + place.centre) * scale).astype(np.int32)
        for polygon in outline
    ]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, polygons, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask.astype(np.float32) / np.float32(255)


def paint_object(rng: np.random.Generator, canvas: F32, coverage: F32, place: Placement) -> None:
    """Paint an object onto `canvas` with a random texture, two colours, and light on its slopes.

    Args:
        rng: source of every choice.
        canvas: float32 (H, W, 3) RGB within 0..1; now and then the object nearly matches it.
        coverage: what `coverage_of` gave for `place`.
        place: where the object lies.
    """
    x, y, width, height = cv2.boundingRect((coverage > 0).astype(np.uint8))
    window = (slice(y, y + height), slice(x, x + width))
    radius = float(np.abs(place.axes).max())
    columns, rows = np.meshgrid(np.arange(x, x + width), np.arange(y, y + height))
    offset = np.stack([columns - place.centre[0], rows - place.centre[1]], axis=-1)
    u, v = np.moveaxis(offset @ np.linalg.inv(place.axes).T, -1, 0)

    texture = TEXTURES[int(rng.integers(len(TEXTURES)))](rng, u, v)
    first, second = _two_colours(rng, canvas[window].mean(axis=(0, 1)))
    colour = first + (second - first) * texture[..., None]
    angle = 2 * math.pi * rng.random()
    slope = np.tanh(offset @ (math.cos(angle), math.sin(angle)) / radius)
    rim = cv2.GaussianBlur(coverage, (0, 0), 1 + 0.05 * radius)[window]
    light = (1 + (0.10 + 0.25 * rng.random()) * slope) * (0.62 + 0.42 * rim)
    colour = np.clip(colour * light[..., None], 0, 1)
    canvas[window] += coverage[window][..., None] * (colour - canvas[window])


def _rotation(angle: float) -> F64:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _two_colours(rng: np.random.Generator, near: F32) -> tuple[F64, F64]:
    """Draw the colours of a texture: two values of one hue, or two hues; sometimes `near` them."""
    hue, saturation = rng.random(), 0.5 + 0.45 * rng.random()
    value = 0.55 + 0.45 * rng.random()
    first = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    other_hue = hue + (0.0 if rng.random() < 0.5 else 0.25 + 0.5 * rng.random())
    other_value = value * (0.45 + 0.25 * rng.random()) if value > 0.7 else value + 0.3
    second = np.array(colorsys.hsv_to_rgb(other_hue % 1.0, 0.8 * saturation, other_value))
    if rng.random() < 0.12:
        return 0.35 * first + 0.65 * near, 0.35 * second + 0.65 * near
    return first, second


# ---------------------------------------------------------------------------------- outlines


def _circle(radius: float) -> F64:
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _disc(_rng: np.random.Generator) -> Outline:
    return (_circle(0.92),)


def _square(rng: np.random.Generator) -> Outline:
    half_width, half_height = 0.78, 0.78 * (0.8 + 0.4 * rng.random())
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    return (np.array(corners) * (half_width, half_height),)


def _triangle(rng: np.random.Generator) -> Outline:
    apex = 0.5 * (rng.random() - 0.5)
    return (np.array([(-0.95, 0.6), (0.95, 0.6), (apex, -1.0)]),)


def _star(rng: np.random.Generator) -> Outline:
    angles = np.arange(10) * math.pi / 5 - math.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.08, 0.42 + 0.13 * rng.random())
    return (radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1),)


def _ring(rng: np.random.Generator) -> Outline:
    return (_circle(0.95), _circle(0.42 + 0.25 * rng.random()))


OUTLINES: Mapping[str, Callable[[np.random.Generator], Outline]] = MappingProxyType(
    {"disc": _disc, "square": _square, "triangle": _triangle, "star": _star, "ring": _ring}
)


# ---------------------------------------------------------------------------------- textures
# Each says, per point (u, v), how much of the second colour there is: float64 within 0..1.


def _plain(_rng: np.random.Generator, u: F64, _v: F64) -> F64:
    return np.zeros_like(u)


def _gradient(_rng: np.random.Generator, u: F64, _v: F64) -> F64:
    return np.clip(0.5 + 0.5 * u, 0, 1)


def _stripes(rng: np.random.Generator, u: F64, _v: F64) -> F64:
    return _soft_step(np.sin(u * (6 + 8 * rng.random()) + 6 * rng.random()))


def _checks(rng: np.random.Generator, u: F64, v: F64) -> F64:
    pitch = 5 + 5 * rng.random()
    return _soft_step(np.sin(pitch * u) * np.sin(pitch * v))


def _dots(rng: np.random.Generator, u: F64, v: F64) -> F64:
    pitch = 7 + 5 * rng.random()
    return _soft_step(np.cos(pitch * u) + np.cos(pitch * v) - 0.9)


def _rings(rng: np.random.Generator, u: F64, v: F64) -> F64:
    return _soft_step(np.sin(np.hypot(u, v) * (8 + 6 * rng.random())))


def _soft_step(value: F64) -> F64:
    return 0.5 + 0.5 * np.tanh(6 * value)


TEXTURES: tuple[Callable[[np.random.Generator, F64, F64], F64], ...] = (
    _plain,
    _gradient,
    _stripes,
    _checks,
    _dots,
    _rings,
)
