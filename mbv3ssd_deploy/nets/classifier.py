"""A backbone with a pooled classifier: what a detector's training starts from.

The backbone's weights have the names that they have in the `SsdNet` of the same arch, so that they
go over as they are. The classifier is torchvision's: pooling, 1x1, h-swish, dropout, 1x1 (table 1
and 2 of the MobileNetV3 paper, arXiv 1905.02244).
"""

from __future__ import annotations

import torch
from torch import nn

from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.build import initialise_features, parts_between_taps
from mbv3ssd_deploy.nets.plan import NetPlan, divisible_width, plan_net

HIDDEN = {Backbone.LARGE: 1280, Backbone.SMALL: 1024}
"""Width of the layer before the last, at width 1.0 and with the full tail."""
DROPOUT = 0.2


class Trunk(nn.Module):
    """Image -> the last map of the backbone; `features` lie in parts, as the detector cuts them."""

    def __init__(self, arch: ArchSpec, plan: NetPlan) -> None:
        super().__init__()
        *parts, self.rest = parts_between_taps(arch, plan)
        self.features = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map (N, C, rows, columns) that the extra levels go on from."""
        last: torch.Tensor = self.rest(self.features(x))
        return last


class ClassifierNet(nn.Module):
    """Image -> class logits.

    Args:
        arch: that of the detectors to be fed.
        class_count: how many classes, no background among them.
        dropout: share of the hidden layer that is left out in training.
    """

    def __init__(self, arch: ArchSpec, class_count: int, dropout: float = DROPOUT) -> None:
        super().__init__()
        plan = plan_net(arch)
        hidden = hidden_width(arch)
        self.backbone = Trunk(arch, plan)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(plan.map_channels[len(arch.taps) - 1], hidden),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden, class_count),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (N, class_count) for `x` (N, 3, H, W), float32, normalised."""
        logits: torch.Tensor = self.classifier(self.pool(self.backbone(x)).flatten(1))
        return logits


def hidden_width(arch: ArchSpec) -> int:
    """Return the width of the classifier's hidden layer; a reduced tail halves it."""
    whole = HIDDEN[arch.backbone] // (2 if arch.reduced_tail else 1)
    return divisible_width(whole * arch.width_mult)


def build_classifier(
    arch: ArchSpec, class_count: int, *, dropout: float = DROPOUT
) -> ClassifierNet:
    """Return a classifier on the backbone of `arch`, freshly initialised and in training mode.

    The backbone starts from He's distribution (fan out), as in `build_net`, the classifier from a
    normal one of deviation 0.01 with zero biases, as in torchvision's MobileNetV3.

    Raises:
        SpecError: the arch contradicts itself.
        ValueError: no class, or a dropout outside [0, 1).
    """
    if class_count < 1 or not 0.0 <= dropout < 1.0:
        raise ValueError(f"{class_count} classes, dropout {dropout}")
    net = ClassifierNet(arch, class_count, dropout)
    initialise_features(net.backbone.features)
    for module in net.classifier.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return net
