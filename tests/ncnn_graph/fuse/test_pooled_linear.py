"""Squeeze-and-excitation: pooled branches run on vectors."""

import numpy as np
import pytest
from onnx_text import assert_lowers, fused, onnx_model, types

HEAD = "g (float[1,8,5,8] x) => (float[1,8,5,8] y) {{ {nodes} y = Mul(x, e) }}"
CONVS = {"w": (4, 8, 1, 1), "b": (4,), "u": (8, 4, 1, 1), "v": (8,)}
LINEARS = {
    "w": (4, 8),
    "b": (4,),
    "u": (8, 4),
    "v": (8,),
    "s": np.array([1, 8, 1, 1]),
}

CONVOLUTIONS = (
    "a = Conv(p, w, b) r = Relu(a) c = Conv(r, u, v) e = HardSigmoid<alpha=0.16666667>(c)"
)
REORDERED = (
    "p = GlobalAveragePool(x) f = Squeeze<axes=[2,3]>(p) a = Gemm<transB=1>(f, w, b) r = Relu(a) "
    "c = Gemm<transB=1>(r, u, v) q = Reshape(c, s) e = HardSigmoid<alpha=0.16666667>(q)"
)
LINEAR_LAYERS = (
    "p = GlobalAveragePool(x) f = Flatten(p) a = Gemm<transB=1>(f, w, b) r = Relu(a) "
    "c = Gemm<transB=1>(r, u, v) h = HardSigmoid<alpha=0.16666667>(c) e = Reshape(h, s)"
)
SPELLINGS = {
    "convolutions": (f"p = GlobalAveragePool(x) {CONVOLUTIONS}", CONVS),
    "mean": (f"p = ReduceMean<axes=[2,3]>(x) {CONVOLUTIONS}", CONVS),
    "linear layers": (LINEAR_LAYERS, LINEARS),
    "reshaped early": (REORDERED, LINEARS),
}
EXPECTED = ["Pooling", "InnerProduct", "InnerProduct", "BinaryOp"]


@pytest.mark.parametrize("case", SPELLINGS)
def test_every_spelling_becomes_inner_products(case):
    nodes, weights = SPELLINGS[case]
    opset = 11 if "Squeeze" in nodes else 17
    model = onnx_model(HEAD.format(nodes=nodes), weights, opset=opset)
    graph = fused(model)

    assert types(graph) == EXPECTED
    assert graph.layers[1].params["global_pooling"] == 1
    assert_lowers(model, graph)


def test_batch_norm_inside_the_branch():
    nodes = (
        "p = GlobalAveragePool(x) a = Conv(p, w) n = BatchNormalization(a, i, j, k, l) "
        "r = Relu(n) c = Conv(r, u, v) e = HardSigmoid<alpha=0.16666667>(c)"
    )
    norm = {"i": (4,), "j": (4,), "k": (4,), "l": np.float32([0.5, 1, 2, 3])}
    model = onnx_model(HEAD.format(nodes=nodes), CONVS | norm)
    graph = fused(model)

    assert types(graph) == EXPECTED
    assert_lowers(model, graph)


def test_a_reader_that_needs_a_map_keeps_the_branch_as_it_was():
    text = (
        "g (float[1,8,5,8] x) => (float[1,4,1,1] y) "
        "{ p = GlobalAveragePool(x) a = Conv(p, u, v) y = Conv<pads=[1,1,1,1]>(a, k) }"
    )
    model = onnx_model(text, {"u": (4, 8, 1, 1), "v": (4,), "k": (4, 4, 3, 3)})
    graph = fused(model)

    assert types(graph) == ["Pooling", "Convolution", "Convolution"]
    assert_lowers(model, graph)


def test_a_wanted_output_keeps_its_shape():
    text = (
        "g (float[1,8,5,8] x) => (float[1,4,1,1] y) { p = GlobalAveragePool(x) y = Conv(p, w, b) }"
    )
    model = onnx_model(text, {"w": (4, 8, 1, 1), "b": (4,)})
    graph = fused(model)

    assert types(graph) == ["Pooling", "Convolution"]
    assert_lowers(model, graph)


def test_two_branches_are_judged_apart():
    text = (
        "g (float[1,8,5,8] x) => (float[1,8,5,8] y, float[1,16,1,1] z) {"
        "p = GlobalAveragePool(x) a = Conv(p, w, v) y = Mul(x, a) "
        "q = GlobalMaxPool(x) z = Concat<axis=1>(q, q) }"
    )
    model = onnx_model(text, {"w": (8, 8, 1, 1), "v": (8,)})
    graph = fused(model)

    assert sorted(types(graph)) == ["BinaryOp", "Concat", "InnerProduct", "Pooling", "Pooling"]
    assert_lowers(model, graph)
