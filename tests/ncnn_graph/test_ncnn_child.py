"""The child really runs ncnn, and a network that crashes is a failed assertion, not our end."""

import ncnn_child
import numpy as np
import pytest

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.layers import build_layer


def test_a_network_runs():
    graph = NcnnGraph(
        (
            build_layer("Input", "input", (), ("input",)),
            build_layer("Permute", "p", ("input",), ("out",), {"order_type": 3}),
        )
    )
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    out = ncnn_child.run_graph(graph, {"input": image}, ["out"])["out"]

    np.testing.assert_array_equal(out, image.transpose(1, 2, 0))


def test_a_network_that_ncnn_refuses_fails_the_test():
    with pytest.raises(AssertionError, match="load_param failed"):
        ncnn_child.run_files("7767517\n1 1\nNoSuchLayer a 0 1 a\n", b"", {}, [])
