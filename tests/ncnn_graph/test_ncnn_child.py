"""The child really runs ncnn; a network that crashes it fails one test, and the next one runs."""

import ncnn_child
import numpy as np
import pytest

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.param_text import render_param

GRAPH = NcnnGraph(
    (
        build_layer("Input", "input", (), ("input",)),
        build_layer("Permute", "p", ("input",), ("out",), {"order_type": 3}),
    )
)
IMAGE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_a_network_runs():
    out = ncnn_child.run_graph(GRAPH, {"input": IMAGE}, ["out"])["out"]

    np.testing.assert_array_equal(out, IMAGE.transpose(1, 2, 0))


def test_a_network_that_ncnn_refuses_fails_the_test():
    with pytest.raises(AssertionError, match="load_param failed"):
        ncnn_child.run_files("7767517\n1 1\nNoSuchLayer a 0 1 a\n", b"", {}, [])


def test_after_a_crash_the_next_network_runs():
    params = {"num_output": 1, "weight_data_size": 24}
    weights = (Weight("weight", np.zeros(24, np.int8), Storage.INT8),)
    layer = build_layer("InnerProduct", "i", ("input",), ("out",), params, weights=weights)
    text = render_param(NcnnGraph((GRAPH.layers[0], layer)))
    int8 = bytes.fromhex("384b0d00") + bytes(24)

    with pytest.raises(AssertionError, match="ncnn ended with -"):
        ncnn_child.run_files(text, int8, {"input": IMAGE}, ["out"])
    assert ncnn_child.run_graph(GRAPH, {"input": IMAGE}, ["out"])["out"].shape == (3, 4, 2)
