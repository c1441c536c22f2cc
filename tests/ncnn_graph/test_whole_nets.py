"""Whole detectors, from the checkpoint to detections in the real ncnn."""

import dataclasses

import builders
import numpy as np
import pytest
import torch
import zoo
from onnx_text import onnx_outputs, run_ncnn, type_counts

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import Backbone, Tap, TapPlace
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, tail_options
from mbv3ssd_deploy.ncnn_graph.edit import insert_splits
from mbv3ssd_deploy.ncnn_graph.fuse.passes import fuse_graph
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_body
from mbv3ssd_deploy.ncnn_graph.ssd_tail import attach_ssd_tail
from mbv3ssd_deploy.nets import layouts
from mbv3ssd_deploy.onnx_body.export import export_body
from mbv3ssd_deploy.onnx_body.simplify import simplify_body

TAIL = ("mbox_loc", "mbox_conf", "mbox_priorbox", "detection_out")
# Everything that is worth a layer has one, and nothing else has.
NEEDED = {
    "Convolution",
    "ConvolutionDepthWise",
    "InnerProduct",
    "Pooling",
    "BinaryOp",
    "Permute",
    "Flatten",
    "Reshape",
    "Concat",
    "Softmax",
    "DetectionOutput",
}
PRIORS = {"PriorBox", "MemoryData"}


def graph_with_tail(body):
    options = tail_options(body.spec, NcnnRequest())
    return attach_ssd_tail(fuse_graph(lower_body(body)), body.spec, options)[0]


def assert_ncnn_agrees(body, x, graph, *, atol=1e-3):
    expected = onnx_outputs(body.model, x)
    out = run_ncnn(graph, x, TAIL)
    priors = corners_from_centre(build_priors(body.spec.priors))

    np.testing.assert_allclose(out["mbox_loc"], expected["loc"][0], atol=atol)
    np.testing.assert_allclose(out["mbox_conf"], expected["conf"][0], atol=atol)
    np.testing.assert_allclose(out["mbox_priorbox"][0].reshape(-1, 4), priors, atol=1e-6)
    assert len(out["detection_out"]) > 0


@pytest.mark.parametrize("backbone", list(Backbone))
def test_native(backbone):
    spec = builders.tiny_spec(5, (320, 320), backbone=backbone, width_mult=1.0)
    body = export_body(builders.tiny_net(spec=spec), spec)
    graph = graph_with_tail(body)

    assert set(type_counts(graph)) == NEEDED | {"PriorBox"}
    # seeded weights drive activations of the large net into the thousands: ONNX Runtime itself is
    # then 0.02 away from float64, ncnn 0.003; logits reach 20
    assert_ncnn_agrees(body, builders.tiny_input(spec), graph, atol=0.05)


EXPANSION, OUTPUT = TapPlace.EXPANSION, TapPlace.OUTPUT
# taps, and the layers that only this wiring needs (+) or has no use for (-)
LAYOUTS = {
    "tongyu_small": (((9, EXPANSION), (13, OUTPUT)), {"+BatchNorm", "+HardSwish"}),
    "tongyu_large": (((14, EXPANSION), (17, TapPlace.BEFORE_ACTIVATION)), {"+HardSwish"}),
    "jungin500": (((8, OUTPUT), (12, OUTPUT)), {"+BatchNorm"}),
    "lufficc": (((12, OUTPUT), (16, OUTPUT)), {"+ReLU", "+HardSwish"}),
    "ujsyehao": (((14, EXPANSION), (16, OUTPUT)), {"-Pooling", "-InnerProduct"}),
    "ujsyehao_plain": (((14, EXPANSION), (16, OUTPUT)), {"-Pooling", "-InnerProduct"}),
    "mmdet": (((12, OUTPUT), (16, OUTPUT)), set()),
    "mmdet_early_l2norm": (((12, OUTPUT), (15, OUTPUT)), {"+Normalize", "+MemoryData"}),
    "compact": (
        ((14, EXPANSION), (16, OUTPUT)),
        {"-Pooling", "-InnerProduct", "+Normalize", "+MemoryData"},
    ),
}


@torch.no_grad()
def calmed(net, spec):
    """`net` with BatchNorm statistics measured on a batch: no wiring drives values up any more."""
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.train()(torch.from_numpy(builders.tiny_input(spec, batch=8)))
    for norm in norms:  # a channel that slept may wake up on another image
        norm.running_var.clamp_(min=0.1)
    return net.eval()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name):
    taps, differs = LAYOUTS[name]
    base = builders.tiny_spec()
    layout = next(layout for layout in layouts.LAYOUTS if layout.name == name)
    arch = dataclasses.replace(
        base.arch,
        layout=name,
        backbone=next(backbone for backbone, _ in layout.tables),
        taps=tuple(Tap(*tap) for tap in taps),
    )
    spec = dataclasses.replace(base, arch=arch)
    body = export_body(calmed(builders.tiny_net(spec=spec), spec), spec)
    graph = graph_with_tail(body)

    needed = NEEDED | {kind[1:] for kind in differs if kind[0] == "+"}
    needed -= {kind[1:] for kind in differs if kind[0] == "-"}
    assert set(type_counts(graph)) == needed | {"PriorBox"}
    assert_ncnn_agrees(body, builders.tiny_input(spec), graph)


@pytest.mark.parametrize("opset", [11, 18])
def test_after_the_simplifier(opset):
    spec = builders.tiny_spec()
    x = builders.tiny_input(spec)
    raw = export_body(builders.tiny_net(spec=spec), spec, opset=opset)
    body, report = simplify_body(raw, x, run=run_onnx)
    graph = graph_with_tail(body)

    assert report.applied, report.reason
    assert type_counts(graph) == type_counts(graph_with_tail(raw))
    assert_ncnn_agrees(body, x, graph)


def run_onnx(data, batch):
    import onnx

    return onnx_outputs(onnx.load_model_from_string(data), batch)


# layers of the finished file, Splits and tail counted
FIGURES = {
    "torchvision_coco": 183,
    "torchvision_small": 168,
    "qfgaohao_large": 185,
    "qfgaohao_small": 170,
    "ujsyehao_released": 175,
}


# three for every run, the others where there is time
ZOO = [*list(FIGURES)[:3], *(pytest.param(f, marks=pytest.mark.slow) for f in list(FIGURES)[3:])]


@zoo.needs_zoo
@pytest.mark.parametrize("folder", ZOO)
def test_the_zoo(folder, tmp_path):
    torch.save(zoo.state_dict(folder), tmp_path / "model.pth")
    detector = load_detector(tmp_path / "model.pth")
    body = export_body(detector.net, detector.spec)
    graph = graph_with_tail(body)

    assert set(type_counts(graph)) <= NEEDED | PRIORS
    assert len(insert_splits(graph).layers) <= FIGURES[folder]
    assert_ncnn_agrees(body, np.float32(zoo.synthetic_input(folder)[:1]), graph)
