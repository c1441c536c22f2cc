"""Rows joined as plain numbers: one Reshape behind the Concat."""

import numpy as np
import pytest
from onnx_text import Table, assert_lowers, fused, onnx_model, types

# 140 rows of 4 of the map itself, 24 of a smaller one, 6 of the smallest
HEAD = "g (float[1,16,5,7] x) => (float[1,{rows},4] y) {{ {nodes} }}"
WEIGHTS = {"s": np.array([1, -1, 4]), "w": (16, 16, 3, 3), "u": (24, 16, 5, 7)}
LARGE = "p = Transpose<perm=[0,2,3,1]>(x) a = Reshape(p, s) "
MIDDLE = "c = Conv<strides=[2,2]>(x, w) q = Transpose<perm=[0,2,3,1]>(c) b = Reshape(q, s) "
SMALL = "d = Conv(x, u) e = Reshape(d, s) "


def model_of(rows, nodes):
    return onnx_model(HEAD.format(rows=rows, nodes=nodes), WEIGHTS)


JOINS = {
    "three levels": (170, LARGE + MIDDLE + SMALL + "y = Concat<axis=1>(a, b, e)"),
    "the axis from behind": (164, LARGE + MIDDLE + "y = Concat<axis=-2>(b, a)"),
    "one part twice": (280, LARGE + "y = Concat<axis=1>(a, a)"),
}
FLAT = Table({case: model_of(*row) for case, row in JOINS.items()}, fused)


@pytest.mark.parametrize("case", FLAT)
def test_one_reshape_is_left(case):
    found = types(FLAT.graphs[case])

    assert found[-2:] == ["Concat", "Reshape"]
    assert found.count("Reshape") == 1
    FLAT.assert_numbers(case)


KEPT = {
    "another axis": (
        "g (float[1,6,10] x) => (float[1,10,12] y)",
        "a = Reshape(x, s) b = Reshape(x, s) c = Relu(b) y = Concat<axis=2>(a, c)",
        "Flatten",
    ),
    "a part that is not a Reshape": (
        "g (float[1,10,6] x) => (float[1,20,6] y)",
        "t = Transpose<perm=[0,2,1]>(x) a = Reshape(t, s) y = Concat<axis=1>(a, x)",
        "Flatten",
    ),
    "a part that others read": (
        "g (float[1,6,10] x) => (float[1,20,6] y, float[1,10,6] z)",
        "a = Reshape(x, s) z = Relu(a) b = Sigmoid(x) c = Reshape(b, s) y = Concat<axis=1>(a, c)",
        "Flatten",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_other_joins_stay(case):
    head, nodes, absent = KEPT[case]
    model = onnx_model(f"{head} {{ {nodes} }}", {"s": np.array([1, 10, 6])})
    graph = fused(model)

    assert absent not in types(graph)
    assert_lowers(model, graph)


def test_a_join_of_maps_is_flat_too():
    text = (
        "g (float[1,4,30] x) => (float[1,8,5,6] y) "
        "{ a = Reshape(x, s) r = Relu(x) b = Reshape(r, s) y = Concat<axis=1>(a, b) }"
    )
    model = onnx_model(text, {"s": np.array([1, 4, 5, 6])})
    graph = fused(model)

    assert types(graph) == ["Flatten", "ReLU", "Flatten", "Concat", "Reshape"]
    assert_lowers(model, graph)
