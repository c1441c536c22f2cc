"""Which function lowers which ONNX operator. One row an operator, in the order of the alphabet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.ncnn_graph.lower import (
    activation,
    arithmetic,
    convolution,
    join,
    linear,
    pooling,
    reshape,
)
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope

Lowering = Callable[[OnnxNode, Scope], None]

LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        "Add": arithmetic.lower_binary,
        "AveragePool": pooling.lower_average_pool,
        "BatchNormalization": convolution.lower_batch_normalization,
        "Cast": reshape.lower_cast,
        "Clip": activation.lower_clip,
        "Concat": join.lower_concat,
        "Conv": convolution.lower_conv,
        "Div": arithmetic.lower_binary,
        "Dropout": reshape.lower_identity,
        "Flatten": reshape.lower_reshape,
        "Gemm": linear.lower_gemm,
        "GlobalAveragePool": pooling.lower_global_average_pool,
        "GlobalMaxPool": pooling.lower_global_max_pool,
        "HardSigmoid": activation.lower_hard_sigmoid,
        "HardSwish": activation.lower_hard_swish,
        "Identity": reshape.lower_identity,
        "LeakyRelu": activation.lower_leaky_relu,
        "MatMul": linear.lower_matmul,
        "Max": arithmetic.lower_binary,
        "MaxPool": pooling.lower_max_pool,
        "Min": arithmetic.lower_binary,
        "Mul": arithmetic.lower_binary,
        "Pow": arithmetic.lower_binary,
        "ReduceMean": pooling.lower_reduce_mean,
        "Relu": activation.lower_relu,
        "Reshape": reshape.lower_reshape,
        "Sigmoid": activation.lower_sigmoid,
        "Slice": join.lower_slice,
        "Softmax": activation.lower_softmax,
        "Split": join.lower_split,
        "Squeeze": reshape.lower_reshape,
        "Sub": arithmetic.lower_binary,
        "Transpose": reshape.lower_transpose,
        "Unsqueeze": reshape.lower_reshape,
    }
)

POST_PROCESSING: Final = frozenset(
    {
        "ArgMax",
        "Exp",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "Greater",
        "If",
        "Less",
        "Loop",
        "NonMaxSuppression",
        "NonZero",
        "ScatterElements",
        "ScatterND",
        "TopK",
        "Where",
    }
)
"""Operators that a body never holds, and an exported decoder or NMS does."""
