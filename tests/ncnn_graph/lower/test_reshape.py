import itertools

import numpy as np
import pytest
from onnx_text import Table, assert_lowers, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError

INT = np.int64


def one_node(node, shape, out, weights=None, opset=17):
    text = f"g (float[{shape}] x) => (float[{out}] y) {{ y = {node} }}"
    return onnx_model(text, weights, opset=opset)


def transpose_model(perm):
    shape = (1, 5, 6, 7)
    out = ",".join(str(shape[axis]) for axis in (0, *perm))
    node = f"Transpose<perm=[{', '.join(map(str, (0, *perm)))}]>(r)"
    return onnx_model(f"g (float[1,5,6,7] x) => (float[{out}] y) {{ r = Relu(x) y = {node} }}")


TRANSPOSES = Table({str(p): transpose_model(p) for p in itertools.permutations((1, 2, 3))})


@pytest.mark.parametrize("perm", TRANSPOSES)
def test_every_transpose_of_a_map(perm):
    TRANSPOSES.assert_numbers(perm)


def test_the_transpose_of_a_matrix():
    assert_lowers(one_node("Transpose<perm=[0,2,1]>(x)", "1,5,6", "1,6,5"))


def test_axes_of_size_one_change_places_without_a_permute():
    model = one_node("Transpose<perm=[0,2,3,1]>(x)", "1,5,1,1", "1,1,1,5")

    assert types(lowered(model)) == ["Reshape"]
    assert_lowers(model)


RESHAPES = {
    "to rows": ("Reshape(x, s)", "1,6,5,4", "1,-1,4", "1,30,4"),
    "a zero copies": ("Reshape(x, s)", "1,6,5,4", "0,6,-1", "1,6,20"),
    "to a vector": ("Reshape(x, s)", "1,6,5,4", "1,-1", "1,120"),
    "to a map": ("Reshape(x, s)", "1,120", "1,6,5,4", "1,6,5,4"),
    "allowzero": ("Reshape<allowzero=1>(x, s)", "1,6,5,4", "1,-1,4", "1,30,4"),
}


@pytest.mark.parametrize("case", RESHAPES)
def test_reshapes_keep_their_numbers(case):
    node, shape, target, out = RESHAPES[case]
    sizes = np.array(target.split(","), dtype=INT)

    assert_lowers(one_node(node, shape, out, {"s": sizes}))


def test_flatten_squeeze_unsqueeze():
    text = (
        "g (float[1,6,5,4] x) => (float[1,120] f, float[1,6] q, float[1,6,1,1] u) {"
        "f = Flatten(x) p = GlobalAveragePool(x) q = Squeeze(p, axes) u = Unsqueeze(q, axes) }"
    )

    assert_lowers(onnx_model(text, {"axes": np.array([2, 3])}))


def test_axes_as_attributes():
    text = (
        "g (float[1,6,5,4] x) => (float[1,6] q) "
        "{ p = GlobalAveragePool(x) q = Squeeze<axes=[2,3]>(p) }"
    )

    assert_lowers(onnx_model(text, opset=11))


def test_what_moves_nothing_makes_no_layer():
    text = (
        "g (float[1,6,5,4] x) => (float[1,6,5,4] y) {"
        "a = Identity(x) b = Dropout(a) c = Transpose<perm=[0,1,2,3]>(b) d = Reshape(c, s) "
        "e = Cast<to=1>(d) y = Relu(e) }"
    )
    model = onnx_model(text, {"s": np.array([1, 6, 5, 4])})

    assert types(lowered(model)) == ["ReLU"]
    assert_lowers(model)


def test_an_output_behind_an_identity_keeps_its_name():
    text = "g (float[1,6] x) => (float[1,6] y) { r = Relu(x) y = Identity(r) }"
    model = onnx_model(text)

    assert lowered(model).layers[-1].outputs == ("y",)
    assert_lowers(model)


REFUSED = {
    "the batch moves": ("Transpose<perm=[1,0,2]>(x)", "1,5,6", "5,1,6", "moves the batch axis"),
    "the batch is dropped": ("Squeeze<axes=[0]>(x)", "1,5,6", "5,6", "no batch axis of 1"),
    "five axes": ("Unsqueeze<axes=[4]>(x)", "1,5,6,7", "1,5,6,7,1", "5 axes"),
    "another type": ("Cast<to=7>(x)", "1,5,6", "1,5,6", "leaves float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_ncnn_has_no_blob_for_is_refused(case):
    node, shape, out, reason = REFUSED[case]
    kind = "int64" if "to=7" in node else "float"
    text = f"g (float[{shape}] x) => ({kind}[{out}] y) {{ y = {node} }}"

    with pytest.raises(UnsupportedOpError, match=reason):
        lowered(onnx_model(text, opset=11))
