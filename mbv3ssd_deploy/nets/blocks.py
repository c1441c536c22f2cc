"""The building blocks: convolution with BatchNorm, squeeze-excite gate, inverted residual.

Item numbers and attribute names are torchvision's, so that weights move both ways without renaming.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mbv3ssd_deploy.nets.layouts import (
    Activation,
    LastItem,
    Layout,
    SqueezePlace,
)
from mbv3ssd_deploy.nets.plan import BlockPlan, ExtraPlan, NetPlan, Part, Shortcut

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    Activation.RELU: lambda: nn.ReLU(inplace=True),
    Activation.RELU6: lambda: nn.ReLU6(inplace=True),
    Activation.HARDSWISH: lambda: nn.Hardswish(inplace=True),
}


class ConvBnAct(nn.Sequential):
    """Convolution (0), BatchNorm (1), a gate if there is one, and, unless NONE, an activation.

    Padded by half the kernel: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(  # noqa: PLR0913 -- a convolution is all of these
        self,
        in_channels: int,
        out_channels: int,
        *,
        activation: Activation,
        layout: Layout,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        gate: nn.Module | None = None,
    ) -> None:
        items: list[nn.Module] = [
            nn.Conv2d(
                in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias
            ),
            batch_norm(out_channels, layout),
        ]
        if gate is not None:
            items.append(gate)
        if activation is not Activation.NONE:
            items.append(_ACTIVATIONS[activation]())
        super().__init__(*items)


def batch_norm(channels: int, layout: Layout) -> nn.BatchNorm2d:
    """Return a BatchNorm with the layout's eps and momentum."""
    return nn.BatchNorm2d(channels, eps=layout.bn_eps, momentum=layout.bn_momentum)


class SqueezeExcite(nn.Module):
    """A gate of 0..1 per channel: `x * hardsigmoid(fc2(relu(fc1(mean of x))))`.

    Without pooling there is a gate per pixel. With `gate_norm`, `norm1` and `norm2` follow `fc1`
    and `fc2`, which then have no bias.
    """

    def __init__(self, channels: int, hidden: int, layout: Layout) -> None:
        super().__init__()
        norm = layout.gate_norm
        self.pool = nn.AdaptiveAvgPool2d(1) if layout.gate_pools else nn.Identity()
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=not norm)
        self.norm1 = batch_norm(hidden, layout) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=not norm)
        self.norm2 = batch_norm(channels, layout) if norm else nn.Identity()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` (N, C, H, W) times its gates."""
        hidden = self.relu(self.norm1(self.fc1(self.pool(x))))
        gates: torch.Tensor = self.gate(self.norm2(self.fc2(hidden)))
        return x * gates


class Square(nn.Module):
    """The map times itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x * x`."""
        return x * x


class InvertedResidual(nn.Module):
    """A MobileNetV3 block; `block` holds its parts in the order in which they run."""

    def __init__(self, plan: BlockPlan, layout: Layout) -> None:
        super().__init__()
        self.block = nn.Sequential(*(_build_part(part, plan, layout) for part in plan.parts))
        self.adds_input = plan.shortcut is not Shortcut.NONE
        if plan.shortcut is Shortcut.PROJECTION:
            self.shortcut: nn.Module = ConvBnAct(
                plan.in_channels, plan.out_channels, activation=Activation.NONE, layout=layout
            )
        elif plan.shortcut is Shortcut.CONVOLUTION:
            self.shortcut = nn.Conv2d(
                plan.in_channels, plan.out_channels, 1, plan.stride, bias=False
            )
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output for `x` (N, C, H, W)."""
        y: torch.Tensor = self.block(x)
        return y + self.shortcut(x) if self.adds_input else y


def _build_part(part: Part, plan: BlockPlan, layout: Layout) -> nn.Module:
    act, bias, place = plan.activation, layout.base_bias, layout.gate_place
    if part is Part.EXPAND:
        return ConvBnAct(plan.in_channels, plan.expansion, activation=act, layout=layout)
    if part is Part.DEPTHWISE:
        gated = plan.squeeze_hidden is not None and place is SqueezePlace.BEFORE_ACTIVATION
        return ConvBnAct(
            plan.expansion,
            plan.expansion,
            activation=act if layout.activates_depthwise else Activation.NONE,
            layout=layout,
            kernel=plan.kernel,
            stride=plan.stride,
            groups=plan.expansion,
            bias=bias,
            gate=_build_gate(plan.expansion, plan.squeeze_hidden, layout) if gated else None,
        )
    if part is Part.PROJECT:
        output = act if layout.activates_projection else Activation.NONE
        return ConvBnAct(
            plan.expansion, plan.out_channels, activation=output, layout=layout, bias=bias
        )
    if part is Part.SQUARE:
        return Square()
    after_projection = place is SqueezePlace.AFTER_PROJECTION
    channels = plan.out_channels if after_projection else plan.expansion
    return _build_gate(channels, plan.squeeze_hidden, layout)


def _build_gate(channels: int, hidden: int | None, layout: Layout) -> SqueezeExcite:
    return SqueezeExcite(channels, hidden or 1, layout)


def build_last(plan: NetPlan) -> nn.Sequential:
    """Return the backbone's last 1x1 convolution (0) and what follows it in the layout's order."""
    layout, channels = plan.layout, plan.last_channels
    follows: dict[LastItem, Callable[[], nn.Module]] = {
        LastItem.SQUEEZE: lambda: _build_gate(channels, plan.last_squeeze_hidden, layout),
        LastItem.NORM: lambda: batch_norm(channels, layout),
        LastItem.ACTIVATION: _ACTIVATIONS[Activation.HARDSWISH],
    }
    convolution = nn.Conv2d(plan.blocks[-1].out_channels, channels, 1, bias=layout.base_bias)
    return nn.Sequential(convolution, *(follows[item]() for item in layout.last))


def build_wide(plan: NetPlan, channels: int) -> nn.Sequential:
    """Return the wide 1x1 convolution (0) and its activation (1)."""
    # not in place: a tap may hold what goes in
    return nn.Sequential(nn.Conv2d(plan.last_channels, channels, 1), nn.Hardswish())


class ChannelNorm(nn.Module):
    """Each pixel divided by its length over the channels, times a learned factor a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` (N, C, H, W), every pixel of length 1, scaled; all zeros stay zeros."""
        length: torch.Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        # 1e-10 is lost in every length but 0: it keeps an all-zero pixel from dividing by it
        return x / (length + 1e-10) * self.scale


class ExtraLevel(nn.Sequential):
    """1x1 (0), depthwise 3x3 of stride 2 (1), 1x1 (2): half the rows and columns."""

    def __init__(self, plan: ExtraPlan, layout: Layout) -> None:
        act = layout.extra_activation
        output = act if layout.extra_activates_output else Activation.NONE
        hidden = plan.hidden
        super().__init__(
            ConvBnAct(plan.in_channels, hidden, activation=act, layout=layout),
            ConvBnAct(
                hidden,
                hidden,
                activation=act,
                layout=layout,
                kernel=3,
                stride=2,
                groups=hidden,
                gate=_build_gate(hidden, plan.squeeze_hidden, layout)
                if plan.squeeze_hidden
                else None,
            ),
            ConvBnAct(hidden, plan.out_channels, activation=output, layout=layout),
        )
