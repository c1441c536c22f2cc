"""The zoo fixtures: outputs of the families' original code, where `../shared` lies beside us.

`reduced` gives what tests/data/zoo keeps of them, everywhere; `reduce_zoo.py` says what that is.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
ZOO = SHARED / "zoo"
REDUCED = REPOSITORY / "tests" / "data" / "zoo"
BACKBONES = REPOSITORY / "tests" / "data" / "backbones.npz"
BCCD = SHARED / "data" / "bccd"

needs_zoo = pytest.mark.skipif(not ZOO.is_dir(), reason="the zoo fixtures are not here")
needs_bccd = pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD images are not here")


def _module(name):
    spec = importlib.util.spec_from_file_location(f"zoo_{name}", ZOO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights():
    """The module that re-makes the fixtures' deterministic weights and inputs."""
    return _module("weights")


def state_dict(folder):
    return weights().family_state_dict(str(ZOO / folder))


def meta(folder):
    return json.loads((ZOO / folder / "meta.json").read_text())


def oracle(folder):
    return np.load(ZOO / folder / "oracle.npz")


def synthetic_input(folder):
    spec = meta(folder)["synthetic_input"]
    return weights().synthetic_input(spec["shape"], spec["low"], spec["high"], spec["seed"])


def reduced(folder):
    """The facts and the arrays of tests/data/zoo; rows of heads are those of `img_rows` etc."""
    with np.load(REDUCED / f"{folder}.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    return json.loads(kept.pop("about").tobytes()), kept


def backbones():
    """The facts of tests/data/backbones.npz and the recorded outputs, each by folder."""
    with np.load(BACKBONES) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    return json.loads(kept.pop("about").tobytes()), kept
