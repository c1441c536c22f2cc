"""Models of users: lowered correctly without a fusion, or refused by name."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_text import Table, assert_lowers, fused, lowered, onnx_model, types

from mbv3ssd_deploy.errors import SpecError, UnsupportedOpError

MAP = "g (float[1,4,5,6] x) => (float[1,{out},5,6] y) {{ {nodes} }}"
NORM = {"s": (6,), "t": (6,), "m": (6,), "v": np.float32([0.5, 1, 2, 0.1, 0.9, 4])}
NORM_NODE = "BatchNormalization<epsilon=0.001>"
WEIGHT = {"w": (6, 4, 1, 1), "b": (6,)}


def model_of(nodes, weights, out=6):
    return onnx_model(MAP.format(out=out, nodes=nodes), weights)


# no fusion knows these: they stay as layers of their own
UNFUSED = {
    "SiLU spelt out": ("c = Conv(x, w, b) g = Sigmoid(c) y = Mul(c, g)", WEIGHT),
    "an activation behind another": ("c = Conv(x, w) r = Relu(c) y = HardSigmoid(r)", WEIGHT),
    "a hard sigmoid of another slope": (
        "c = Conv(x, w) g = HardSigmoid<alpha=0.3, beta=0.4>(c) y = Mul(c, g)",
        WEIGHT,
    ),
    "one weight for two convolutions, one of them normalised": (
        f"c = Conv(x, w) n = {NORM_NODE}(c, s, t, m, v) d = Conv(x, w) y = Add(n, d)",
        WEIGHT | NORM,
    ),
    "one bias for two convolutions": (
        f"c = Conv(x, w, b) n = {NORM_NODE}(c, s, t, m, v) d = Conv(x, w, b) y = Add(n, d)",
        WEIGHT | NORM,
    ),
    "one BatchNorm's numbers for two": (
        f"c = Conv(x, w) n = {NORM_NODE}(c, s, t, m, v) p = {NORM_NODE}(n, s, t, m, v) y = Relu(p)",
        WEIGHT | NORM,
    ),
}
RIGHT = Table({case: model_of(*row) for case, row in UNFUSED.items()}, fused)


@pytest.mark.parametrize("case", RIGHT)
def test_what_no_fusion_knows_keeps_its_numbers(case):
    RIGHT.assert_numbers(case)


def test_shared_weights_are_not_changed_for_the_others():
    nodes, weights = UNFUSED["one weight for two convolutions, one of them normalised"]
    graph = fused(model_of(nodes, weights))

    assert types(graph) == ["Convolution", "Convolution", "BinaryOp"]


REFUSED = {
    "an activation that has no lowering": ("y = Celu(x)", {}, "Celu"),
    "a weight that is computed": (
        "p = GlobalAveragePool(x) q = Transpose<perm=[1,0,2,3]>(p) y = Conv<group=4>(x, q)",
        {},
        "Transpose",
    ),
    "a scale that is computed": (
        "p = GlobalAveragePool(x) q = Squeeze(p, a) y = BatchNormalization(x, q, z, z, o)",
        {"a": np.array([0, 2, 3]), "z": np.zeros(4, "f4"), "o": np.ones(4, "f4")},
        "Squeeze",
    ),
    "an upper limit that is computed": (
        "p = ReduceMax<keepdims=0>(x) y = Clip(x, l, p)",
        {"l": np.float32(0)},
        "ReduceMax",
    ),
    "a mask that is read": ("d, k = Dropout(x) c = Cast<to=1>(k) y = Mul(x, c)", {}, "'k'"),
    "Dropout in training mode": (
        "y = Dropout(x, r, n)",
        {"r": np.float32(0.5), "n": np.array(True)},  # noqa: FBT003 -- an ONNX constant
        "training mode",
    ),
    "a constant that is thrown anew each time": (
        "r = RandomNormalLike(c) y = Add(x, r)",
        {"c": (4, 1, 1)},
        "RandomNormalLike",
    ),
    "a constant with a dice's share": ("r = Bernoulli(c) y = Add(x, r)", {"c": (4, 1, 1)}, "Berno"),
    "a constant's Dropout in training mode": (
        "r = Dropout(c, h, n) y = Add(x, r)",
        {"c": (4, 1, 1), "h": np.float32(0.5), "n": np.array(True)},  # noqa: FBT003 -- as above
        "training mode",
    ),
    "limits the wrong way round": (
        "a = Add(x, t) c = Clip(a, z, m) y = Mul(c, s)",
        {"t": np.float32(3), "z": np.float32(0), "m": np.float32(-6), "s": np.float32(-1 / 6)},
        "its lower limit 0 is above the upper one, -6",
    ),
    "a slice of nothing": (
        "s = Slice(x, b, e, a) y = Concat<axis=1>(x, s)",
        {"b": np.array([2]), "e": np.array([0]), "a": np.array([1])},
        "holds no numbers",
    ),
    "a constant that is NaN": ("y = Add(x, c)", {"c": np.float32(np.nan)}, "NaN or infinite"),
    "an endless weight": (
        "y = Conv(x, w)",
        {"w": np.full((4, 4, 1, 1), np.inf, np.float32)},
        "weight has 16 numbers that are NaN or infinite",
    ),
    "a division by 0": ("y = Div(x, c)", {"c": np.float32([[[1]], [[0]], [[1]], [[2]]])}, "by 0"),
    "a stride of 0": ("y = Conv<strides=[0,1]>(x, w)", {"w": (4, 4, 1, 1)}, "are below 1"),
    "strides of one axis": ("y = Conv<strides=[1]>(x, w)", {"w": (4, 4, 1, 1)}, "of two axes"),
    "no groups": ("y = Conv<group=0>(x, w)", {"w": (4, 4, 1, 1)}, "not a multiple of group 0"),
    "a bias of another length": (
        "c = Conv(x, w, b) y = Relu(c)",
        {"w": (4, 4, 1, 1), "b": (3,)},
        "bias needs 4 numbers and has 3",
    ),
    "a limit of two numbers": ("y = Clip(x, l)", {"l": np.float32([0, 1])}, "not fit together"),
    "a constant that cannot be computed": (
        "c = Reshape(k, n) y = Add(x, c)",
        {"k": (4, 1, 1), "n": np.array([5])},
        "its value cannot be computed",
    ),
    "shapes that are computed": ("s = Shape(x) y = Reshape(x, s)", {}, "Shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_lowered_is_refused_by_name(case):
    nodes, weights, words = REFUSED[case]

    with pytest.raises(UnsupportedOpError) as caught:
        lowered(model_of(nodes, weights, out=4))

    assert words in str(caught.value)


ATTRIBUTES = {
    "Relu": ("alpha", 0.1),
    "Conv": ("output_padding", [1, 1]),
    "HardSwish": ("alpha", 0.2),
    "Flatten": ("keep", 1),
}


@pytest.mark.parametrize("op", ATTRIBUTES)
def test_an_attribute_that_onnx_does_not_know_is_refused(op):
    nodes = {"Conv": "y = Conv(x, w)", "Flatten": "f = Flatten(x) y = Reshape(f, s)"}
    weights = {"w": (4, 4, 1, 1)} if op == "Conv" else {}
    weights |= {"s": np.array([1, 4, 5, 6])} if op == "Flatten" else {}
    model = model_of(nodes.get(op, f"y = {op}(x)"), weights, out=4)
    model.graph.node[0].attribute.append(helper.make_attribute(*ATTRIBUTES[op]))

    with pytest.raises(UnsupportedOpError, match=f"no attribute {ATTRIBUTES[op][0]}"):
        lowered(model)


def test_an_attribute_of_a_later_opset_is_refused():
    model = onnx_model(
        "g (float[1,12] x) => (float[1,3,4] y) { y = Reshape(x, s) }",
        {"s": np.array([1, 3, 4])},
        opset=13,
    )
    model.graph.node[0].attribute.append(helper.make_attribute("allowzero", 1))

    with pytest.raises(UnsupportedOpError, match=r"in opset 13 .* no attribute allowzero"):
        lowered(model)


def test_an_open_size_inside_is_refused():
    model = model_of("y = Relu(x)", {}, out=4)
    value = model.graph.input[0].type.tensor_type.shape.dim[2]
    value.dim_param = "rows"

    with pytest.raises(SpecError, match="open"):
        lowered(model)


def test_an_output_that_is_the_input_is_refused():
    with pytest.raises(SpecError, match="'y' is the input itself"):
        lowered(model_of("y = Identity(x)", {}, out=4))


def test_an_output_that_needs_no_input_is_refused():
    model = model_of("z = Relu(x) y = Identity(c)", {"c": (1, 4, 5, 6)}, out=4)

    with pytest.raises(SpecError, match="'y' does not depend on the input"):
        lowered(model)


def test_half_precision_weights_are_read_as_numbers():
    half = np.random.default_rng(0).normal(size=(6, 4, 1, 1)).astype(np.float16)
    model = model_of("k = Cast<to=1>(w) y = Conv(x, k)", {"w": half})

    assert model.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16
    assert_lowers(model)
