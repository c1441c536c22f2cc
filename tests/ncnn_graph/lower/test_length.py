import numpy as np
import pytest
from onnx_text import assert_lowers, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError

TEXT = """
g (float[1,8,4,5] x) => (float[1,8,4,5] y) {{
  length = ReduceL2<{axes}>(x)
  sum = Add(length, epsilon)
  unit = Div({divided}, sum)
  y = Mul(unit, scale)
}}
"""
WEIGHTS = {"scale": (1, 8, 1, 1), "epsilon": np.array(1e-10, np.float32)}
AXES = "axes=[1], keepdims=1"


def model(text=TEXT, axes=AXES, divided="x", weights=WEIGHTS):
    return onnx_model(text.format(axes=axes, divided=divided), weights)


@pytest.mark.parametrize("axes", [AXES, "axes=[-3]"])
def test_a_pixel_over_its_length_is_one_layer(axes):
    wanted = model(axes=axes)

    assert types(lowered(wanted)) == ["Normalize", "MemoryData", "BinaryOp"]
    assert_lowers(wanted)


def test_the_axes_as_an_input():
    text = TEXT.replace("<{axes}>(x)", "<keepdims=1>(x, axes)")
    wanted = onnx_model(text.format(divided="x"), WEIGHTS | {"axes": np.array([1])}, opset=18)

    assert_lowers(wanted)


REFUSED = {
    "over rows": ({"axes": "axes=[2]"}, "a map's channels are lowered"),
    "over all": ({"axes": "axes=[1,2,3]"}, "a map's channels are lowered"),
    "another tensor": ({"divided": "scale"}, "divides another tensor"),
    "a large epsilon": (
        {"weights": WEIGHTS | {"epsilon": np.array(0.1, np.float32)}},
        "not an epsilon of at most 1e-06",
    ),
    "read twice": (
        {"text": TEXT.replace("Mul(unit, scale)", "Mul(unit, sum)")},
        "a length is lowered where a tensor is divided by it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_lengths_are_refused(case):
    changes, reason = REFUSED[case]

    with pytest.raises(UnsupportedOpError, match=reason):
        lowered(model(**changes))
