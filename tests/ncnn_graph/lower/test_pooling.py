import numpy as np
import pytest
from onnx_text import Table, assert_lowers, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError

TEXT = "g (float[1,5,9,11] x) => (float[{shape}] y) {{ y = {node} }}"

CASES = {
    "max": ("MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", "1,5,5,6"),
    "max ceil": ("MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)", "1,5,5,6"),
    "max ceil and padding": (
        "MaxPool<kernel_shape=[4,3], strides=[4,2], pads=[1,1,1,1], ceil_mode=1>(x)",
        "1,5,3,6",
    ),
    "max floor": ("MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", "1,5,4,5"),
    "max same": ('MaxPool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER">(x)', "1,5,5,6"),
    "average": ("AveragePool<kernel_shape=[2,3], strides=[2,1]>(x)", "1,5,4,9"),
    "average, padding not counted": (
        "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
        "1,5,5,6",
    ),
    "average, padding counted": (
        "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)",
        "1,5,5,6",
    ),
    "average ceil that is even": (
        "AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)",
        "1,5,4,5",
    ),
    "average of all": ("AveragePool<kernel_shape=[9,11]>(x)", "1,5,1,1"),
    "global average": ("GlobalAveragePool(x)", "1,5,1,1"),
    "global max": ("GlobalMaxPool(x)", "1,5,1,1"),
    "mean": ("ReduceMean<axes=[2,3], keepdims=1>(x)", "1,5,1,1"),
    "mean, axes from behind": ("ReduceMean<axes=[-1,-2]>(x)", "1,5,1,1"),
    "mean without axes": ("ReduceMean<axes=[2,3], keepdims=0>(x)", "1,5"),
}


MODELS = Table({c: onnx_model(TEXT.format(node=n, shape=s)) for c, (n, s) in CASES.items()})


@pytest.mark.parametrize("case", MODELS)
def test_poolings_keep_their_numbers(case):
    MODELS.assert_numbers(case)


def test_the_axes_of_a_mean_as_an_input():
    text = TEXT.format(node="ReduceMean<keepdims=1>(x, axes)", shape="1,5,1,1")
    model = onnx_model(text, {"axes": np.array([2, 3])}, opset=18)

    assert types(lowered(model)) == ["Pooling"]
    assert_lowers(model)


REFUSED = {
    "a mean over channels": ("ReduceMean<axes=[1]>(x)", "1,1,9,11", "averages over axes"),
    "windows over the edge": (
        "AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)",
        "1,5,5,6",
        "hang over the edge",
    ),
    "windows in the padding": (
        "MaxPool<kernel_shape=[2,2], strides=[5,3], pads=[1,1,1,1], ceil_mode=1>(x)",
        "1,5,2,4",
        "lie in the padding",
    ),
    "dilation": ("MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x)", "1,5,7,9", "dilated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_ncnn_pools_otherwise_is_refused(case):
    node, shape, reason = REFUSED[case]

    with pytest.raises(UnsupportedOpError, match=reason):
        lowered(onnx_model(TEXT.format(node=node, shape=shape)))
