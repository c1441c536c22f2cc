"""The sliding window of Conv and the poolings, in ncnn's words."""

from __future__ import annotations

from dataclasses import dataclass

from mbv3ssd_deploy.ncnn_graph.graph import Param
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode


@dataclass(frozen=True, slots=True)
class Window:
    """A 2-D window; every pair is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads_before: tuple[int, int]
    pads_after: tuple[int, int]

    def params(self) -> dict[str, Param]:
        """Return the parameters that Convolution and Pooling share."""
        return {
            "kernel_w": self.kernel[1],
            "kernel_h": self.kernel[0],
            "stride_w": self.stride[1],
            "stride_h": self.stride[0],
            "pad_left": self.pads_before[1],
            "pad_right": self.pads_after[1],
            "pad_top": self.pads_before[0],
            "pad_bottom": self.pads_after[0],
        }

    def extent(self, axis: int) -> int:
        """Return how many pixels the dilated kernel spans on `axis`."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1


def window_of(node: OnnxNode, kernel: tuple[int, ...], dims: tuple[int, ...]) -> Window:
    """Return the window of `node` with `kernel` on a map of `dims` (channels, rows, columns).

    `auto_pad` is turned into numbers: output = ceil(input / stride) (ONNX, operator Conv).

    Raises:
        UnsupportedOpError: the window is not 2-D.
    """
    if len(kernel) != 2 or len(dims) != 3:
        raise node.refusal(f"its window has {len(kernel)} axes; only 2-D maps are lowered")
    bare = Window(
        kernel=(kernel[0], kernel[1]),
        stride=_pair(node.integers("strides", (1, 1))),
        dilation=_pair(node.integers("dilations", (1, 1))),
        pads_before=(0, 0),
        pads_after=(0, 0),
    )
    auto_pad = node.text("auto_pad", "NOTSET")
    if auto_pad in {"NOTSET", ""}:
        top, left, bottom, right = node.integers("pads", (0, 0, 0, 0))
        before, after = (top, left), (bottom, right)
    elif auto_pad == "VALID":
        before = after = (0, 0)
    elif auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        small, large = _same_pads(bare, dims)
        before, after = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    else:
        raise node.refusal(f"auto_pad {auto_pad!r} is unknown")
    if min(*before, *after) < 0:
        raise node.refusal("its padding is negative")
    return Window(bare.kernel, bare.stride, bare.dilation, before, after)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]


def _same_pads(window: Window, dims: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the smaller and the larger half of the padding on each axis."""
    totals = [
        max((-(-size // window.stride[a]) - 1) * window.stride[a] + window.extent(a) - size, 0)
        for a, size in enumerate(dims[1:])
    ]
    return (totals[0] // 2, totals[1] // 2), (-(-totals[0] // 2), -(-totals[1] // 2))
