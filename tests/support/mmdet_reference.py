"""A small model of our own with the module tree and rules that mmdetection documents.

It stands in for the original, which was never at hand: attribute names give mmdetection's keys, the
background is the last class, and boxes are made as `SSDAnchorGenerator`, `DeltaXYWHBBoxCoder` and
`SSDHead` describe. Nothing in it is shared with the package.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SCORE_THRESHOLD, IOU_THRESHOLD, MOST = 0.02, 0.45, 200
RE, HS, R6 = nn.ReLU, nn.Hardswish, nn.ReLU6
# kernel, expansion, out, gate, activation, stride
SMALL_STEM = [
    *((3, 16, 16, True, RE, 2), (3, 72, 24, False, RE, 2), (3, 88, 24, False, RE, 1)),
    *((5, 96, 40, True, HS, 2), (5, 240, 40, True, HS, 1), (5, 240, 40, True, HS, 1)),
    *((5, 120, 48, True, HS, 1), (5, 144, 48, True, HS, 1)),
]
SMALL = [*SMALL_STEM, (5, 288, 96, True, HS, 2), *[(5, 576, 96, True, HS, 1)] * 2]
SMALL_HALVED = [*SMALL_STEM, (5, 144, 48, True, HS, 2), *[(5, 288, 48, True, HS, 1)] * 2]
LARGE_STEM = [
    *((3, 16, 16, False, RE, 1), (3, 64, 24, False, RE, 2), (3, 72, 24, False, RE, 1)),
    *((5, 72, 40, True, RE, 2), (5, 120, 40, True, RE, 1), (5, 120, 40, True, RE, 1)),
    *((3, 240, 80, False, HS, 2), (3, 200, 80, False, HS, 1), (3, 184, 80, False, HS, 1)),
    *((3, 184, 80, False, HS, 1), (3, 480, 112, True, HS, 1), (3, 672, 112, True, HS, 1)),
]
LARGE = [*LARGE_STEM, (5, 672, 160, True, HS, 2), *[(5, 960, 160, True, HS, 1)] * 2]
LARGE_LATE = [
    *LARGE_STEM,
    *((5, 672, 160, True, HS, 1), (5, 672, 160, True, HS, 2), (5, 960, 160, True, HS, 1)),
]


@dataclass(frozen=True)
class Variant:
    """One of the MobileNetV3s that a mmdetection configuration can name."""

    rows: tuple
    taps: tuple  # layer numbers; a negative one is tapped at its expansion
    stem: str = "layer0"
    expands_always: bool = False
    gate_divisor: int = 8
    l2_norm: bool = False
    boxes: tuple = (6, 6, 6, 6, 6, 6)


VARIANTS = {
    "mmcls small": Variant(tuple(SMALL), (8, 12)),
    "mmcls large, l2 norm": Variant(tuple(LARGE), (12, 16), l2_norm=True),
    "mmdet small, cut in two": Variant(
        tuple(SMALL_HALVED), (-9, 12), expands_always=True, gate_divisor=1
    ),
    "early mmcls large": Variant(
        tuple(LARGE_LATE), (12, 15), "conv1", expands_always=True, gate_divisor=1
    ),
    "four boxes": Variant(tuple(SMALL), (8, 11), boxes=(4, 6, 6, 6, 4, 4)),
}


class ConvModule(nn.Module):
    def __init__(  # noqa: PLR0913 -- as in mmcv
        self, inside, out, kernel, act, *, stride=1, groups=1, norm=True
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            inside, out, kernel, stride, kernel // 2, groups=groups, bias=not norm
        )
        if norm:
            self.bn = nn.BatchNorm2d(out, eps=1e-3)
        self.act = act() if act else nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        return self.act(self.bn(x) if hasattr(self, "bn") else x)


class SELayer(nn.Module):
    def __init__(self, channels, divisor):
        super().__init__()
        hidden = max(divisor, int(channels // 4 + divisor / 2) // divisor * divisor)
        hidden += divisor if hidden < 0.9 * (channels // 4) else 0
        self.conv1 = ConvModule(channels, hidden, 1, nn.ReLU, norm=False)
        self.conv2 = ConvModule(hidden, channels, 1, None, norm=False)

    def forward(self, x):
        out = self.conv2(self.conv1(functional.adaptive_avg_pool2d(x, 1)))
        return x * ((out + 3) / 6).clamp(0, 1)


class InvertedResidual(nn.Module):
    def __init__(self, inside, row, variant):
        super().__init__()
        kernel, middle, out, gated, act, stride = row
        self.adds = stride == 1 and inside == out
        if variant.expands_always or middle != inside:
            self.expand_conv = ConvModule(inside, middle, 1, act)
        self.depthwise_conv = ConvModule(middle, middle, kernel, act, stride=stride, groups=middle)
        if gated:
            self.se = SELayer(middle, variant.gate_divisor)
        self.linear_conv = ConvModule(middle, out, 1, None)

    def forward(self, x):
        self.expanded = self.expand_conv(x) if hasattr(self, "expand_conv") else x
        out = self.depthwise_conv(self.expanded)
        out = self.linear_conv(self.se(out) if hasattr(self, "se") else out)
        return x + out if self.adds else out


class MobileNetV3(nn.Module):
    def __init__(self, variant):
        super().__init__()
        self.taps = variant.taps
        self.add_module(variant.stem, ConvModule(3, 16, 3, HS, stride=2))
        self.names = [variant.stem]
        inside = 16
        for number, row in enumerate(variant.rows, start=1):
            self.add_module(f"layer{number}", InvertedResidual(inside, row, variant))
            self.names.append(f"layer{number}")
            inside = row[2]
        if variant.stem == "layer0":
            self.names.append(f"layer{len(variant.rows) + 1}")
            self.add_module(self.names[-1], ConvModule(inside, 6 * inside, 1, HS))

    def forward(self, x):
        maps = []
        for number, name in enumerate(self.names):
            x = getattr(self, name)(x)
            if number in self.taps:
                maps.append(x)
            elif -number in self.taps and number:
                maps.append(getattr(self, name).expanded)
        return maps


class DepthwiseSeparable(nn.Module):
    def __init__(self, inside, out):
        super().__init__()
        self.depthwise_conv = ConvModule(inside, inside, 3, R6, stride=2, groups=inside)
        self.pointwise_conv = ConvModule(inside, out, 1, R6)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


class L2Norm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 20.0))

    def forward(self, x):
        return self.weight[None, :, None, None] * x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)


class SSDNeck(nn.Module):
    def __init__(self, channels, variant):
        super().__init__()
        if variant.l2_norm:
            self.l2_norm = L2Norm(channels[0])
        self.extra_layers = nn.ModuleList(
            nn.Sequential(ConvModule(inside, out // 2, 1, R6), DepthwiseSeparable(out // 2, out))
            for inside, out in itertools.pairwise(channels[1:])
        )

    def forward(self, maps):
        outs = list(maps)
        if hasattr(self, "l2_norm"):
            outs[0] = self.l2_norm(outs[0])
        x = maps[-1]
        for layer in self.extra_layers:
            x = layer(x)
            outs.append(x)
        return outs


class SSDHead(nn.Module):
    def __init__(self, channels, boxes, num_classes):
        super().__init__()

        def convs(values):
            return nn.ModuleList(
                nn.Sequential(
                    ConvModule(width, width, 3, R6, groups=width),
                    nn.Conv2d(width, count * values, 1),
                )
                for width, count in zip(channels, boxes, strict=True)
            )

        self.num_classes = num_classes
        self.cls_convs, self.reg_convs = convs(num_classes + 1), convs(4)

    def forward(self, maps):
        def flat(convs, values):
            heads = [conv(x).permute(0, 2, 3, 1) for conv, x in zip(convs, maps, strict=True)]
            return torch.cat([head.reshape(len(head), -1, values) for head in heads], dim=1)

        return flat(self.cls_convs, self.num_classes + 1), flat(self.reg_convs, 4)


class Detector(nn.Module):
    """Image (N, 3, 320, 320) -> class logits (N, P, classes + 1), background last, and offsets."""

    def __init__(self, variant, num_classes):
        super().__init__()
        self.backbone = MobileNetV3(variant)
        with torch.no_grad():
            first = [m.shape[1] for m in self.backbone.eval()(torch.zeros(1, 3, 64, 64))]
        channels = (*first, 512, 256, 256, 128)
        self.neck = SSDNeck(channels, variant)
        self.bbox_head = SSDHead(channels, variant.boxes, num_classes)

    def forward(self, x):
        return self.bbox_head(self.neck(self.backbone(x)))


def anchors(boxes):
    """(P, 4) corners in pixels of a 320 x 320 image."""
    strides, edges = (16, 32, 64, 107, 160, 320), (48, 100, 150, 202, 253, 304, 320)
    levels = []
    for level, count in enumerate(boxes):
        small, large = edges[level], edges[level + 1]
        ratios = [1.0]
        for ratio in (2, 3)[: (count - 2) // 2]:
            ratios += [1 / ratio, ratio]  # height over width
        sizes = [(small / math.sqrt(r), small * math.sqrt(r)) for r in ratios]
        sizes.insert(1, (small * math.sqrt(large / small),) * 2)
        cells = range(math.ceil(320 / 2 ** (4 + level)))
        levels += [
            (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            for y in (strides[level] * (row + 0.5) for row in cells)
            for x in (strides[level] * (col + 0.5) for col in cells)
            for w, h in sizes
        ]
    return np.array(levels)


def detect(logits, deltas, boxes):
    """Corners in pixels, scores, labels from 0 (no background), best first; one image."""
    prior = anchors(boxes)
    centre, size = (prior[:, :2] + prior[:, 2:]) / 2, prior[:, 2:] - prior[:, :2]
    limit = abs(math.log(16 / 1000))
    moved = centre + deltas[:, :2] * 0.1 * size
    grown = size * np.exp((deltas[:, 2:] * 0.2).clip(-limit, limit))
    corners = np.concatenate([moved - grown / 2, moved + grown / 2], axis=1).clip(0, 320)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (powers / powers.sum(axis=1, keepdims=True))[:, :-1]
    found = []
    for label, column in enumerate(scores.T):
        kept = []
        for index in np.argsort(-column)[: np.count_nonzero(column > SCORE_THRESHOLD)]:
            if all(iou(corners[index], corners[other]) <= IOU_THRESHOLD for other in kept):
                kept.append(index)
        found += [(column[index], label, corners[index]) for index in kept]
    found.sort(key=lambda item: -item[0])
    return found[:MOST]


def iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    overlap = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return overlap / max(sum(areas) - overlap, 1e-6)
