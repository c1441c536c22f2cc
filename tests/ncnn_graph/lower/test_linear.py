import numpy as np
import pytest
from onnx_text import Table, assert_lowers, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError

VECTOR = "g (float[1,7] x) => (float[1,5] y) {{ y = {node} }}"

GEMMS = {
    "as PyTorch writes it": ("Gemm<transB=1>(x, w, b)", {"w": (5, 7), "b": (5,)}),
    "alpha and beta": (
        "Gemm<alpha=0.5, beta=2.0>(x, w, b)",
        {"w": (7, 5), "b": (1, 5)},
    ),
    "one bias for all": ("Gemm(x, w, b)", {"w": (7, 5), "b": np.float32(0.25)}),
    "no bias": ("Gemm(x, w)", {"w": (7, 5)}),
    "matmul": ("MatMul(x, w)", {"w": (7, 5)}),
}


VECTORS = Table({case: onnx_model(VECTOR.format(node=n), w) for case, (n, w) in GEMMS.items()})


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_keeps_its_numbers(case):
    assert types(VECTORS.graphs[case]) == ["InnerProduct"]
    VECTORS.assert_numbers(case)


def test_matmul_works_row_by_row():
    text = "g (float[1,6,7] x) => (float[1,6,5] y) { y = MatMul(x, w) }"

    assert_lowers(onnx_model(text, {"w": (7, 5)}))


def test_a_product_of_two_tensors_is_refused():
    text = "g (float[1,4,4] x) => (float[1,4,4] y) { a = Relu(x) y = MatMul(x, a) }"

    with pytest.raises(UnsupportedOpError, match="right matrix 'a' is not a constant"):
        lowered(onnx_model(text))


def test_maps_are_refused():
    text = "g (float[1,3,6,7] x) => (float[1,3,6,5] y) { y = MatMul(x, w) }"

    with pytest.raises(UnsupportedOpError, match="3 axes besides the batch"):
        lowered(onnx_model(text, {"w": (7, 5)}))
