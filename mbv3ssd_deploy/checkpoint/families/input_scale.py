"""How large the numbers were that a network was trained on, told by its first BatchNorm."""

from __future__ import annotations

import math

import torch

from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint


def input_variance(contents: RawCheckpoint, convolution: str, variance: str) -> float | None:
    """Return roughly the variance of the input that the first BatchNorm's statistics saw.

    The median over the channels of running variance / sum of the squared weights: what a
    convolution does to the variance of uncorrelated inputs. About 0.3 for (pixel - 127) / 128, 1.6
    for inputs normalised as for ImageNet, and 5000 for pixels less their mean.

    Args:
        contents: the file.
        convolution: key of the first convolution's weight.
        variance: key of the first BatchNorm's running variance.

    Returns:
        None where the tensors are missing, do not fit each other, or are not finite.
    """
    weight, running = contents.tensors.get(convolution), contents.tensors.get(variance)
    if weight is None or running is None or weight.dim() < 2 or running.dim() != 1:
        return None
    if len(weight) != len(running) or not len(running):
        return None
    gains = weight.to(torch.float64).square().flatten(1).sum(1)
    ratio = float((running.to(torch.float64) / gains).median())
    return ratio if math.isfinite(ratio) and ratio > 0 else None
