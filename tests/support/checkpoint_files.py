"""Checkpoint files of every kind, sound and broken, for the tests of `checkpoint`."""

import json
import os
from pathlib import Path

import torch
from builders import seeded_state_dict

DATA = Path(__file__).parent.parent / "checkpoint" / "data"
INVENTORIES = (
    *("torchvision_coco", "torchvision_small", "qfgaohao_large", "qfgaohao_small"),
    *("tongyu_large", "tongyu_small", "ujsyehao_released", "lufficc_large", "jungin500_small"),
    "compact_large",
)


def inventory(name):
    """Key -> shape of a family's state_dict, in its order."""
    return {
        key: tuple(shape) for key, shape in json.loads((DATA / f"{name}.json").read_text()).items()
    }


def state_dict(name, **shapes):
    """A seeded state_dict of a family; `shapes` replaces or (None) removes keys, dots as __."""
    wanted = inventory(name)
    for key, shape in shapes.items():
        wanted[key.replace("__", ".")] = shape
    return seeded_state_dict({key: s for key, s in wanted.items() if s is not None})


def saved(path, entries, *, legacy=False, **options):
    """Write `entries` with torch.save and return the path."""
    torch.save(entries, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


class Payload:
    """An object whose unpickling runs a shell command that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)
