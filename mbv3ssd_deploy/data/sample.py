"""A sample picture with edges, areas and noise, the same on every machine."""

from __future__ import annotations

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import U8

WIDTH, HEIGHT = 480, 360
_SHAPES = 12


def sample_image(index: int) -> U8:
    """Return picture number `index`: RGB uint8 (360, 480, 3)."""
    random = np.random.Generator(np.random.PCG64(index))
    tones = random.integers(0, 256, (4, 5, 3), np.uint8)
    image = cv2.resize(tones, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for kind in range(_SHAPES):
        colour = tuple(random.integers(0, 256, 3).tolist())
        x, y = (int(random.integers(0, limit)) for limit in (WIDTH, HEIGHT))
        size = int(random.integers(8, 80))
        if kind % 2:
            cv2.circle(image, (x, y), size, colour, thickness=-1)
        else:
            cv2.rectangle(image, (x, y), (x + 2 * size, y + size), colour, thickness=-1)
    noise = random.integers(-8, 9, image.shape)
    pixels: U8 = np.clip(image + noise, 0, 255).astype(np.uint8)
    return pixels
