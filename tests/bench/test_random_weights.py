"""Random weights for a .param without its .bin."""

import numpy as np
import pytest

from mbv3ssd_deploy.bench.targets import with_random_weights
from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.check import find_problems
from mbv3ssd_deploy.ncnn_graph.param_text import inspect_param, parse_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import parse_bin, render_bin

PARAM = """7767517
5 5
Input in 0 1 in 0=8 1=8 2=16
Convolution conv 1 1 in a 0=64 1=3 4=1 5=1 6=9216
ConvolutionDepthWise deep 1 1 a b 0=64 1=3 4=1 5=1 6=576 7=64
BatchNorm norm 1 1 b c 0=64
BinaryOp twice 1 1 c out 0=2 1=1 2=2.0
"""


def weights():
    filled = with_random_weights(parse_param(PARAM))
    return {layer.name: {w.role: w.data for w in layer.weights} for layer in filled.layers}


def test_every_weight_is_there_and_ncnn_could_read_it():
    graph = parse_param(PARAM)

    filled = with_random_weights(graph)

    assert find_problems(filled) == ()
    assert parse_bin(graph, render_bin(filled)) == filled


def test_kernels_have_hes_deviation_for_their_fan_in():
    kernels = weights()

    assert kernels["conv"]["weight"].std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.03)
    assert kernels["deep"]["weight"].std() == pytest.approx(np.sqrt(2 / 9), rel=0.1)


def test_variances_and_factors_stay_away_from_zero():
    norm = weights()["norm"]

    assert norm["var"].min() >= 0.5
    assert norm["slope"].min() >= 0.5


def test_weights_depend_on_the_seed_alone():
    graph = parse_param(PARAM)

    assert render_bin(with_random_weights(graph)) == render_bin(with_random_weights(graph))
    assert render_bin(with_random_weights(graph, seed=1)) != render_bin(with_random_weights(graph))


@pytest.mark.parametrize("size", [(1 << 31) - 1, (1 << 26) + 1, -5])
def test_more_weights_than_the_limit_are_refused_before_they_are_made(size):
    text = f"7767517\n2 2\nInput in 0 1 in\nInnerProduct p 1 1 in out 0=2 2={size}\n"

    with pytest.raises(FormatError, match="random ones are made for up to 67,108,864") as caught:
        with_random_weights(inspect_param(text).graph, source="x.param")

    assert ".bin beside" in caught.value.hint


def test_unknown_layers_are_all_named():
    text = "7767517\n3 3\nInput in 0 1 in\nRoPE r 1 1 in a\nLSTM l 1 1 a out\n"

    with pytest.raises(FormatError, match="LSTM, RoPE") as caught:
        with_random_weights(inspect_param(text).graph, source="x.param")

    assert caught.value.where == "x.param"
    assert ".bin beside" in caught.value.hint
