"""The recipe of the zoo's weights and inputs: each a pure function of a name, a shape and a seed.

The families' own code was run on these very numbers, so that neither has to be stored.
"""

import hashlib
import math

import numpy as np
import torch


def uniforms(name, count, seed):
    """`count` float64 uniforms in [0, 1)."""
    digest = hashlib.sha256(f"{name}{seed}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big"))).random(count)


def weight(key, shape, seed, gain):
    """One entry of a state_dict, in float64, before its factor."""
    share = uniforms(key, math.prod(shape), seed).reshape(shape)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "weight" and len(shape) > 1:
        return (2 * share - 1) * (gain * math.sqrt(3 / math.prod(shape[1:])))
    if leaf == "rescale_factors":
        return 20 * (0.5 + share)
    if leaf == "running_var" or leaf == "weight":  # noqa: PLR1714 -- statistics, then gammas
        return 0.5 + share
    return 0.4 * share - 0.2


def state_dict(keys, seed, gain, scales, aliases=None, **_):
    """The weights of an inventory {key: shape}; a key of `aliases` has another's tensor."""
    tensors = {}
    for key, shape in keys.items():
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        name = (aliases or {}).get(key, key)
        values = weight(name, shape, seed, gain) * scales.get(name, 1.0)
        tensors[key] = torch.from_numpy(np.array(values, dtype=np.float32))
    return tensors


def synthetic_input(shape, low, high, seed):
    share = uniforms("input", math.prod(shape), seed).reshape(shape)
    return (low + (high - low) * share).astype(np.float32)


def synthetic_image(height, width, seed=0):
    """(height, width, 3) uint8 RGB: blocks of 16 x 16 random pixels, and a ramp over them."""
    rows, cols = -(-height // 16), -(-width // 16)
    block = np.floor(256 * uniforms("image", rows * cols * 3, seed)).reshape(rows, cols, 3)
    y, x = np.mgrid[:height, :width]
    ramp = (3 * x + 5 * y) // 7
    return ((block[y // 16, x // 16].astype(np.int64) + ramp[..., None]) % 256).astype(np.uint8)
