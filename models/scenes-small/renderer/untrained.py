"""A demo checkpoint that was never trained, and yet finds things.

Its weights are seeded random numbers. One pass over rendered scenes then sets what training would
have set: BatchNorm statistics are the measured ones, convolutions get one factor each so that their
outputs have deviation 1, and the biases of the heads are balanced so that every class fires on a
few priors of every image. What it finds means nothing; that a deployed copy finds the very same is
what it is for.

The same seed gives the same bytes. All arithmetic before the last step is float64, and all that is
measured is rounded, so that another order of summation on another processor does not show.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.core.arrays import F64
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import Backbone, DetectorSpec
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.nets.blocks import SqueezeExcite
from mbv3ssd_deploy.nets.build import SsdNet, assemble_net
from renderer.scenes import SCENE_CLASSES, render_scene

CARD = """\
MobileNetV3-Small SSDLite, 320 x 320, five shapes and the background; seeded, NOT trained.
Its weights are random numbers, scaled on rendered scenes so that it detects something in every
image. The boxes mean nothing. Use it to see that the deployed model gives the same ones.
"""

SEED = 20
"""Of the seeds 0 to 27 the one whose detections are spread most evenly over images and classes."""

_SCENES = 24
"""The first scenes of the series that the `demo` command writes: none of them is a surprise."""

# The first pattern that fits a key gives the bounds of its uniform numbers. A BatchNorm's bias is
# wide against its weight: most channels are then clearly on or clearly off, and rounding errors
# grow little from layer to layer. In the heads it is the other way round: ReLU6 cuts both ends off
# and keeps an unusual image from setting off every prior.
_BOUNDS = (
    (r"head\..*\.0\.1\.weight", 3.0, 9.0),
    (r"head\..*\.0\.1\.bias", 0.0, 6.0),
    (r".*\.fc2\.bias", -3.0, 3.0),
    (r".*\.running_mean", 0.0, 0.0),
    (r".*\.running_var", 1.0, 1.0),
    (r".*\.weight", 0.3, 0.9),
    (r".*\.bias", -2.0, 2.0),
)
_SMOOTHNESS = 0.9
"""The share of a kernel's variance that all its taps have in common: shapes count, noise hardly."""
_LEAST_VARIANCE = 0.6
"""BatchNorm statistics stay above it, or a channel that sleeps on these scenes could explode."""
_GATE_DEVIATION = 0.1
"""Small, for gates multiply: block by block they would drive an unusual image up or down."""
_LOGIT_DEVIATION = 3.0
_OFFSET_DEVIATION = 0.5
_BACKGROUND_LEAD = 14.8
"""How far the background's logits lie above the others on average."""

Calibration = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a module's input and output: sets its values, returns the output that they give."""


def write_untrained_checkpoint(
    path: Path, *, seed: int = SEED, progress: Progress = silent
) -> None:
    """Write the native checkpoint of the demo detector: seeded, scaled, never trained.

    Args:
        path: the file to make or replace.
        seed: which random weights.
        progress: told how far the calibration is.

    Raises:
        OutputError: no space or no permission; an older file is untouched.
    """
    spec, net = build_untrained_net(seed=seed, progress=progress)
    write_native(path, net, spec)


def build_untrained_net(
    *, seed: int = SEED, progress: Progress = silent
) -> tuple[DetectorSpec, SsdNet]:
    """Return the demo detector's spec and its net, float32 and in eval mode."""
    spec = native_spec(Backbone.SMALL, SCENE_CLASSES, name="demo_untrained")
    with torch.device("meta"):  # shapes only: every value is made here
        net = assemble_net(spec).eval()
    state = {key: _seeded_tensor(key, tuple(t.shape), seed) for key, t in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    rules = dict(_calibrations(net))
    images = []
    for index in range(_SCENES):
        progress("demo checkpoint", index, _SCENES + len(rules))
        images.append(input_from_image(render_scene(index).image, spec.input))
    _calibrate(net, torch.from_numpy(np.stack(images)).double(), rules, progress)
    return spec, net.float()


@torch.no_grad()
def _calibrate(
    net: SsdNet,
    batch: torch.Tensor,
    rules: Mapping[nn.Module, Calibration],
    progress: Progress,
) -> None:
    """Run `batch` through `net` once; each module is set before the next one sees its output."""
    steps, total = itertools.count(len(batch)), len(batch) + len(rules)

    def set_by_rule(
        module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        progress("demo checkpoint", next(steps), total)
        return rules[module](inputs[0], output)

    handles = [module.register_forward_hook(set_by_rule) for module in rules]
    try:
        net(batch)
    finally:
        for handle in handles:
            handle.remove()
    progress("demo checkpoint", total, total)


def _seeded_tensor(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return the first values of a tensor, float64: a function of its name, shape and the seed."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if len(shape) == 4:
        return torch.from_numpy(_seeded_kernels(key, shape, seed))
    low, high = next((a, b) for pattern, a, b in _BOUNDS if re.fullmatch(pattern, key))
    return torch.from_numpy(low + (high - low) * _uniforms(key, shape, seed))


def _seeded_kernels(key: str, shape: tuple[int, ...], seed: int) -> F64:
    """Return uniform kernels of He's deviation, sqrt(2 / fan in) (arXiv 1502.01852)."""
    kernels = 2 * _uniforms(key, shape, seed) - 1
    if shape[2:] != (1, 1):
        common = 2 * _uniforms(f"{key}/common", (*shape[:2], 1, 1), seed) - 1
        kernels = math.sqrt(1 - _SMOOTHNESS) * kernels + math.sqrt(_SMOOTHNESS) * common
    return kernels * math.sqrt(6 / math.prod(shape[1:]))


def _uniforms(name: str, shape: tuple[int, ...], seed: int) -> F64:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    bits = np.random.PCG64(int.from_bytes(digest[:16], "big"))
    return np.random.Generator(bits).random(shape)


def _calibrations(net: SsdNet) -> Iterator[tuple[nn.Module, Calibration]]:
    """Yield every module that is set by what it sees, with the rule for it."""
    outputs = {
        _last_convolution(predictor): (head.values, deviation, lead)
        for head, deviation, lead in (
            (net.head.classification_head, _LOGIT_DEVIATION, _BACKGROUND_LEAD),
            (net.head.regression_head, _OFFSET_DEVIATION, 0.0),
        )
        for predictor in head.module_list
    }
    gates = {module.fc2 for module in net.modules() if isinstance(module, SqueezeExcite)}
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            yield module, _measuring(module)
        elif isinstance(module, nn.Conv2d) and module in outputs:
            yield module, _balancing(module, *outputs[module])
        elif isinstance(module, nn.Conv2d):
            yield module, _scaling(module, _GATE_DEVIATION if module in gates else 1.0)


def _last_convolution(predictor: nn.Module) -> nn.Module:
    return [module for module in predictor.modules() if isinstance(module, nn.Conv2d)][-1]


def _measuring(norm: nn.BatchNorm2d) -> Calibration:
    """Return the rule that gives `norm` the statistics of what it sees."""

    def measure(x: torch.Tensor, _output: torch.Tensor) -> torch.Tensor:
        mean = _on_grid(x.mean(dim=(0, 2, 3)))
        variance = _on_grid(x.var(dim=(0, 2, 3), correction=0)).clamp(min=_LEAST_VARIANCE)
        norm.register_buffer("running_mean", mean)
        norm.register_buffer("running_var", variance)
        return nn.functional.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=norm.eps)

    return measure


def _scaling(convolution: nn.Conv2d, deviation: float) -> Calibration:
    """Return the rule that scales the weights so that the channels have this `deviation`.

    It is the quadratic mean over the channels, each about its own mean: what differs from place to
    place and from image to image counts, a constant does not.
    """

    def scale(_x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        bias = 0.0 if convolution.bias is None else _by_channel(convolution.bias)
        measured = math.sqrt(float(output.var(dim=(0, 2, 3), correction=0).mean()))
        factor = float(f"{deviation / measured:.3g}")
        convolution.weight.mul_(factor)
        return (output - bias) * factor + bias

    return scale


def _balancing(convolution: nn.Conv2d, values: int, deviation: float, lead: float) -> Calibration:
    """Return the rule that also centres the channels at 0, the first of `values` at `lead`."""
    scale = _scaling(convolution, deviation)

    def balance(x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        scaled = scale(x, output)
        shift = -scaled.mean(dim=(0, 2, 3))
        shift[::values] += lead
        shift = _on_grid(shift)
        if convolution.bias is not None:
            convolution.bias.add_(shift)
        return scaled + _by_channel(shift)

    return balance


def _by_channel(values: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, 1, 1)


def _on_grid(values: torch.Tensor) -> torch.Tensor:
    """Round to 64ths, which float32 holds exactly."""
    return torch.round(values * 64) / 64
