import numpy as np
import pytest
from onnx_text import Table, assert_lowers, fused, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError

# a is well above 0, so that quotients are sound numbers
MAP = (
    "g (float[1,5,6,7] x) => (float[1,5,6,7] y) "
    "{{ a = HardSigmoid<alpha=0.03>(x) y = {op}({operands}) }}"
)
SHAPES = {
    "number": (),
    "one element": (1,),
    "channel": (5, 1, 1),
    "channel with batch": (1, 5, 1, 1),
    "column": (7,),
    "row": (6, 1),
    "plane": (6, 7),
    "whole": (1, 5, 6, 7),
}
OPS = ("Add", "Sub", "Mul", "Div", "Max", "Min")


def constant(shape):
    return np.random.default_rng(3).uniform(0.5, 2, shape).astype(np.float32)


def model_of(op, operands, shape=()):
    weights = {"c": constant(shape)} if "c" in operands else {}
    return onnx_model(MAP.format(op=op, operands=operands), weights)


CHANNELS = Table({f"{op}({o})": model_of(op, o, (5, 1, 1)) for op in OPS for o in ("a, c", "c, a")})
CONSTANTS = Table({name: model_of("Sub", "a, c", shape) for name, shape in SHAPES.items()})
TENSORS = Table({op: model_of(op, "a, a") for op in OPS})


@pytest.mark.parametrize("case", CHANNELS)
def test_every_operation_with_a_constant_on_either_side(case):
    CHANNELS.assert_numbers(case)


@pytest.mark.parametrize("case", CONSTANTS)
def test_every_shape_of_constant(case):
    CONSTANTS.assert_numbers(case)


@pytest.mark.parametrize("case", TENSORS)
def test_two_tensors(case):
    TENSORS.assert_numbers(case)


# maps as wide as they have channels, where ncnn's own broadcasting could choose either, and others
GATED = ("5,6,7", "5,5,5", "7,5,7", "1,5,6", "5,1,1")


def gate_model(size, order):
    return onnx_model(
        f"g (float[1,{size}] x) => (float[1,{size}] y) "
        f"{{ p = GlobalAveragePool(x) gate = Sigmoid(p) y = Mul({order}) }}"
    )


GATES = {f"{s} {o}": gate_model(s, o) for s in GATED for o in ("x, gate", "gate, x")}
LOWERED_GATES = Table(GATES)
FUSED_GATES = Table(GATES, fused)


@pytest.mark.parametrize("case", GATES)
def test_a_gate_of_one_number_a_channel(case):
    LOWERED_GATES.assert_numbers(case)
    FUSED_GATES.assert_numbers(case)


def test_a_vector_with_a_constant():
    text = "g (float[1,5] x) => (float[1,5] y) { y = Add(x, c) }"

    assert_lowers(onnx_model(text, {"c": constant((5,))}))


def test_a_constant_that_stretches_the_tensor():
    text = "g (float[1,5,6,7] x) => (float[1,5,6,7] y) { p = GlobalAveragePool(x) y = Add(p, c) }"

    assert_lowers(onnx_model(text, {"c": constant((6, 7))}))


def test_max_of_one_is_nothing():
    text = "g (float[1,5] x) => (float[1,5] y) { m = Max(x) y = Relu(m) }"

    assert types(lowered(onnx_model(text))) == ["ReLU"]


def test_what_ncnn_s_releases_stretch_differently_is_refused():
    text = (
        "g (float[1,5,6,7] x) => (float[1,5,6,7] y) { "
        "p = AveragePool<kernel_shape=[6,1]>(x) y = Mul(x, p) }"
    )

    with pytest.raises(UnsupportedOpError, match="cannot stretch 'p'"):
        lowered(onnx_model(text))


def test_three_operands_are_refused():
    text = "g (float[1,5] x) => (float[1,5] y) { a = Relu(x) b = Sigmoid(x) y = Max(x, a, b) }"

    with pytest.raises(UnsupportedOpError, match="3 operands"):
        lowered(onnx_model(text))


SQUARES = Table(
    {
        shape: onnx_model(
            "g (float[1,5,6,7] x) => (float[1,5,6,7] y) { y = Pow(x, two) }",
            {"two": np.full(shape, 2, np.float32)},
        )
        for shape in ((), (1,), (5, 1, 1))
    },
    fused,
)


@pytest.mark.parametrize("case", SQUARES)
def test_a_square_is_a_product_for_negative_numbers_too(case):
    assert types(SQUARES.graphs[case]) == ["BinaryOp"]
    SQUARES.assert_numbers(case)


POWERS = {
    "a root": ("y = Pow(x, c)", np.float32(0.5)),
    "a cube": ("y = Pow(x, c)", np.float32([3])),
    "not the same everywhere": ("y = Pow(x, c)", np.float32([2, 2, 2, 2, 2, 2, 3])),
    "a power of two": ("y = Pow(c, x)", np.float32(2)),
    "a power of itself": ("y = Pow(x, x)", np.float32(2)),
    "a square that is stretched": (
        "p = GlobalAveragePool(x) y = Pow(p, c)",
        np.full((6, 7), 2, np.float32),
    ),
}


@pytest.mark.parametrize("case", POWERS)
def test_other_powers_are_refused(case):
    nodes, constant = POWERS[case]
    text = f"g (float[1,5,6,7] x) => (float[1,5,6,7] y) {{ {nodes} }}"

    with pytest.raises(UnsupportedOpError, match="squares alone are lowered"):
        lowered(onnx_model(text, {"c": constant}))
