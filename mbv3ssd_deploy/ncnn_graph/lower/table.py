"""Which function lowers which ONNX operator. One row an operator, in the order of the alphabet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from mbv3ssd_deploy.ncnn_graph.lower.activation import (
    lower_clip,
    lower_hard_sigmoid,
    lower_hard_swish,
    lower_leaky_relu,
    lower_relu,
    lower_sigmoid,
    lower_softmax,
)
from mbv3ssd_deploy.ncnn_graph.lower.arithmetic import lower_binary, lower_pow
from mbv3ssd_deploy.ncnn_graph.lower.convolution import lower_batch_normalization, lower_conv
from mbv3ssd_deploy.ncnn_graph.lower.join import lower_concat, lower_slice, lower_split
from mbv3ssd_deploy.ncnn_graph.lower.length import lower_reduce_l2
from mbv3ssd_deploy.ncnn_graph.lower.linear import lower_gemm, lower_matmul
from mbv3ssd_deploy.ncnn_graph.lower.node import OnnxNode
from mbv3ssd_deploy.ncnn_graph.lower.pooling import (
    lower_average_pool,
    lower_global_average_pool,
    lower_global_max_pool,
    lower_max_pool,
    lower_reduce_mean,
)
from mbv3ssd_deploy.ncnn_graph.lower.reshape import (
    lower_cast,
    lower_dropout,
    lower_identity,
    lower_reshape,
    lower_transpose,
)
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope

Lowering = Callable[[OnnxNode, Scope], None]

LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        "Add": lower_binary,
        "AveragePool": lower_average_pool,
        "BatchNormalization": lower_batch_normalization,
        "Cast": lower_cast,
        "Clip": lower_clip,
        "Concat": lower_concat,
        "Conv": lower_conv,
        "Div": lower_binary,
        "Dropout": lower_dropout,
        "Flatten": lower_reshape,
        "Gemm": lower_gemm,
        "GlobalAveragePool": lower_global_average_pool,
        "GlobalMaxPool": lower_global_max_pool,
        "HardSigmoid": lower_hard_sigmoid,
        "HardSwish": lower_hard_swish,
        "Identity": lower_identity,
        "LeakyRelu": lower_leaky_relu,
        "MatMul": lower_matmul,
        "Max": lower_binary,
        "MaxPool": lower_max_pool,
        "Min": lower_binary,
        "Mul": lower_binary,
        "Pow": lower_pow,
        "ReduceL2": lower_reduce_l2,
        "ReduceMean": lower_reduce_mean,
        "Relu": lower_relu,
        "Reshape": lower_reshape,
        "Sigmoid": lower_sigmoid,
        "Slice": lower_slice,
        "Softmax": lower_softmax,
        "Split": lower_split,
        "Squeeze": lower_reshape,
        "Sub": lower_binary,
        "Transpose": lower_transpose,
        "Unsqueeze": lower_reshape,
    }
)
