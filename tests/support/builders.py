"""Tiny specs, nets and checkpoints for every room's tests: seeded, quick, no files needed."""

import numpy as np
import torch

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.nets.build import build_net

TINY_WIDTH = 0.25


def class_names(num_classes):
    """Background first."""
    return ("background", *(f"class_{i}" for i in range(1, num_classes)))


def tiny_spec(num_classes=3, image_size=(96, 96), *, backbone=Backbone.SMALL, **native):
    """A native Small spec of a quarter of the width: six levels, 400 priors or so at 96 x 96."""
    native.setdefault("width_mult", TINY_WIDTH)
    return native_spec(backbone, class_names(num_classes), image_size=image_size, **native)


def tiny_net(seed=0, spec=None):
    """The net of `spec` (`tiny_spec()` by default) in eval mode, with weights that speak."""
    net = build_net(tiny_spec() if spec is None else spec)
    fill_weights(net, seed)
    return net.eval()


@torch.no_grad()
def fill_weights(net, seed=0):
    """Seeded weights of sound scale: He convolutions, BatchNorm statistics away from 0 and 1."""
    for key, tensor in net.state_dict().items():
        tensor.copy_(seeded_tensor(key, tuple(tensor.shape), seed))


def seeded_tensor(key, shape, seed=0):
    """One checkpoint tensor; the same for the same key, shape and seed."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    random = np.random.default_rng([seed, *key.encode()])
    uniform = random.random(shape, dtype=np.float32)
    if key.endswith("running_var") or (key.endswith("weight") and len(shape) < 2):
        values = 0.5 + uniform
    elif key.endswith("weight"):
        values = (2 * uniform - 1) * np.sqrt(6 / np.prod(shape[1:]))
    else:
        values = 0.4 * uniform - 0.2
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def seeded_state_dict(shapes, seed=0):
    """A state_dict for a {key: shape} inventory."""
    return {key: seeded_tensor(key, tuple(shape), seed) for key, shape in shapes.items()}


def tiny_input(spec=None, batch=1, seed=0):
    """A normalised input batch (batch, 3, H, W) for `spec`, float32 in [-1, 1)."""
    spec = tiny_spec() if spec is None else spec
    random = np.random.default_rng(seed)
    shape = (batch, 3, spec.input.height, spec.input.width)
    return random.uniform(-1, 1, shape).astype(np.float32)
