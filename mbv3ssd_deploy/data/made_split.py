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
    place = _place(name, seed)
    if place < _TEST_SHARE:
        return Split.TEST
    return Split.VAL if place < _TEST_SHARE + _VAL_SHARE else Split.TRAIN


def belongs_to(part: Split, split: Split) -> bool:
    """Tell whether an image of `part` (train, val or test) is in `split`; trainval holds two."""
    return part is split or (split is Split.TRAINVAL and part in (Split.TRAIN, Split.VAL))


def made_half(name: str, seed: int) -> Split:
    """Return train or val: 85 % and 15 % on the average, for data whose test lies elsewhere."""
    return Split.VAL if _place(name, seed) < _VAL_SHARE else Split.TRAIN


def _place(name: str, seed: int) -> float:
    """Return a number within 0..1 that only the name and the seed decide."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
