"""The passes together: what each returns when there is nothing to do, dead layers, whole nets."""

import builders
import numpy as np
import pytest
from onnx_text import assert_lowers, fused, lowered, onnx_model, run_ncnn, type_counts, types

from mbv3ssd_deploy.ncnn_graph.fuse.passes import PASSES, fuse_graph
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_body, lower_model
from mbv3ssd_deploy.onnx_body.export import export_body

TEXT = (
    "g (float[1,4,5,6] x) => (float[1,6,5,6] y) "
    "{ a = Conv(x, w) n = Add(a, three) c = Clip(n, zero, six) m = Mul(a, c) y = Div(m, six) }"
)
WEIGHTS = {
    "w": (6, 4, 1, 1),
    "three": np.float32(3),
    "zero": np.float32(0),
    "six": np.float32(6),
}


@pytest.fixture(scope="module")
def body():
    spec = builders.tiny_spec()
    return export_body(builders.tiny_net(spec=spec), spec)


def test_the_order_of_passes_makes_one_layer_of_six():
    assert types(fused(onnx_model(TEXT, WEIGHTS))) == ["Convolution"]


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda rewrite: rewrite.__name__)
def test_a_pass_with_nothing_to_do_returns_the_very_graph(rewrite, body):
    graph = fuse_graph(lower_body(body))

    assert rewrite(graph, frozenset({"loc", "conf"})) is graph


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda rewrite: rewrite.__name__)
def test_every_pass_is_idempotent(rewrite, body):
    once = rewrite(lower_body(body), frozenset({"loc", "conf"}))

    assert rewrite(once, frozenset({"loc", "conf"})) is once


def test_dead_layers_go():
    text = (
        "g (float[1,5] x) => (float[1,5] y, float[1,5] z) "
        "{ y = Relu(x) a = Sigmoid(x) z = HardSwish(a) }"
    )
    graph = fuse_graph(lowered(onnx_model(text)), ["y"])

    assert types(graph) == ["ReLU"]


def test_chains_of_reshapes_are_cut_short():
    text = (
        "g (float[1,4,5,6] x) => (float[1,30,4] y) "
        "{ a = Reshape(x, s) b = Flatten(a) y = Reshape(b, t) }"
    )
    model = onnx_model(text, {"s": np.array([1, 20, 6]), "t": np.array([1, 30, 4])})
    graph = fused(model)

    assert types(graph) == ["Reshape"]
    assert_lowers(model, graph)


def test_a_missing_output_is_a_programmer_s_error():
    with pytest.raises(ValueError, match="no blob loc"):
        fuse_graph(lowered(onnx_model(TEXT, WEIGHTS)), ["y", "loc"])


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_a_net_has_no_more_than_it_needs(opset):
    spec = builders.tiny_spec()
    graph = fuse_graph(lower_body(export_body(builders.tiny_net(spec=spec), spec, opset=opset)))
    counts = type_counts(graph)

    # the last level has one cell, and needs no Permute
    assert counts["Permute"] <= 12
    assert counts["Flatten"] == 12
    assert counts["Reshape"] == 2
    assert not {"MemoryData", "BatchNorm", "Clip", "ReLU"} & set(counts)
    assert not {"HardSwish", "HardSigmoid"} & set(counts)


def test_surviving_blobs_hold_the_same_numbers(body):
    bare, blob_of = lower_model(body.model, {"loc": "loc", "conf": "conf"})
    graph = fuse_graph(bare)
    made = {blob for layer in graph.layers for blob in layer.outputs}
    blobs = sorted(set(blob_of.values()) & made)
    x = builders.tiny_input(body.spec)
    before, after = run_ncnn(bare, x, blobs), run_ncnn(graph, x, blobs)

    assert len(blobs) > 100
    for blob in blobs:
        scale = np.abs(before[blob]).max()
        np.testing.assert_allclose(
            after[blob].ravel(), before[blob].ravel(), atol=1e-5 * max(1, scale), err_msg=blob
        )
