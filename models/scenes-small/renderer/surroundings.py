"""What a rendered scene has besides its objects: a background, light, a camera.

Pictures are float32 (H, W, 3) RGB within 0..1 here; the camera makes them uint8.
"""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32, F64, U8


def paint_background(rng: np.random.Generator, width: int, height: int) -> F32:
    """Paint a muted background: a gradient, clouds, blobs, now and then tiles and strokes."""
    colours = [_muted_colour(rng) for _ in range(3)]
    ramp = 0.5 + 0.5 * _ramp(rng, width, height)[..., None]
    canvas = (colours[0] * ramp + colours[1] * (1 - ramp)).astype(np.float32)
    clouds = _clouds(rng, width, height)[..., None]
    canvas += (0.2 + 0.5 * rng.random()) * clouds * (colours[2] - canvas)
    if rng.random() < 0.3:
        canvas *= 1.0 + (0.04 + 0.1 * rng.random()) * _tiles(rng, width, height)[..., None]
    for _ in range(int(rng.integers(2, 7))):
        _add_blob(rng, canvas)
    for _ in range(int(rng.integers(0, 3))):
        _add_stroke(rng, canvas)
    background: F32 = np.clip(canvas, 0, 1)
    return background


def add_shadow(canvas: F32, coverage: F32, offset_px: tuple[float, float], softness: float) -> None:
    """Darken `canvas` where an object of this `coverage`, not yet painted, throws its shadow."""
    height, width = coverage.shape
    shift = np.array([[1, 0, offset_px[0]], [0, 1, offset_px[1]]], np.float32)
    moved = cv2.warpAffine(coverage, shift, (width, height))
    canvas *= 1.0 - 0.45 * cv2.GaussianBlur(moved, (0, 0), softness)[..., None]


def photograph(rng: np.random.Generator, canvas: F32) -> U8:
    """Turn the painted scene into a photograph: uneven light, a slight blur, sensor noise."""
    height, width = canvas.shape[:2]
    light = 1.0 + 0.25 * rng.random() * _ramp(rng, width, height)
    light *= 0.8 + 0.35 * rng.random()
    cast = 1.0 + 0.12 * (rng.random(3) - 0.5)
    lit = (canvas * light[..., None] * cast).astype(np.float32)
    sharp = cv2.GaussianBlur(lit, (0, 0), 0.3 + 0.9 * rng.random() ** 2)
    # three uniforms make a bell curve of variance 1 from numpy's most stable stream
    noise = 2.0 * (rng.random((3, *canvas.shape), np.float32).sum(axis=0) - 1.5)
    noisy = sharp + (0.004 + 0.03 * rng.random() ** 2) * noise
    pixels: U8 = np.clip(np.round(255 * noisy), 0, 255).astype(np.uint8)
    return pixels


def _muted_colour(rng: np.random.Generator) -> F64:
    hue, saturation, value = rng.random(3) * (1.0, 0.45, 0.65) + (0.0, 0.05, 0.3)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _ramp(rng: np.random.Generator, width: int, height: int) -> F32:
    """Return a slope within about -1..1 in a random direction."""
    angle = 2 * math.pi * rng.random()
    across = np.linspace(-1, 1, width)[None, :] * math.cos(angle)
    down = np.linspace(-1, 1, height)[:, None] * math.sin(angle)
    ramp: F32 = (across + down).astype(np.float32)
    return ramp


def _clouds(rng: np.random.Generator, width: int, height: int) -> F32:
    """Return value noise within 0..1: random grids, each twice as fine and half as strong."""
    total = np.zeros((height, width), np.float32)
    for octave in range(5):
        cells = 3 * 2**octave
        grid = rng.random((cells, cells + cells // 3), np.float32)
        total += 0.5**octave * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    noise: F32 = np.clip(total / 1.9375, 0, 1)
    return noise


def _tiles(rng: np.random.Generator, width: int, height: int) -> F32:
    """Return a tilted pattern of tiles or of bands, within -1..1."""
    wave = 2 * math.pi / (30 + 60 * rng.random())
    angle = math.pi * rng.random()
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    along = np.sin(wave * (columns * math.cos(angle) + rows * math.sin(angle)))
    across = np.sin(wave * (rows * math.cos(angle) - columns * math.sin(angle)))
    pattern = along * across if rng.random() < 0.5 else along
    tiles: F32 = np.tanh(5 * pattern).astype(np.float32)
    return tiles


def _add_blob(rng: np.random.Generator, canvas: F32) -> None:
    """Lay a soft patch of colour on the background."""
    height, width = canvas.shape[:2]
    rows, cols = height // 4, width // 4  # it has no detail that a quarter of the size would lose
    mask = np.zeros((rows, cols), np.float32)
    centre = (int(rng.integers(cols)), int(rng.integers(rows)))
    axes = (int(rng.integers(cols // 20, cols // 5)), int(rng.integers(rows // 20, rows // 5)))
    cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1.0, cv2.FILLED)
    soft = cv2.GaussianBlur(mask, (0, 0), max(cols, rows) * (0.012 + 0.03 * rng.random()))
    strength = 0.55 * cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas += strength[..., None] * (_muted_colour(rng) - canvas).astype(np.float32)


def _add_stroke(rng: np.random.Generator, canvas: F32) -> None:
    """Lay a bent stroke on the background: an edge that belongs to no object."""
    height, width = canvas.shape[:2]
    start, end = rng.random((2, 2)) * (width, height)
    bend = (start + end) / 2 + (rng.random(2) - 0.5) * 0.5 * np.abs(end - start).max()
    steps = np.linspace(0, 1, 24)[:, None]
    curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
    mask = np.zeros((height, width), np.uint8)
    thickness = int(rng.integers(2, 2 + max(width, height) // 40))
    cv2.polylines(mask, [np.round(curve).astype(np.int32)], False, 255, thickness, cv2.LINE_AA)  # noqa: FBT003
    strength = (0.4 + 0.4 * rng.random()) / 255 * mask.astype(np.float32)
    canvas += strength[..., None] * (_muted_colour(rng) - canvas).astype(np.float32)
