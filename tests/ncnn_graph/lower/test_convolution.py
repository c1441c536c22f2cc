import numpy as np
import pytest
from onnx_text import Table, assert_lowers, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError


def conv(attrs, weight, out, *, bias=True):
    operands = "x, w, b" if bias else "x, w"
    sizes = ",".join(map(str, (1, *out)))
    text = f"g (float[1,6,9,11] x) => (float[{sizes}] y) {{ y = Conv<{attrs}>({operands}) }}"
    return onnx_model(text, {"w": weight} | ({"b": out[:1]} if bias else {}))


CASES = Table(
    {
        "1x1": conv("kernel_shape=[1,1]", (8, 6, 1, 1), (8, 9, 11)),
        "no bias": conv("kernel_shape=[1,1]", (8, 6, 1, 1), (8, 9, 11), bias=False),
        "3x3 strided": conv("strides=[2,2], pads=[1,1,1,1]", (8, 6, 3, 3), (8, 5, 6)),
        "not square": conv("strides=[1,2], pads=[2,0,1,3]", (4, 6, 4, 3), (4, 9, 6)),
        "dilated": conv("dilations=[2,3], pads=[2,3,2,3]", (4, 6, 3, 3), (4, 9, 11)),
        "depthwise": conv("group=6, pads=[2,2,2,2]", (6, 1, 5, 5), (6, 9, 11)),
        "depthwise strided": conv(
            "group=6, strides=[2,2], pads=[1,1,1,1]", (6, 1, 3, 3), (6, 5, 6)
        ),
        "grouped": conv("group=2", (8, 3, 1, 1), (8, 9, 11)),
        "channel multiplier": conv("group=6", (12, 1, 1, 1), (12, 9, 11)),
        "same upper": conv('strides=[2,2], auto_pad="SAME_UPPER"', (4, 6, 4, 4), (4, 5, 6)),
        "same lower": conv('strides=[2,2], auto_pad="SAME_LOWER"', (4, 6, 4, 4), (4, 5, 6)),
        "valid": conv('auto_pad="VALID"', (4, 6, 3, 3), (4, 7, 9)),
    }
)


@pytest.mark.parametrize("case", CASES)
def test_conv_keeps_its_numbers(case):
    CASES.assert_numbers(case)


def test_groups_need_the_layer_that_knows_them():
    assert types(CASES.graphs["1x1"]) == ["Convolution"]
    assert types(CASES.graphs["grouped"]) == ["ConvolutionDepthWise"]


def test_weights_computed_from_the_input_are_refused():
    text = "g (float[1,6,9,9] x) => (float[1,1,1,1] y) { w = Identity(x) y = Conv(x, w) }"

    with pytest.raises(UnsupportedOpError, match="weight 'w' is not a constant"):
        lowered(onnx_model(text))


def test_one_dimensional_conv_is_refused():
    text = "g (float[1,6,9] x) => (float[1,4,9] y) { y = Conv(x, w) }"

    with pytest.raises(UnsupportedOpError, match="only 2-D maps"):
        lowered(onnx_model(text, {"w": (4, 6, 1)}))


def test_batch_normalization_keeps_its_numbers():
    text = (
        "g (float[1,6,4,5] x) => (float[1,6,4,5] y) "
        "{ y = BatchNormalization<epsilon=0.001>(x, s, b, m, v) }"
    )
    weights = {"s": (6,), "b": (6,), "m": (6,), "v": [0.5, 1.0, 2.0, 0.1, 0.9, 4.0]}
    weights["v"] = np.float32(weights["v"])

    assert_lowers(onnx_model(text, weights))
