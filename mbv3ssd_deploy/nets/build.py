"""SSDLite on MobileNetV3, one network for every family.

SSD is arXiv 1512.02325, SSDLite 1801.04381, MobileNetV3 1905.02244.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, DetectorSpec, TapPlace
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.nets.blocks import (
    ChannelNorm,
    ConvBnAct,
    ExtraLevel,
    InvertedResidual,
    build_last,
    build_wide,
)
from mbv3ssd_deploy.nets.layouts import Layout, PredictorKind
from mbv3ssd_deploy.nets.plan import NetPlan, divisible_width, feature_map_sizes, plan_net


class FeatureMaps(nn.Module):
    """Image -> the feature maps that the heads read, largest first.

    `features` has one part a tap, `extra` one level each; names as in torchvision's ssdlite.
    `rest` is what the last tap leaves of its feature: nothing, or an activation.
    """

    def __init__(self, arch: ArchSpec, plan: NetPlan) -> None:
        super().__init__()
        *parts, self.rest = parts_between_taps(arch, plan)
        self.features = nn.Sequential(*parts)
        self.extra = nn.ModuleList(ExtraLevel(extra, plan.layout) for extra in plan.extras)
        normalises = plan.layout.normalises_first
        self.first_norm = ChannelNorm(plan.map_channels[0]) if normalises else nn.Identity()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps (N, C, rows, columns) for `x` (N, 3, H, W)."""
        maps: list[torch.Tensor] = []
        for part in self.features:
            x = part(x)
            maps.append(x)
        x = self.rest(x)
        for level in self.extra:
            x = level(x)
            maps.append(x)
        return [self.first_norm(maps[0]), *maps[1:]]


def _features(plan: NetPlan) -> list[nn.Module]:
    layout = plan.layout
    stem = ConvBnAct(
        3,
        plan.stem_channels,
        activation=layout.stem_activation,
        layout=layout,
        kernel=3,
        stride=2,
        bias=layout.base_bias,
    )
    blocks = (InvertedResidual(block, layout) for block in plan.blocks)
    wide = layout.wide_channels
    tail = [build_last(plan), *([] if wide is None else [build_wide(plan, wide)])]
    return [stem, *blocks, *tail]


def parts_between_taps(arch: ArchSpec, plan: NetPlan) -> list[nn.Sequential]:
    """Return what leads to each tap from the one before, and what the last one leaves."""
    features = _features(plan)
    places = {tap.feature: tap.place for tap in arch.taps}
    parts: list[nn.Sequential] = []
    current: list[nn.Module] = []
    for number, feature in enumerate(features[: arch.taps[-1].feature + 1]):
        if places.get(number) is TapPlace.EXPANSION and isinstance(feature, InvertedResidual):
            # a slice of a Sequential keeps its item numbers, and so the weights' names
            parts.append(nn.Sequential(*current, feature.block[0]))
            current = [feature.block[1:]]
        elif places.get(number) is TapPlace.BEFORE_ACTIVATION and isinstance(
            feature, nn.Sequential
        ):
            parts.append(nn.Sequential(*current, feature[:-1]))
            current = [feature[-1]]
        else:
            current.append(feature)
            if number in places:
                parts.append(nn.Sequential(*current))
                current = []
    return [*parts, nn.Sequential(*current)]


class Head(nn.Module):
    """One predictor a level; `module_list` in the order of the feature maps."""

    def __init__(
        self,
        map_channels: Sequence[int],
        boxes: Sequence[int],
        values: int,
        kind: PredictorKind,
        layout: Layout,
    ) -> None:
        super().__init__()
        outputs = [count * values for count in boxes]
        self.values = values
        last = len(outputs) - 1
        self.module_list = nn.ModuleList(
            nn.Conv2d(channels, out, 1)
            if layout.bare_last_level and level == last
            else _predictor(channels, out, kind, layout)
            for level, (channels, out) in enumerate(zip(map_channels, outputs, strict=True))
        )

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return (N, P, values): level, row, column, box in the cell."""
        flat = [
            predictor(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)
            for predictor, x in zip(self.module_list, maps, strict=True)
        ]
        return torch.cat(flat, dim=1)


def _predictor(channels: int, outputs: int, kind: PredictorKind, layout: Layout) -> nn.Module:
    if kind is PredictorKind.CONVOLUTION:
        return nn.Conv2d(channels, outputs, 3, padding=1)
    return nn.Sequential(
        ConvBnAct(
            channels,
            channels,
            activation=layout.head_activation,
            layout=layout,
            kernel=3,
            groups=channels,
            bias=layout.head_depthwise_bias,
        ),
        nn.Conv2d(channels, outputs, 1),
    )


class Heads(nn.Module):
    """Both predictors of a detector."""

    def __init__(
        self, map_channels: Sequence[int], boxes: Sequence[int], classes: int, layout: Layout
    ) -> None:
        super().__init__()
        self.classification_head = Head(map_channels, boxes, classes, layout.class_head, layout)
        self.regression_head = Head(map_channels, boxes, 4, layout.box_head, layout)

    def forward(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loc (N, P, 4) and conf (N, P, C)."""
        return self.regression_head(maps), self.classification_head(maps)


class SsdNet(nn.Module):
    """Image -> raw heads. The spec says how the image is made and how the heads are read.

    Args:
        arch: which network.
        boxes_per_cell: the number of priors per cell, level by level.
        num_classes: C, the background counted.
    """

    def __init__(self, arch: ArchSpec, boxes_per_cell: Sequence[int], num_classes: int) -> None:
        super().__init__()
        plan = plan_net(arch)
        self.backbone = FeatureMaps(arch, plan)
        self.head = Heads(plan.map_channels, boxes_per_cell, num_classes, plan.layout)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return raw offsets `loc` (N, P, 4) and class logits `conf` (N, P, C), background first.

        `x` is (N, 3, H, W) float32, normalised as the spec's `input` says. P counts level, row,
        column, box in the cell.
        """
        loc, conf = self.head(self.backbone(x))
        return loc, conf


def build_net(spec: DetectorSpec) -> SsdNet:
    """Return the network of `spec`, freshly initialised and in training mode.

    Extras and heads start from a normal distribution of deviation 0.03 with zero biases, and the
    backbone from He's (fan out), as torchvision trains its ssdlite from scratch.

    Raises:
        SpecError: the arch contradicts itself, or the priors do not fit its feature maps.
    """
    net = assemble_net(spec)
    _initialise(net)
    return net


def assemble_net(spec: DetectorSpec) -> SsdNet:
    """Return the network of `spec` for weights to be loaded into, in training mode.

    Raises:
        SpecError: the arch contradicts itself, or the priors do not fit its feature maps.
    """
    check_priors_fit(spec)
    boxes = [level.boxes_per_cell for level in spec.priors.levels]
    return SsdNet(spec.arch, boxes, spec.num_classes)


def check_priors_fit(spec: DetectorSpec) -> None:
    """Check that every prior level has the rows and columns of its feature map.

    Raises:
        SpecError: with both sizes of every level that differs.
    """
    maps = feature_map_sizes(spec.arch, spec.input.height, spec.input.width)
    priors = tuple((level.rows, level.cols) for level in spec.priors.levels)
    size = f"at {spec.input.height} x {spec.input.width}"
    if len(maps) != len(priors):
        raise SpecError(
            f"the network makes {len(maps)} feature maps {size}, but there are "
            f"{len(priors)} prior levels",
            where="priors.levels",
        )
    problems = [
        f"level {number}: the feature map is {rows} x {cols} {size}, the priors are for "
        f"{prior_rows} x {prior_cols}"
        for number, ((rows, cols), (prior_rows, prior_cols)) in enumerate(
            zip(maps, priors, strict=True)
        )
        if (rows, cols) != (prior_rows, prior_cols)
    ]
    if problems:
        raise SpecError(
            "; ".join(problems),
            where="priors.levels",
            hint="give the image size that the priors were made for: --imgsz",
        )


def initialise_features(features: nn.Module) -> None:
    """Start the convolutions of a backbone from He's normal distribution (fan out), biases at 0."""
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _initialise(net: SsdNet) -> None:
    initialise_features(net.backbone.features)
    for part in (net.backbone.extra, net.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.03)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


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
