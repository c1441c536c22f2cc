"""BatchNorm in front of what can take it in: convolutions that see no padding, inner products."""

import numpy as np
import pytest
from onnx_text import Table, assert_lowers, fused, onnx_model, types

VARIANCE = np.float32([0.5, 1.0, 2.0, 0.1])
NORM = {"s": (4,), "t": (4,), "m": (4,), "v": VARIANCE}
# a sigmoid in front: nothing that a BatchNorm could go into on that side
HEAD = "g (float[1,4,5,7] x) => (float[{out}] y) {{ q = Sigmoid(x) n = {norm} {nodes} }}"
NODE = "BatchNormalization<epsilon=0.001>(q, s, t, m, v)"


def model_of(nodes, out, weights, norm=NORM):
    return onnx_model(HEAD.format(out=out, norm=NODE, nodes=nodes), norm | weights)


READERS = {
    "1x1": ("y = Conv(n, w, b)", "1,6,5,7", {"w": (6, 4, 1, 1), "b": (6,)}),
    "without bias": ("y = Conv(n, w)", "1,6,5,7", {"w": (6, 4, 1, 1)}),
    "3x3, unpadded": ("y = Conv(n, w)", "1,6,3,5", {"w": (6, 4, 3, 3)}),
    "depthwise": ("y = Conv<group=4>(n, w)", "1,4,3,5", {"w": (4, 1, 3, 3)}),
    "two groups": ("y = Conv<group=2>(n, w)", "1,6,3,5", {"w": (6, 2, 3, 3)}),
    "activated": ("c = Conv(n, w) y = HardSwish(c)", "1,6,5,7", {"w": (6, 4, 1, 1)}),
    "two readers": (
        "c = Conv(n, w) d = Conv(n, u) y = Add(c, d)",
        "1,6,5,7",
        {"w": (6, 4, 1, 1), "u": (6, 4, 1, 1)},
    ),
}
FOLDED = Table({case: model_of(*row) for case, row in READERS.items()}, fused)


@pytest.mark.parametrize("case", FOLDED)
def test_it_is_folded_into_what_follows(case):
    assert "BatchNorm" not in types(FOLDED.graphs[case])
    FOLDED.assert_numbers(case)


def test_an_inner_product_of_a_vector_takes_it():
    text = (
        "g (float[1,4] x) => (float[1,6] y) "
        "{ q = Sigmoid(x) n = BatchNormalization(q, s, t, m, v) y = Gemm<transB=1>(n, w, b) }"
    )
    model = onnx_model(text, NORM | {"w": (6, 4), "b": (6,)})
    graph = fused(model)

    assert types(graph) == ["Sigmoid", "InnerProduct"]
    assert_lowers(model, graph)


def test_padding_is_no_hindrance_where_nothing_is_added():
    plain = {"s": (4,), "t": np.zeros(4, np.float32), "m": np.zeros(4, np.float32), "v": VARIANCE}
    padded = "y = Conv<pads=[1,1,1,1]>(n, w)"
    model = model_of(padded, "1,6,5,7", {"w": (6, 4, 3, 3)}, plain)
    graph = fused(model)

    assert types(graph) == ["Sigmoid", "Convolution"]
    assert_lowers(model, graph)


STAYS = {
    "padding is not a shifted 0": (
        "y = Conv<pads=[1,1,1,1]>(n, w)",
        "1,6,5,7",
        {"w": (6, 4, 3, 3)},
    ),
    "one reader cannot": (
        "c = Conv(n, w) r = Relu(n) y = Add(c, r)",
        "1,4,5,7",
        {"w": (4, 4, 1, 1)},
    ),
}
KEPT = Table({case: model_of(*row) for case, row in STAYS.items()}, fused)


@pytest.mark.parametrize("case", KEPT)
def test_it_stays_where_it_must(case):
    assert "BatchNorm" in types(KEPT.graphs[case])
    KEPT.assert_numbers(case)


def test_a_wanted_output_stays():
    text = (
        "g (float[1,4,5,7] x) => (float[1,4,5,7] n, float[1,6,5,7] y) "
        "{ q = Sigmoid(x) n = BatchNormalization(q, s, t, m, v) y = Conv(n, w) }"
    )
    model = onnx_model(text, NORM | {"w": (6, 4, 1, 1)})
    graph = fused(model)

    assert types(graph) == ["Sigmoid", "BatchNorm", "Convolution"]
    assert_lowers(model, graph)
