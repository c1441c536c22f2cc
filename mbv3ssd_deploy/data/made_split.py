"""A split for data that came without one: by a hash of each name, so that it never moves.

An image stays in its part when others are added or taken away, on every machine; a random shuffle
would move it, and a test image would become a training image with the next picture taken.
"""

from __future__ import annotations

import hashlib

from mbv3ssd_deploy.data.dataset import Split

_VAL_SHARE, _TEST_SHARE = 0.15, 0.15


def made_split(name: str, seed: int) -> Split:
    """Return the part that `name` falls into: 70 % train, 15 % val, 15 % test on the average."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < _TEST_SHARE:
        return Split.TEST
    return Split.VAL if place < _TEST_SHARE + _VAL_SHARE else Split.TRAIN


def belongs_to(part: Split, split: Split) -> bool:
    """Tell whether an image of `part` (train, val or test) is in `split`; trainval holds two."""
    return part is split or (split is Split.TRAINVAL and part in (Split.TRAIN, Split.VAL))
