"""A split that folders make, or one for data that came without: by a hash of each name.

An image stays in its split when others are added or removed, on every machine; a random shuffle
would move it, and a test image could become a training image.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mbv3ssd_deploy.data.dataset import Split

SPLIT_SEED = 0
"""The default seed of splits.

It is never that of a training run: another run's test images would be this one's training images.
"""

_VAL_SHARE, _TEST_SHARE = 0.15, 0.15
_PART_FOLDERS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    (Split.TRAIN, ("train",)),
    (Split.VAL, ("val", "valid")),
    (Split.TEST, ("test",)),
)


def part_folders(root: Path) -> dict[Split, Path]:
    """Return the folders train, val and test in `root`; none without train."""
    found: dict[Split, Path] = {}
    for part, names in _PART_FOLDERS:
        for name in names:
            if (root / name).is_dir():
                found.setdefault(part, root / name)
    return found if Split.TRAIN in found else {}


def made_split(name: str, seed: int) -> Split:
    """Return the part that `name` falls into: 70 % train, 15 % val, 15 % test on average."""
    place = _place(name, seed)
    if place < _TEST_SHARE:
        return Split.TEST
    return Split.VAL if place < _TEST_SHARE + _VAL_SHARE else Split.TRAIN


def belongs_to(part: Split, split: Split) -> bool:
    """Return whether an image of `part` (train, val or test) is in `split`; trainval has two."""
    return part is split or (split is Split.TRAINVAL and part in (Split.TRAIN, Split.VAL))


def made_half(name: str, seed: int) -> Split:
    """Return train or val: 85 % and 15 % on average, for data with a test set elsewhere."""
    return Split.VAL if _place(name, seed) < _VAL_SHARE else Split.TRAIN


def _place(name: str, seed: int) -> float:
    """Return a number within 0..1 that only the name and the seed decide."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
