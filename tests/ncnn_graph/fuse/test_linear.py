"""What moves into convolutions and inner products: BatchNorm, constants, activations."""

import numpy as np
import pytest
from onnx_text import Table, assert_lowers, fused, onnx_model, types

from mbv3ssd_deploy.ncnn_graph.layers import ActivationType, param_of

VARIANCE = np.float32([0.5, 1.0, 2.0, 0.1, 0.9, 4.0])
NORM = {"s": (6,), "t": (6,), "m": (6,), "v": VARIANCE}
LINEAR = {
    "conv": ("Conv(x, w, b)", {"w": (6, 4, 1, 1), "b": (6,)}, "1,4,5,7", "1,6,5,7"),
    "conv without bias": ("Conv(x, w)", {"w": (6, 4, 3, 3)}, "1,4,5,7", "1,6,3,5"),
    "depthwise": ("Conv<group=6>(x, w, b)", {"w": (6, 1, 3, 3), "b": (6,)}, "1,6,5,7", "1,6,3,5"),
    "multiplier": ("Conv<group=3>(x, w)", {"w": (6, 1, 3, 3)}, "1,3,5,7", "1,6,3,5"),
    "gemm": ("Gemm<transB=1>(x, w, b)", {"w": (6, 4), "b": (6,)}, "1,4", "1,6"),
    "gemm without bias": ("Gemm<transB=1>(x, w)", {"w": (6, 4)}, "1,4", "1,6"),
}


def behind(case, nodes, weights=None):
    node, own, shape, out = LINEAR[case]
    text = f"g (float[{shape}] x) => (float[{out}] y) {{ l = {node} {nodes} }}"
    return onnx_model(text, own | (weights or {}))


NORMS = Table(
    {c: behind(c, "y = BatchNormalization<epsilon=0.001>(l, s, t, m, v)", NORM) for c in LINEAR},
    fused,
)


@pytest.mark.parametrize("case", NORMS)
def test_batch_norm_is_folded(case):
    assert len(types(NORMS.graphs[case])) == 1
    NORMS.assert_numbers(case)


def test_batch_norm_of_rows_is_not_folded_into_columns():
    text = (
        "g (float[1,6,4] x) => (float[1,6,6] y) "
        "{ l = MatMul(x, w) y = BatchNormalization(l, s, t, m, v) }"
    )
    model = onnx_model(text, NORM | {"w": (4, 6)})
    graph = fused(model)

    assert types(graph) == ["InnerProduct", "BatchNorm"]
    assert_lowers(model, graph)


AFFINES = {
    "added": "y = Add(c, l)",
    "subtracted": "y = Sub(l, c)",
    "subtracted from": "y = Sub(c, l)",
    "multiplied": "y = Mul(l, c)",
    "divided": "y = Div(l, c)",
}


def affine_model(case, affine, shape):
    constant = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    return behind(case, AFFINES[affine], {"c": constant})


BY_CHANNEL = {name: affine_model("conv without bias", name, (6, 1, 1)) for name in AFFINES}
BY_NUMBER = {f"one number {name}": affine_model("depthwise", name, ()) for name in AFFINES}
FOLDED = Table(BY_CHANNEL | BY_NUMBER, fused)


@pytest.mark.parametrize("case", FOLDED)
def test_constants_are_folded(case):
    assert len(types(FOLDED.graphs[case])) == 1
    FOLDED.assert_numbers(case)


def test_what_is_not_a_scale_of_channels_stays():
    for nodes, shape in (("y = Div(c, l)", ()), ("y = Mul(l, c)", (5, 7))):
        model = behind("conv", nodes, {"c": np.full(shape, 2, np.float32)})

        assert "BinaryOp" in types(fused(model))


ACTIVATIONS = {
    "Relu(l)": ActivationType.RELU,
    "LeakyRelu<alpha=0.1>(l)": ActivationType.LEAKY_RELU,
    "Clip(l, low, high)": ActivationType.CLIP,
    "Sigmoid(l)": ActivationType.SIGMOID,
    "HardSwish(l)": ActivationType.HARD_SWISH,
}
LIMITS = {"low": np.float32(-0.5), "high": np.float32(1)}


def activation_model(case, node):
    return behind(case, f"y = {node}", LIMITS if "low" in node else None)


ACTIVE = Table(
    {(c, n): activation_model(c, n) for c in ("conv", "depthwise", "gemm") for n in ACTIVATIONS},
    fused,
)


@pytest.mark.parametrize("case", ACTIVE)
def test_activations_are_fused(case):
    graph = ACTIVE.graphs[case]

    assert len(types(graph)) == 1
    assert param_of(graph.layers[1], "activation_type") == ACTIVATIONS[case[1]]
    ACTIVE.assert_numbers(case)


GATES = {
    "of PyTorch": "y = HardSigmoid<alpha=0.16666667, beta=0.5>(l)",
    "of ONNX": "y = HardSigmoid(l)",
    "from its parts": "a = Add(l, three) c = Clip(a, zero, six) y = Div(c, six)",
}


def gate_model(case, gate):
    constants = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    return behind(case, GATES[gate], constants if "three" in GATES[gate] else None)


GATED = Table({(case, gate): gate_model(case, gate) for case in LINEAR for gate in GATES}, fused)


@pytest.mark.parametrize("case", GATED)
def test_a_gate_becomes_a_fused_clip(case):
    graph = GATED.graphs[case]

    assert len(types(graph)) == 1
    assert param_of(graph.layers[1], "activation_type") == ActivationType.CLIP
    assert param_of(graph.layers[1], "activation_params") == (0.0, 1.0)
    GATED.assert_numbers(case)


KEPT_GATES = {
    "behind an activation": "r = Relu(l) y = HardSigmoid(r)",
    "of a result that others read": "g = HardSigmoid(l) z = Sigmoid(l) y = Add(g, z)",
}


@pytest.mark.parametrize("case", KEPT_GATES)
def test_a_gate_that_must_stay(case):
    model = behind("conv", KEPT_GATES[case])
    graph = fused(model)

    assert "HardSigmoid" in types(graph)
    assert_lowers(model, graph)


def test_a_gate_of_its_own_input_is_a_hard_swish():
    model = behind("conv", "g = HardSigmoid<alpha=0.16666667, beta=0.5>(l) y = Mul(g, l)")
    graph = fused(model)

    assert types(graph) == ["Convolution"]
    assert param_of(graph.layers[1], "activation_type") == ActivationType.HARD_SWISH
    assert_lowers(model, graph)


def test_the_second_activation_stays_outside():
    model = behind("conv", "r = Relu(l) y = Sigmoid(r)")
    graph = fused(model)

    assert types(graph) == ["Convolution", "Sigmoid"]
    assert_lowers(model, graph)


def test_batch_norm_and_activation_together():
    nodes = "n = BatchNormalization(l, s, t, m, v) y = HardSwish(n)"
    model = behind("depthwise", nodes, NORM)
    graph = fused(model)

    assert types(graph) == ["ConvolutionDepthWise"]
    assert_lowers(model, graph)


def test_batch_norm_behind_an_activation_is_not_pulled_through_it():
    nodes = "r = Relu(l) y = BatchNormalization(r, s, t, m, v)"
    model = behind("conv", nodes, NORM)
    graph = fused(model)

    assert types(graph) == ["Convolution", "BatchNorm"]
    assert_lowers(model, graph)


SHARED = {
    "another reader": "r = Relu(l) z = Sigmoid(l) y = Add(r, z)",
    "read twice": "r = Relu(l) y = Add(r, l)",
}


@pytest.mark.parametrize("case", SHARED)
def test_a_result_that_others_read_keeps_its_numbers(case):
    model = behind("conv", SHARED[case])
    graph = fused(model)

    assert param_of(graph.layers[1], "activation_type") == ActivationType.NONE
    assert_lowers(model, graph)


def test_a_wanted_output_keeps_its_numbers():
    text = (
        "g (float[1,4,5,6] x) => (float[1,6,5,6] l, float[1,6,5,6] y) "
        "{ l = Conv(x, w) y = Relu(l) }"
    )
    model = onnx_model(text, {"w": (6, 4, 1, 1)})
    graph = fused(model)

    assert types(graph) == ["Convolution", "ReLU"]
    assert_lowers(model, graph)
