"""DetectorSpec -> SsdNet."""

from __future__ import annotations

from torch import nn

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.nets.shapes import feature_map_sizes
from mbv3ssd_deploy.nets.ssd import SsdNet


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
