import numpy as np
import pytest
from onnx_text import Table, assert_lowers, lowered, onnx_model, types

from mbv3ssd_deploy.errors import UnsupportedOpError
from mbv3ssd_deploy.ncnn_graph.layers import param_of

MAP = "g (float[1,5,6,7] x) => (float[1,5,6,7] y) {{ y = {node} }}"
LIMITS = {"low": np.float32(-1), "high": np.float32(2)}

CASES = {
    "Relu": ("Relu(x)", {}, 17),
    "LeakyRelu": ("LeakyRelu<alpha=0.1>(x)", {}, 17),
    "LeakyRelu default": ("LeakyRelu(x)", {}, 17),
    "Sigmoid": ("Sigmoid(x)", {}, 17),
    "HardSigmoid default": ("HardSigmoid(x)", {}, 17),
    "HardSigmoid": ("HardSigmoid<alpha=0.16666667, beta=0.5>(x)", {}, 17),
    "HardSwish": ("HardSwish(x)", {}, 17),
    "Clip attributes": ("Clip<min=-1.0, max=2.0>(x)", {}, 10),
    "Clip inputs": ("Clip(x, low, high)", LIMITS, 17),
    "Clip lower only": ("Clip(x, low)", {"low": LIMITS["low"]}, 17),
    "Clip upper only": ("Clip(x, , high)", {"high": LIMITS["high"]}, 17),
    "Clip infinite": ("Clip(x, low, high)", LIMITS | {"high": np.float32(np.inf)}, 17),
    "Softmax channels": ("Softmax<axis=1>(x)", {}, 17),
    "Softmax columns": ("Softmax(x)", {}, 17),
    "Softmax old": ("Softmax<axis=3>(x)", {}, 11),
}


MODELS = Table({c: onnx_model(MAP.format(node=n), w, opset=o) for c, (n, w, o) in CASES.items()})


@pytest.mark.parametrize("case", MODELS)
def test_activations_keep_their_numbers(case):
    MODELS.assert_numbers(case)


def test_alpha_and_beta_are_onnx_s_defaults_or_what_is_written():
    default, given, swish = (
        MODELS.graphs[case].layers[1]
        for case in ("HardSigmoid default", "HardSigmoid", "HardSwish")
    )

    assert param_of(default, "alpha") == np.float32(0.2)
    assert param_of(given, "alpha") == param_of(swish, "alpha") == np.float32(1 / 6)
    assert param_of(swish, "beta") == 0.5


def test_softmax_over_priors():
    text = "g (float[1,40,21] x) => (float[1,40,21] y) { y = Softmax<axis=-1>(x) }"
    model = onnx_model(text)

    assert types(lowered(model)) == ["Softmax"]
    assert_lowers(model)


def test_the_old_softmax_that_flattens_is_refused():
    model = onnx_model(MAP.format(node="Softmax<axis=1>(x)"), opset=11)

    with pytest.raises(UnsupportedOpError, match="before opset 13"):
        lowered(model)


def test_a_limit_computed_from_the_input_is_refused():
    text = "g (float[1,5] x) => (float[1,5] y) { a = ReduceMean<keepdims=0>(x) y = Clip(x, a) }"

    with pytest.raises(UnsupportedOpError):
        lowered(onnx_model(text))


@pytest.mark.parametrize("alpha", [0.0, -0.2])
def test_a_hard_sigmoid_that_does_not_rise_is_refused(alpha):
    model = onnx_model(MAP.format(node=f"HardSigmoid<alpha={alpha}, beta=0.5>(x)"))

    with pytest.raises(UnsupportedOpError, match=f"alpha is {alpha:g}"):
        lowered(model)
