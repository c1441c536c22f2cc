"""The tail in the real ncnn: priors read back, detections against the mirror, raw heads."""

import dataclasses

import builders
import numpy as np
import pytest
from onnx_text import onnx_outputs, run_ncnn, type_counts
from reference_specs import qfgaohao_spec, torchvision_spec

from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import BoxCoder
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.check import check_graph
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_detection_output
from mbv3ssd_deploy.ncnn_graph.edit import insert_splits
from mbv3ssd_deploy.ncnn_graph.fuse.passes import fuse_graph
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer, param_of
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_body
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param, render_param
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
from mbv3ssd_deploy.ncnn_graph.ssd_tail import (
    Outputs,
    TailOptions,
    attach_raw_heads,
    attach_ssd_tail,
    find_head_levels,
)
from mbv3ssd_deploy.ncnn_graph.weight_bin import parse_bin, render_bin
from mbv3ssd_deploy.onnx_body.export import export_body

OPTIONS = TailOptions(PriorMode.AUTO, 0.2, 0.5, nms_top_k=50, keep_top_k=80)
TAIL = ("mbox_loc", "mbox_conf", "mbox_conf_softmax", "mbox_priorbox", "detection_out")
TINY = builders.tiny_spec()


@pytest.fixture(scope="module")
def body():
    return export_body(builders.tiny_net(spec=TINY), TINY)


@pytest.fixture(scope="module")
def graph(body):
    return fuse_graph(lower_body(body))


def bare_body(spec):
    """Heads without a backbone: each level's map is pooled from the input, head weights are 0."""
    layers = [build_layer("Input", "input", (), ("input",), {"w": 320, "h": 320, "c": 3})]
    parts = {"loc": [], "conf": []}
    for index, level in enumerate(spec.priors.levels):
        sizes = {"adaptive_pooling": 1, "out_w": level.cols, "out_h": level.rows}
        layers.append(build_layer("Pooling", f"map_{index}", ("input",), (f"map_{index}",), sizes))
        for name, values in (("loc", 4), ("conf", spec.num_classes)):
            layers += bare_head(f"{name}{index}", f"map_{index}", level, values)
            parts[name].append(f"{name}{index}")
    layers += [build_layer("Concat", name, tuple(blobs), (name,)) for name, blobs in parts.items()]
    return NcnnGraph(tuple(layers))


def bare_head(name, source, level, values):
    channels = level.boxes_per_cell * values
    params = {"num_output": channels, "kernel_w": 1, "weight_data_size": 3 * channels}
    weights = (Weight("weight", np.zeros((channels, 3), np.float32)),)
    return (
        build_layer("Convolution", name, (source,), (f"{name}_map",), params, weights=weights),
        build_layer("Permute", f"{name}_p", (f"{name}_map",), (f"{name}_p",), {"order_type": 3}),
        build_layer(
            "Reshape", f"{name}_r", (f"{name}_p",), (name,), {"w": values, "h": level.count}
        ),
    )


SPECS = {
    "native": builders.tiny_spec(3, (320, 320)),
    "native, not square": builders.tiny_spec(3, (224, 416)),
    "qfgaohao": qfgaohao_spec(3),
    "torchvision": torchvision_spec(3),
}


@pytest.mark.parametrize("case", SPECS)
@pytest.mark.parametrize("mode", [PriorMode.AUTO, PriorMode.CONSTANT])
def test_the_priors_that_ncnn_computes_are_the_spec_s(case, mode):
    spec = SPECS[case]
    options = dataclasses.replace(OPTIONS, priors=mode)
    whole, plan = attach_ssd_tail(bare_body(spec), spec, options)
    blob = run_ncnn(whole, np.zeros((1, 3, 320, 320), np.float32), ["mbox_priorbox"])
    corners, variances = blob["mbox_priorbox"].reshape(2, -1, 4)
    truth = corners_from_centre(build_priors(spec.priors))

    np.testing.assert_allclose(corners, truth, atol=3e-7, rtol=0)
    np.testing.assert_allclose(variances, np.float32(spec.coder.variances) + 0 * truth)
    assert type_counts(whole)["PriorBox"] == sum(p.layer == "PriorBox" for p in plan.levels)
    assert type_counts(whole)["MemoryData"] == {
        ("auto", "native"): 0,
        ("auto", "native, not square"): 0,
        ("auto", "qfgaohao"): 2,
    }.get((mode, case), 1)


def test_layer_mode_refuses_before_anything_is_built():
    with pytest.raises(SpecError, match="level 4"):
        attach_ssd_tail(
            bare_body(qfgaohao_spec()),
            qfgaohao_spec(),
            dataclasses.replace(OPTIONS, priors=PriorMode.LAYER),
        )


def test_the_heads_are_onnx_s_and_the_detections_are_the_mirror_s(body, graph):
    x = builders.tiny_input(TINY)
    expected = onnx_outputs(body.model, x)
    whole, _ = attach_ssd_tail(graph, TINY, OPTIONS)
    out = run_ncnn(whole, x, TAIL)
    corners, variances = out["mbox_priorbox"].reshape(2, -1, 4)
    mirror = detections_from_detection_output(
        out["mbox_loc"],
        out["mbox_conf_softmax"],
        corners,
        variances,
        nms_threshold=OPTIONS.iou_threshold,
        nms_top_k=OPTIONS.nms_top_k,
        keep_top_k=OPTIONS.keep_top_k,
        confidence_threshold=OPTIONS.score_threshold,
    )

    np.testing.assert_allclose(out["mbox_loc"], expected["loc"][0], atol=1e-4)
    np.testing.assert_allclose(out["mbox_conf"], expected["conf"][0], atol=1e-4)
    np.testing.assert_allclose(out["mbox_conf_softmax"].sum(axis=1), 1, atol=1e-5)
    assert len(mirror) == len(out["detection_out"]) > 10
    np.testing.assert_array_equal(out["detection_out"][:, 0], mirror.labels)
    np.testing.assert_allclose(out["detection_out"][:, 1], mirror.scores, atol=1e-6)
    np.testing.assert_allclose(out["detection_out"][:, 2:], mirror.boxes, atol=1e-5)


def test_no_detections_are_an_empty_blob(graph):
    whole, _ = attach_ssd_tail(graph, TINY, dataclasses.replace(OPTIONS, score_threshold=1.0))

    assert run_ncnn(whole, builders.tiny_input(TINY), ["detection_out"]) == {"detection_out": None}


def test_the_tail_says_everything_explicitly(graph):
    spec = dataclasses.replace(TINY, coder=BoxCoder(0.125, 0.25))
    whole, _ = attach_ssd_tail(graph, spec, OPTIONS)
    last = whole.layers[-1]
    softmax = next(layer for layer in whole.layers if layer.type == "Softmax")
    concat = next(layer for layer in whole.layers if layer.name == "mbox_priorbox")
    prior = next(layer for layer in whole.layers if layer.type == "PriorBox")

    assert last.inputs == ("mbox_loc", "mbox_conf_softmax", "mbox_priorbox")
    assert param_of(last, "num_class") == 3
    assert (param_of(last, "nms_top_k"), param_of(last, "keep_top_k")) == (50, 80)
    assert param_of(last, "nms_threshold") == 0.5
    assert param_of(last, "confidence_threshold") == np.float32(0.2)
    assert [param_of(last, f"variances_{i}") for i in range(4)] == [0.125, 0.125, 0.25, 0.25]
    assert (param_of(softmax, "axis"), param_of(softmax, "fixbug0")) == (1, 1)
    assert param_of(concat, "axis") == 1
    assert (param_of(prior, "offset"), param_of(prior, "image_width")) == (0.5, 320)


def test_priors_hang_on_the_maps_that_the_heads_read(graph):
    levels = find_head_levels(graph)
    makers = {blob: layer for layer in graph.layers for blob in layer.outputs}
    first = {level.feature_map for level in levels}

    # not on the heads' own convolutions: a Split of theirs would be needed
    assert first.isdisjoint({blob for level in levels for blob in (level.loc, level.conf)})
    assert {makers[blob].type for blob in first} == {"Convolution"}


def test_what_we_write_we_read(graph):
    whole, _ = attach_ssd_tail(graph, TINY, OPTIONS)
    final = insert_splits(whole)
    check_graph(final)
    text, data = render_param(final), render_bin(final)

    assert parse_bin(parse_param(text), data) == final


def test_raw_heads_in_one_piece(body, graph):
    x = builders.tiny_input(TINY)
    expected = onnx_outputs(body.model, x)
    out = run_ncnn(attach_raw_heads(graph, Outputs.CONCAT), x, ["loc", "conf"])

    np.testing.assert_allclose(out["loc"], expected["loc"][0], atol=1e-4)
    np.testing.assert_allclose(out["conf"], expected["conf"][0], atol=1e-4)


def test_raw_heads_level_by_level(body, graph):
    x = builders.tiny_input(TINY)
    expected = onnx_outputs(body.model, x)
    raw = attach_raw_heads(graph, Outputs.LEVELS)
    names = [f"{name}_{i}" for name in ("loc", "conf") for i in range(6)]
    out = run_ncnn(raw, x, names)

    assert not {"Permute", "Reshape", "Concat"} & set(type_counts(raw))
    for name, values in (("loc", 4), ("conf", 3)):
        maps = [out[f"{name}_{i}"] for i in range(6)]
        rows = [m.transpose(1, 2, 0).reshape(-1, values) for m in maps]
        np.testing.assert_allclose(np.concatenate(rows), expected[name][0], atol=1e-4)
        assert [m.shape[1:] for m in maps] == [(lv.rows, lv.cols) for lv in TINY.priors.levels]


def test_raw_heads_that_are_none_are_a_programmer_s_error(graph):
    with pytest.raises(ValueError, match="DETECTIONS"):
        attach_raw_heads(graph, Outputs.DETECTIONS)


def test_a_spec_with_other_priors_is_refused(graph):
    other = builders.tiny_spec(5, (128, 96))

    with pytest.raises(SpecError, match="level 0"):
        attach_ssd_tail(graph, other, OPTIONS)


def test_heads_of_another_build_are_refused():
    layers = (
        build_layer("Input", "input", (), ("input",), {"w": 4, "h": 9}),
        build_layer("ReLU", "a", ("input",), ("loc",)),
        build_layer("Sigmoid", "b", ("input",), ("conf",)),
    )

    with pytest.raises(SpecError, match="ends in ReLU"):
        attach_ssd_tail(NcnnGraph(layers), TINY, OPTIONS)


def test_a_single_level_needs_no_concat():
    level = builders.tiny_spec().priors.levels[0]
    priors = dataclasses.replace(TINY.priors, levels=(level,))
    spec = dataclasses.replace(TINY, priors=priors)
    layers = [build_layer("Input", "input", (), ("input",), {"w": 96, "h": 96, "c": 3})]
    sizes = {"adaptive_pooling": 1, "out_w": level.cols, "out_h": level.rows}
    layers.append(build_layer("Pooling", "map", ("input",), ("map",), sizes))
    layers += [*bare_head("loc", "map", level, 4), *bare_head("conf", "map", level, 3)]
    whole, _ = attach_ssd_tail(NcnnGraph(tuple(layers)), spec, OPTIONS)
    out = run_ncnn(whole, np.zeros((1, 3, 96, 96), np.float32), TAIL)

    assert "Concat" not in type_counts(whole)
    assert out["mbox_priorbox"].shape == (2, 4 * level.count)
