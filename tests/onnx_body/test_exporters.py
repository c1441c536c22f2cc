"""PyTorch's two exporters: one network, whoever wrote it down, and OpenCV reads both."""

import importlib.util

import builders
import cv2
import numpy as np
import pytest
from onnx_text import onnx_outputs

from mbv3ssd_deploy.errors import ExportError
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.onnx_body.body import bytes_from_body
from mbv3ssd_deploy.onnx_body.export import ExporterChoice, export_body
from mbv3ssd_deploy.onnx_body.simplify import op_counts, simplify_body
from mbv3ssd_deploy.pipeline import _run_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # onnxscript's own, at its import
]
SPEC = builders.tiny_spec()
CHOICES = (ExporterChoice.TORCHSCRIPT, ExporterChoice.DYNAMO)


@pytest.fixture(scope="module")
def raw():
    net = builders.tiny_net(spec=SPEC)
    return {choice: export_body(net, SPEC, exporter=choice) for choice in CHOICES}


@pytest.fixture(scope="module")
def simplified(raw):
    x = builders.tiny_input(SPEC)
    found = {choice: simplify_body(body, x, run=_run_onnx) for choice, body in raw.items()}
    assert all(report.applied for _, report in found.values())
    return {choice: body for choice, (body, _) in found.items()}


def wiring(graph):
    """Types, parameters, and blobs as numbers in the order in which they are made."""
    number = {}
    rows = []
    for layer in graph.layers:
        inputs = [number[blob] for blob in layer.inputs]
        number |= {blob: len(number) + i for i, blob in enumerate(layer.outputs)}
        rows.append((layer.type, inputs, [number[b] for b in layer.outputs], dict(layer.params)))
    return rows


@pytest.mark.parametrize("stage", ["raw", "simplified"])
def test_both_give_the_same_network_layer_for_layer(stage, request):
    bodies = request.getfixturevalue(stage)
    wanted = NcnnRequest(storage=Storage.FLOAT32)
    older, newer = (build_ncnn(bodies[choice], wanted).graph for choice in CHOICES)

    assert wiring(newer) == wiring(older)
    for left, right in zip(older.layers, newer.layers, strict=True):
        for old, new in zip(left.weights, right.weights, strict=True):
            # each exporter folds BatchNorm in an arithmetic of its own
            scale = np.abs(old.data).max()
            np.testing.assert_allclose(new.data, old.data, rtol=0, atol=1e-6 * scale)


def test_both_write_the_same_operators(simplified):
    older, newer = (dict(op_counts(simplified[choice])) for choice in CHOICES)
    older.pop("Constant", None)

    assert newer == older
    assert "ReduceMean" not in newer


def test_each_has_the_opset_that_it_is_best_asked_for(raw):
    assert [raw[choice].opset for choice in CHOICES] == [17, 18]
    assert [raw[choice].exporter for choice in CHOICES] == ["TorchScript", "dynamo"]


def test_the_newer_names_nodes_after_modules_and_adds_nothing_else(raw):
    body = raw[ExporterChoice.DYNAMO]
    names = [node.name for node in body.model.graph.node]
    items = (body.model, body.model.graph, *body.model.graph.node, *body.model.graph.initializer)

    assert len(set(names)) == len(names)
    assert all(name.startswith(("/backbone.", "/head.")) for name in names)
    assert "/backbone.features.0.0.0/Conv" in names
    assert all(item.doc_string == "" for item in items)
    assert all(len(item.metadata_props) == 0 for item in items[1:])
    assert b".py" not in bytes_from_body(body)


@pytest.mark.parametrize("choice", CHOICES)
def test_opencv_reads_the_body_and_gives_its_numbers(choice, simplified, tmp_path):
    body = simplified[choice]
    path = tmp_path / "body.onnx"
    path.write_bytes(bytes_from_body(body))
    x = builders.tiny_input(SPEC)
    net = cv2.dnn.readNetFromONNX(str(path))  # the default engine; the classic one computes wrongly

    net.setInput(x)
    found = dict(zip(("loc", "conf"), net.forward(["loc", "conf"]), strict=True))

    for name, expected in onnx_outputs(body.model, x).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4)


def test_the_newer_is_refused_what_it_cannot_do():
    with pytest.raises(ExportError, match=r"opset 17 cannot be honoured.* 18 to 20"):
        export_body(builders.tiny_net(spec=SPEC), SPEC, opset=17, exporter=ExporterChoice.DYNAMO)
