"""How rich a rendered scene is: which objects, how many, how small, and what is in their way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mbv3ssd_deploy.core.arrays import F64
from renderer.objects import OUTLINES, Outline


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """What a series of scenes is made of.

    Attributes:
        outlines: an outline per class, in the order of the labels.
        objects: least and most of them.
        radius: least and most, as shares of the picture's shorter side.
        least_pixels: an object shows at least so many when it is laid down.
        clutter: so many things of no class at most lie under the objects.
        bar_chance: of each of two thin bars to lie over the objects.
        blur_chance: of a camera that moved.
        dim_chance: of little light, with the noise that comes with it.
    """

    outlines: Mapping[str, Callable[[np.random.Generator], Outline]]
    objects: tuple[int, int] = (3, 9)
    radius: tuple[float, float] = (0.05, 0.24)
    least_pixels: int = 1
    clutter: int = 0
    bar_chance: float = 0.0
    blur_chance: float = 0.0
    dim_chance: float = 0.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label; 0 is the background."""
        return ("background", *self.outlines)


def _cross(rng: np.random.Generator) -> Outline:
    arm = 0.26 + 0.12 * rng.random()
    quarter = np.array([(arm, arm), (arm, 0.95), (-arm, 0.95)])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return (np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)]),)


def _crescent(rng: np.random.Generator) -> Outline:
    """The outer edge of a disc, and back along the edge of another that covers part of it."""
    shift = 0.35 + 0.25 * rng.random()
    meeting = math.acos(shift / 2)  # where two circles of radius 1, so far apart, meet
    outer = np.linspace(meeting, 2 * math.pi - meeting, 48)
    inner = np.linspace(math.pi + meeting, math.pi - meeting, 48)
    edge = np.concatenate([_on_circle(outer), _on_circle(inner) + np.array([shift, 0.0])])
    return (0.95 * edge,)


def _heart(rng: np.random.Generator) -> Outline:
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    across = 0.9 * np.sin(angle) ** 3
    down = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
    return (np.stack([across, -down / (17 + 3 * rng.random())], axis=1),)


def _on_circle(angles: F64) -> F64:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


CLEAR = SceneStyle(OUTLINES)
"""Clear sight of everything: the scenes of the demo. They must never change."""

CROWDED = SceneStyle(
    MappingProxyType({**OUTLINES, "cross": _cross, "crescent": _crescent, "heart": _heart}),
    objects=(2, 14),
    radius=(0.03, 0.26),
    least_pixels=30,
    clutter=5,
    bar_chance=0.35,
    blur_chance=0.3,
    dim_chance=0.25,
)
"""Small, half-hidden, blurred and dark things among others of no class: to learn from."""

STYLES: Mapping[str, SceneStyle] = MappingProxyType({"crowded": CROWDED, "clear": CLEAR})
"""By the name that the command line has for them."""
