"""HardSwish, HardSigmoid, limits and scalars: every spelling becomes the one layer."""

import numpy as np
import pytest
from onnx_text import Table, assert_lowers, fused, onnx_model, types

from mbv3ssd_deploy.ncnn_graph.layers import param_of

MAP = "g (float[1,4,5,6] x) => (float[1,4,5,6] y) {{ {nodes} }}"
CONSTANTS = {
    "three": np.float32(3),
    "six": np.float32([6]),
    "sixth": np.float32([[[1 / 6]]]),
    "half": np.float32(0.5),
    "zero": np.float32(0),
    "one": np.float32(1),
    "two": np.float32(2),
}


def model_of(nodes):
    used = {name: value for name, value in CONSTANTS.items() if name in nodes.replace(")", ",")}
    return onnx_model(MAP.format(nodes=nodes), used)


HARD_SIGMOID = {
    "add clip div": "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)",
    "operands the other way": "a = Add(three, x) c = Clip(a, zero, six) y = Mul(sixth, c)",
    "min of max": "a = Add(x, three) m = Max(a, zero) c = Min(m, six) y = Mul(c, sixth)",
    "max of min": "a = Add(x, three) m = Min(six, a) c = Max(zero, m) y = Div(c, six)",
    "relu then min": "a = Add(x, three) m = Relu(a) c = Min(m, six) y = Div(c, six)",
    "scaled first": "m = Mul(x, sixth) a = Add(m, half) y = Clip(a, zero, one)",
    "divided first": "m = Div(x, six) a = Add(half, m) y = Clip(a, zero, one)",
    "subtracted": "n = Neg(three) a = Sub(x, n) c = Clip(a, zero, six) y = Div(c, six)",
    "scaled in two steps": (
        "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, two) y = Div(d, three)"
    ),
    "one node": "y = HardSigmoid<alpha=0.16666667, beta=0.5>(x)",
}
HARD_SWISH = {
    "gate first": "a = Add(x, three) c = Clip(a, zero, six) g = Div(c, six) y = Mul(g, x)",
    "gate second": "a = Add(x, three) c = Clip(a, zero, six) g = Mul(c, sixth) y = Mul(x, g)",
    "divided last": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
    "multiplied last": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(c, x) y = Mul(sixth, m)",
    "x divided": "d = Div(x, six) a = Add(x, three) c = Clip(a, zero, six) y = Mul(d, c)",
    "constants between": (
        "k = Constant<value_float=3.0>() a = Add(x, k) l = Constant<value_float=0.0>() "
        "h = Constant<value_float=6.0>() c = Clip(a, l, h) m = Mul(x, c) "
        "d = Constant<value_float=6.0>() y = Div(m, d)"
    ),
    "with HardSigmoid": "g = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, g)",
    "one node": "y = HardSwish(x)",
}


def table_of(spellings):
    return Table({case: model_of(nodes) for case, nodes in spellings.items()}, fused)


SIGMOIDS, SWISHES = table_of(HARD_SIGMOID), table_of(HARD_SWISH)


@pytest.mark.parametrize("case", SIGMOIDS)
def test_hard_sigmoid(case):
    graph = SIGMOIDS.graphs[case]

    assert types(graph) == ["HardSigmoid"]
    assert param_of(graph.layers[1], "alpha") == pytest.approx(1 / 6, rel=1e-6)
    SIGMOIDS.assert_numbers(case, atol=2e-6)


@pytest.mark.parametrize("case", SWISHES)
def test_hard_swish(case):
    graph = SWISHES.graphs[case]

    assert types(graph) == ["HardSwish"]
    assert param_of(graph.layers[1], "beta") == pytest.approx(0.5, rel=1e-6)
    SWISHES.assert_numbers(case, atol=5e-6)


def test_a_gate_divided_after_its_product():
    nodes = "g = Sigmoid(x) a = Add(g, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
    model = model_of(nodes)
    graph = fused(model)

    assert types(graph) == ["Sigmoid", "HardSigmoid", "BinaryOp"]
    assert_lowers(model, graph)


OTHERS = {
    "an upper limit that is not undone": "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, two)",
    "a lower limit above 0": "a = Add(x, three) c = Clip(a, one, six) y = Div(c, six)",
    "a falling slope": "a = Sub(three, x) c = Clip(a, zero, six) y = Div(c, six)",
    "a bare clip": "y = Clip(x, zero, one)",
    "three factors": (
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) n = Mul(m, x) y = Div(n, six)"
    ),
}


LOOKALIKES = table_of(OTHERS)


@pytest.mark.parametrize("case", LOOKALIKES)
def test_what_only_looks_like_it_is_left_alone(case):
    assert not {"HardSigmoid", "HardSwish"} & set(types(LOOKALIKES.graphs[case]))
    LOOKALIKES.assert_numbers(case, atol=1e-4)


def test_a_clip_that_others_read_stays():
    text = (
        "g (float[1,4,5,6] x) => (float[1,4,5,6] y, float[1,4,5,6] z) {"
        "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six) z = Sigmoid(c) }"
    )
    model = onnx_model(text, {name: CONSTANTS[name] for name in ("three", "six", "zero")})
    graph = fused(model)

    assert sorted(types(graph)) == ["BinaryOp", "Clip", "HardSigmoid", "Sigmoid"]
    assert_lowers(model, graph)


SQUARED = {
    "a clip squared": ("c = Clip(x, zero, one) y = Mul(c, c)", ["Clip", "BinaryOp"]),
    "two gates": (
        "a = Add(x, half) c = Clip(a, zero, one) d = Div(x, six) e = Clip(d, zero, one) y=Mul(e,c)",
        ["BinaryOp", "HardSigmoid", "HardSigmoid"],
    ),
    "a clip of sixths squared": (
        "a = Add(x, three) c = Clip(a, zero, six) p = Mul(c, c) y = Mul(p, sixth)",
        ["BinaryOp", "BinaryOp", "Clip", "HardSigmoid"],
    ),
}
PRODUCTS = table_of({case: nodes for case, (nodes, _) in SQUARED.items()})


@pytest.mark.parametrize("case", PRODUCTS)
def test_products_of_gates(case):
    assert sorted(types(PRODUCTS.graphs[case])) == sorted(SQUARED[case][1])
    PRODUCTS.assert_numbers(case)


def test_a_gate_gets_a_name_that_is_free():
    nodes = "a = Add(x, three) c = Clip(a, zero, six) g = Sigmoid(x) p = Mul(g, c) y = Div(p, six)"
    model = model_of(nodes)
    for node in model.graph.node:
        node.name = {"g": "y/gate", "y": "y"}.get(node.output[0], "")
        node.output[:] = ["y/gate" if name == "g" else name for name in node.output]
        node.input[:] = ["y/gate" if name == "g" else name for name in node.input]
    graph = fused(model)

    assert {"y/gate", "y/gate_2"} <= {layer.name for layer in graph.layers}
    assert_lowers(model, graph)


CLIPS = {
    "relu6": ("a = Max(x, zero) y = Min(a, six)", ["Clip"]),
    "relu": ("y = Max(zero, x)", ["ReLU"]),
    "two clips": ("a = Clip(x, zero, six) y = Clip(a, one, two)", ["Clip"]),
    "apart": ("a = Clip(x, zero, one) y = Clip(a, two, six)", ["Clip"]),
    "no upper limit": ("y = Clip(x, zero)", ["ReLU"]),
}


LIMITS = table_of({case: nodes for case, (nodes, _) in CLIPS.items()})


@pytest.mark.parametrize("case", LIMITS)
def test_limits_become_one_layer(case):
    assert types(LIMITS.graphs[case]) == CLIPS[case][1]
    LIMITS.assert_numbers(case)


def scalar_model(node):
    nodes = f"a = HardSigmoid<alpha=0.03>(x) y = {node}"
    return onnx_model(MAP.format(nodes=nodes), {"c": np.float32(0.75)})


OPS = ("Add", "Sub", "Mul", "Div", "Max", "Min")
NODES = [f"{op}({order})" for op in OPS for order in ("a, c", "c, a")]
SCALARS = Table({node: scalar_model(node) for node in NODES}, fused)


@pytest.mark.parametrize("node", SCALARS)
def test_scalars_move_into_their_operation(node):
    assert "MemoryData" not in types(SCALARS.graphs[node])
    SCALARS.assert_numbers(node)
