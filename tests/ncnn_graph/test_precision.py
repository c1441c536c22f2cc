"""Masks: on exactly the layers that a 16-bit mode would make wrong, and on no other."""

import builders
import pytest

from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, build_ncnn
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.layers import build_layer, param_of
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param
from mbv3ssd_deploy.ncnn_graph.precision import (
    PrecisionMasks,
    fp16_unsafe_layers,
    masked_and_unmasked,
    with_precision_masks,
)
from mbv3ssd_deploy.onnx_body.export import export_body


def graph_of(width, **params):
    """One depthwise convolution on a map of 10 rows and `width` columns, 0 for an open width."""
    kind = {"num_output": 8, "group": 8, "kernel_w": 3, "stride_w": 2, "pad_left": 1}
    kind |= {"weight_data_size": 72} | params
    sizes = {"w": width, "h": 10, "c": 8} if width else {}
    return NcnnGraph(
        (
            build_layer("Input", "input", (), ("x",), sizes),
            build_layer("ConvolutionDepthWise", "conv", ("x",), ("y",), kind),
        )
    )


# 300 / 2 = 150, 75, 38, 19, 10: what the widths of the families' maps leave over 4
WIDTHS = {150: 3, 300: 2, 75: 2, 38: 3, 19: 2, 10: 1, 20: 2, 40: 0, 80: 0, 160: 0, 320: 0, 0: 2}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_mask_follows_the_width(width):
    graph = with_precision_masks(graph_of(width), PrecisionMasks())

    masked = WIDTHS[width] in (2, 3)
    assert fp16_unsafe_layers(graph) == ({"conv"} if masked else set())
    assert param_of(graph.layers[1], "featmask") == int(masked)


OTHERS = {
    "stride 1": {"stride_w": 1},
    "stride 2 one way": {"stride_h": 1},
    "5x5": {"kernel_w": 5, "weight_data_size": 200},
    "dilated": {"dilation_w": 2},
    "groups of two": {"group": 4, "weight_data_size": 144},
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_kernels_are_left_alone(case):
    for width in range(20, 28):
        assert not fp16_unsafe_layers(graph_of(width, **OTHERS[case]))


def test_a_mask_that_is_not_needed_goes_and_a_graph_without_is_the_same():
    graph = graph_of(40, featmask=1)

    assert "featmask" not in with_precision_masks(graph, PrecisionMasks()).layers[1].params
    assert with_precision_masks(graph_of(40), PrecisionMasks()) == graph_of(40)


def test_layers_of_foreign_graphs_are_masked_or_unmasked():
    assert masked_and_unmasked(graph_of(75, featmask=3)) == (("conv",), ())
    assert masked_and_unmasked(graph_of(75, featmask=2)) == ((), ("conv",))
    assert masked_and_unmasked(graph_of(40)) == ((), ())


@pytest.fixture(scope="module")
def body():
    spec = builders.tiny_spec(image_size=(96, 96))
    return export_body(builders.tiny_net(spec=spec), spec)


# which modes are masked -> the mask of the priors' Concat
MODES = {
    (True, True): 6,
    (True, False): 2,
    (False, True): 4,
    (False, False): 0,
}


@pytest.mark.parametrize(("fp16", "bf16"), MODES)
def test_a_whole_file_has_the_masks_that_were_asked_for(body, fp16, bf16):
    model = build_ncnn(body, NcnnRequest(guards=PrecisionMasks(fp16=fp16, bf16=bf16)))
    graph = parse_param(model.param.decode())
    masks = {layer.name: param_of(layer, "featmask") for layer in graph.layers}

    assert fp16_unsafe_layers(graph)
    assert masks.pop("mbox_priorbox") == MODES[fp16, bf16]
    expected = fp16_unsafe_layers(graph) if fp16 else set()
    assert {name for name, mask in masks.items() if mask} == expected
