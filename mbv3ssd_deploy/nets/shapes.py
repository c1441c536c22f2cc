"""How large the feature maps of a network are."""

from __future__ import annotations

from mbv3ssd_deploy.core.spec import ArchSpec, TapPlace
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.nets.plan import plan_net


def feature_map_sizes(arch: ArchSpec, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return (rows, columns) of each map that a head reads, for an input of `height` x `width`.

    Every convolution is padded by half its odd kernel, so one of stride s makes ceil(n / s) of n
    (the size formula of PyTorch's Conv2d documentation).

    Raises:
        SpecError: the arch contradicts itself, or the input has no pixels.
    """
    if height < 1 or width < 1:
        raise SpecError(f"the input size {height} x {width} has no pixels")
    plan = plan_net(arch)
    strides = (2, *(block.stride for block in plan.blocks), 1, 1)
    sizes: list[tuple[int, int]] = []
    for tap in arch.taps:
        # a block strides in its depthwise convolution, which comes after its expansion
        passed = tap.feature + (tap.place is not TapPlace.EXPANSION)
        size = (height, width)
        for stride in strides[:passed]:
            size = _strided(size, stride)
        sizes.append(size)
    for _ in plan.extras:
        sizes.append(_strided(sizes[-1], 2))
    return tuple(sizes)


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    rows, cols = size
    return -(-rows // stride), -(-cols // stride)
