"""ncnn's enumerated parameter values by name: what `op_type=2` or `activation_type=6` means.

Source: the enums in ncnn's `layer/binaryop.h` and `layer/pooling.h`, the cases in
`layer/fused_activation.h`, `layer/normalize.cpp`, and the comment on `order_type` in
`layer/permute.cpp`.
"""

from __future__ import annotations

import enum


class BinaryOpType(enum.IntEnum):
    """`BinaryOp.op_type`. R-forms swap the operands: RSUB is b - a."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5
    POW = 6
    RSUB = 7
    RDIV = 8
    RPOW = 9


class ActivationType(enum.IntEnum):
    """`activation_type` of Convolution, ConvolutionDepthWise and InnerProduct."""

    NONE = 0
    RELU = 1
    LEAKY_RELU = 2
    CLIP = 3
    SIGMOID = 4
    MISH = 5
    HARD_SWISH = 6


class PoolingType(enum.IntEnum):
    """`Pooling.pooling_type`."""

    MAX = 0
    AVERAGE = 1


class PadMode(enum.IntEnum):
    """`Pooling.pad_mode`: how the output size is rounded."""

    FULL = 0
    """Up, as PyTorch's ceil_mode."""
    VALID = 1
    """Down."""


class EpsMode(enum.IntEnum):
    """`Normalize.eps_mode`: how `eps` keeps the divisor from being 0."""

    ADDED_TO_SQUARES = 0
    LEAST_LENGTH = 1
    LEAST_SQUARES = 2


PERMUTE_ORDERS = {
    "wh": 0,
    "hw": 1,
    "whc": 0,
    "hwc": 1,
    "wch": 2,
    "cwh": 3,
    "hcw": 4,
    "chw": 5,
}
"""`Permute.order_type` by the input axes that become the output's w, h(, c): innermost first."""


class FeatMask(enum.IntFlag):
    """`featmask` of any layer: what ncnn's options may not switch on for it."""

    NO_FP16_ARITHMETIC = 1
    NO_FP16_STORAGE = 2
    NO_BF16_STORAGE = 4
