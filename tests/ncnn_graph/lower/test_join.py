import numpy as np
import pytest
from onnx_text import assert_lowers, lowered, onnx_model

from mbv3ssd_deploy.errors import UnsupportedOpError


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concat_on_every_axis(axis):
    shape = [1, 5, 6, 7]
    shape[axis] *= 2
    out = ",".join(map(str, shape))
    text = (
        f"g (float[1,5,6,7] x) => (float[{out}] y) {{ a = Relu(x) y = Concat<axis={axis}>(a, x) }}"
    )

    assert_lowers(onnx_model(text))


def test_concat_of_one_is_nothing():
    text = "g (float[1,5] x) => (float[1,5] y) { a = Concat<axis=1>(x) y = Relu(a) }"

    assert_lowers(onnx_model(text))


def ints(*values):
    return np.array(values, dtype=np.int64)


def test_slice():
    text = "g (float[1,5,6,7] x) => (float[1,2,4,7] y) { y = Slice(x, starts, ends, axes) }"
    weights = {"starts": ints(1, 2), "ends": ints(3, 2**62), "axes": ints(1, 2)}

    assert_lowers(onnx_model(text, weights))


def test_slice_from_behind():
    text = "g (float[1,5,6,7] x) => (float[1,5,6,3] y) { y = Slice(x, starts, ends, axes) }"
    weights = {"starts": ints(-4), "ends": ints(-1), "axes": ints(-1)}

    assert_lowers(onnx_model(text, weights))


def test_split():
    text = (
        "g (float[1,6,5,4] x) => (float[1,2,5,4] a, float[1,4,5,4] b) "
        "{ a, b = Split<axis=1>(x, sizes) }"
    )

    assert_lowers(onnx_model(text, {"sizes": ints(2, 4)}))


REFUSED = {
    "the batch is cut": ("Slice(x, one, two, zero)", "along the batch axis"),
    "steps": ("Slice(x, zero, two, one, two)", "steps of 1"),
    "the batch is joined": ("Concat<axis=0>(x, x)", "along the batch axis"),
    "a constant is joined": ("Concat<axis=1>(x, c)", "joins the constant"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_ncnn_form_is_refused(case):
    node, reason = REFUSED[case]
    text = f"g (float[1,6,5] x) => (float[n,m,k] y) {{ y = {node} }}"
    weights = {"zero": ints(0), "one": ints(1), "two": ints(2), "c": (1, 6, 5)}

    with pytest.raises(UnsupportedOpError, match=reason):
        lowered(onnx_model(text, weights))
