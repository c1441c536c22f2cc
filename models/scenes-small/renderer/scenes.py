"""Rendered scenes: pictures of coloured shapes with exact boxes, for the demo, tests and training.

A scene is a pure function of (seed, index, width, height, style): numpy's PCG64 chooses, OpenCV
draws.
Nothing in it was photographed, so it may be committed and shipped freely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.core.arrays import F32, I64, U8, Bools
from mbv3ssd_deploy.data.images import write_image
from renderer.objects import (
    Outline,
    Placement,
    coverage_of,
    paint_object,
    random_placement,
)
from renderer.styles import CLEAR, SceneStyle
from renderer.surroundings import add_shadow, paint_background, photograph
from renderer.troubles import (
    add_clutter,
    bar_across,
    paint_bar,
    shake_camera,
    turn_light_down,
)

SCENE_CLASSES = CLEAR.class_names
"""Class names of the scenes of the demo, by label; 0 is the background."""

_LEAST_VISIBLE = 0.4
"""An object may be covered by later ones until this share of it is left."""
_OWNED = 0.5
"""From this coverage on a pixel belongs to the object."""
_PLACEMENT_TRIES = 12


@dataclass(frozen=True, slots=True)
class Scene:
    """A rendered picture and what is to be seen in it. Arrays are read-only.

    Attributes:
        image: RGB uint8 (H, W, 3).
        boxes: float32 (n, 4), corners x1, y1, x2, y2 in pixels, tight around what is visible of
            each object; x2 and y2 lie just behind the last pixel.
        labels: int64 (n,), indices into the style's class names.
        instances: uint8 (H, W), which object each pixel belongs to: k + 1 for box k, 0 for none.
    """

    image: U8
    boxes: F32
    labels: I64
    instances: U8

    def __post_init__(self) -> None:
        for array in (self.image, self.boxes, self.labels, self.instances):
            array.setflags(write=False)


def render_scene(
    index: int,
    *,
    seed: int = 0,
    width: int = 480,
    height: int = 360,
    style: SceneStyle = CLEAR,
) -> Scene:
    """Render one scene, by default with 3 to 9 objects (fewer where no room is left).

    Later objects lie on earlier ones, but always leave enough of each in sight that it can be
    recognised: whatever is in the picture is annotated.

    Args:
        index: which scene of the series.
        seed: which series.
        width: in pixels, at least 64.
        height: in pixels, at least 64.
        style: what the scene is made of.
    """
    if min(width, height) < 64 or min(index, seed) < 0:
        raise ValueError("a scene needs 64 x 64 pixels and an index and a seed of 0 or more")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))
    canvas = paint_background(rng, width, height)
    if style.clutter:
        add_clutter(rng, canvas, style.clutter)
    labels, instances = _place_objects(rng, canvas, style)
    if style.bar_chance:
        _lay_bars(rng, canvas, instances, style.bar_chance)
    if style.blur_chance and rng.random() < style.blur_chance:
        canvas = shake_camera(rng, canvas)
    if style.dim_chance and rng.random() < style.dim_chance:
        canvas = turn_light_down(rng, canvas)
    image = photograph(rng, canvas)
    boxes = [_box_around(instances == number) for number in range(1, len(labels) + 1)]
    return Scene(
        image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), instances
    )


def write_scenes(
    folder: Path, count: int, *, seed: int = 0, width: int = 480, height: int = 360
) -> tuple[Path, ...]:
    """Write scenes 0..count-1 as PNG files and return their paths; same seed, same bytes.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    paths = tuple(folder / f"scene_{index:03d}.png" for index in range(count))
    for index, path in enumerate(paths):
        write_image(path, render_scene(index, seed=seed, width=width, height=height).image)
    return paths


def _place_objects(
    rng: np.random.Generator, canvas: F32, style: SceneStyle
) -> tuple[list[int], U8]:
    """Paint the objects one by one; return their labels, and which pixels belong to which."""
    height, width = canvas.shape[:2]
    outlines = tuple(style.outlines.values())
    side = min(width, height)
    instances = np.zeros((height, width), np.uint8)
    labels: list[int] = []
    areas: list[int] = []
    shadow = (rng.random(2) - 0.5) * 0.03 * side
    for _ in range(int(rng.integers(style.objects[0], style.objects[1] + 1))):
        label = 1 + int(rng.integers(len(outlines)))
        found = _find_place(rng, outlines[label - 1], style, instances, areas)
        if found is None:
            continue
        place, coverage = found
        add_shadow(canvas, coverage, (shadow[0], shadow[1]), 0.008 * side)
        paint_object(rng, canvas, coverage, place)
        labels.append(label)
        areas.append(int(np.count_nonzero(coverage >= _OWNED)))
        instances[coverage >= _OWNED] = len(labels)
    return labels, instances


def _find_place(
    rng: np.random.Generator,
    outline_of: Callable[[np.random.Generator], Outline],
    style: SceneStyle,
    instances: U8,
    areas: list[int],
) -> tuple[Placement, F32] | None:
    """Return a place and the object's coverage there that leaves enough of the earlier objects.

    `areas` are the pixels that each of them had before others came to lie on it. None: no room.
    """
    height, width = instances.shape
    side = min(width, height)
    radius_px = (style.radius[0] * side, style.radius[1] * side)
    for _ in range(_PLACEMENT_TRIES):
        outline = outline_of(rng)
        place = random_placement(rng, (width, height), radius_px)
        coverage = coverage_of(outline, place, width, height)
        shown = np.count_nonzero(coverage >= _OWNED)
        if shown >= style.least_pixels and _enough_left(instances, coverage, areas):
            return place, coverage
    return None


def _lay_bars(rng: np.random.Generator, canvas: F32, instances: U8, chance: float) -> None:
    """Paint up to two bars over the objects; what lies behind them belongs to no object."""
    height, width = instances.shape
    areas = np.bincount(instances.ravel())[1:].tolist()
    for _ in range(2):
        if rng.random() < chance:
            coverage = bar_across(rng, width, height)
            if _enough_left(instances, coverage, areas):
                paint_bar(rng, canvas, coverage)
                instances[coverage >= _OWNED] = 0


def _enough_left(instances: U8, coverage: F32, areas: list[int]) -> bool:
    left = np.bincount(instances[coverage < _OWNED], minlength=len(areas) + 1)[1:]
    return bool(np.all(left >= _LEAST_VISIBLE * np.array(areas)))


def _box_around(mask: Bools) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
