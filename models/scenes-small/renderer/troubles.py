"""What makes a rendered scene hard to read: clutter, bars in front, a shaken camera, little light.

Pictures are float32 (H, W, 3) RGB within 0..1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from renderer.objects import coverage_of, paint_object, random_placement


def add_clutter(rng: np.random.Generator, canvas: F32, most: int) -> None:
    """Paint up to `most` things that look like objects and are of no class: jagged shards."""
    height, width = canvas.shape[:2]
    side = min(width, height)
    for _ in range(int(rng.integers(most + 1))):
        corners = int(rng.integers(5, 9))
        angles = np.sort(rng.random(corners)) * 2 * math.pi
        radii = 0.25 + 0.75 * rng.random(corners)
        outline = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        place = random_placement(rng, (width, height), (0.03 * side, 0.15 * side))
        coverage = coverage_of((outline,), place, width, height)
        if coverage.any():
            paint_object(rng, canvas, coverage, place)


def bar_across(rng: np.random.Generator, width: int, height: int) -> F32:
    """Return the coverage (H, W) of a thin straight bar that crosses the whole picture."""
    angle = math.pi * rng.random()
    along = np.array([math.cos(angle), math.sin(angle)])
    centre = rng.random(2) * (width, height)
    thickness = max(1, round((0.008 + 0.03 * rng.random()) * min(width, height)))
    ends = np.round([centre - along * (width + height), centre + along * (width + height)])
    (x1, y1), (x2, y2) = ends.astype(int).tolist()
    mask = np.zeros((height, width), np.uint8)
    cv2.line(mask, (x1, y1), (x2, y2), 255, thickness, cv2.LINE_AA)
    coverage: F32 = mask.astype(np.float32) / np.float32(255)
    return coverage


def paint_bar(rng: np.random.Generator, canvas: F32, coverage: F32) -> None:
    """Paint a bar in one dark or light, nearly grey colour."""
    colour = (0.1 + 0.8 * rng.random() + 0.1 * (rng.random(3) - 0.5)).astype(np.float32)
    canvas += coverage[..., None] * (colour - canvas)


def shake_camera(rng: np.random.Generator, canvas: F32) -> F32:
    """Return the picture smeared along a line of up to 2 % of its shorter side."""
    height, width = canvas.shape[:2]
    length = 2 + 0.018 * min(width, height) * rng.random()
    angle = math.pi * rng.random()
    reach = math.ceil(length / 2)
    grid = np.arange(-reach, reach + 1)
    columns, rows = np.meshgrid(grid, grid)
    along = np.abs(columns * math.cos(angle) + rows * math.sin(angle))
    aside = np.abs(rows * math.cos(angle) - columns * math.sin(angle))
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - aside, 0, 1)
    return np.asarray(cv2.filter2D(canvas, -1, kernel / kernel.sum()), np.float32)


def turn_light_down(rng: np.random.Generator, canvas: F32) -> F32:
    """Return the picture as it looks in little light: dark, and grainy once it is amplified."""
    light = 0.3 + 0.4 * rng.random()
    grain = 2.0 * (rng.random((3, *canvas.shape), np.float32).sum(axis=0) - 1.5)
    dim: F32 = (light * canvas + 0.02 * rng.random() * grain).astype(np.float32)
    return dim
