"""Squeeze-and-excitation: pooled branches run on vectors."""

import numpy as np
import pytest
from onnx_text import Table, assert_lowers, fused, onnx_model, types

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


# two poolings of one map, put together; `n` is one number
PAIR = "a = GlobalAveragePool(x) b = GlobalMaxPool(x) s = Add(a, b) "
NUMBER = "c = Conv(x, o) n = GlobalAveragePool(c) a = GlobalAveragePool(x) s = Mul({}) "
TOGETHER = {
    "into a gate": ("8,5,8", PAIR + "p = Conv(s, k) g = HardSigmoid(p) y = Mul(x, g)"),
    "of two branches": (
        "8,5,8",
        (
            "a = GlobalAveragePool(x) b = GlobalMaxPool(x) p = Conv(a, k) q = Conv(b, k) "
            "s = Add(p, q) g = HardSigmoid(s) y = Mul(x, g)"
        ),
    ),
    "into a padded convolution": ("8,1,1", PAIR + "y = Conv<pads=[1,1,1,1]>(s, t)"),
    "that are wanted": ("8,1,1", "a = GlobalAveragePool(x) b = GlobalMaxPool(x) y = Add(a, b)"),
    "with one number": ("16,1,1", NUMBER.format("a, n") + "p = Conv(s, k) y = Concat<axis=1>(s,p)"),
    "behind one number": ("8,1,1", NUMBER.format("n, a") + "y = Softmax<axis=1>(s)"),
    "with one pixel": (
        "16,1,1",
        "a = GlobalAveragePool(x) b = Conv(x, m) s = Mul(a, b) y = Concat<axis=1>(s, s)",
    ),
    "of a cut map": (
        "8,5,8",
        (
            "c = Slice(x, zero, four, one) d = Slice(x, four, eight, one) z = Concat<axis=1>(d, c) "
            "a = GlobalAveragePool(z) p = Conv(a, k) y = Mul(z, p)"
        ),
    ),
}
PARTS = {
    "k": (8, 8, 1, 1),
    "t": (8, 8, 3, 3),
    "o": (1, 8, 1, 1),
    "m": (1, 8, 5, 8),
    **{name: np.array([n]) for name, n in {"zero": 0, "one": 1, "four": 4, "eight": 8}.items()},
}
PUT_TOGETHER = Table(
    {
        case: onnx_model(f"g (float[1,8,5,8] x) => (float[1,{shape}] y) {{ {nodes} }}", PARTS)
        for case, (shape, nodes) in TOGETHER.items()
    },
    fused,
)


@pytest.mark.parametrize("case", PUT_TOGETHER)
def test_pooled_branches_that_meet_keep_numbers_and_shapes(case):
    PUT_TOGETHER.assert_numbers(case)


@pytest.mark.parametrize("case", ["into a gate", "of two branches", "of a cut map"])
def test_branches_that_meet_run_on_vectors_too(case):
    assert "InnerProduct" in types(PUT_TOGETHER.graphs[case])
