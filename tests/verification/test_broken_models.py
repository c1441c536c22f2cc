"""Models made wrong on purpose: each must fail, and for its own reason.

The good one passes. Whatever is broken here is broken in the deployed files only; the checkpoint
stays as it is.
"""

import re
from dataclasses import replace

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from bundle_folder import edit_layers, with_contract

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.core.spec import ChannelOrder
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Weight
from mbv3ssd_deploy.ncnn_graph.param_text import render_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import read_ncnn
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.verification.ncnn_files import read_files
from mbv3ssd_deploy.verification.report import Status, Verdict
from mbv3ssd_deploy.verification.rules import Check, Code

CLASSES = 4
DIAGNOSES = {
    Code.HEAD_TRANSPOSED,
    Code.CLASSES_EXCHANGED,
    Code.CHANNELS_REVERSED,
    Code.SCORES_NOT_SOFTMAX,
    Code.NOT_FINITE,
    Code.PRIORS_DIFFER,
    Code.THRESHOLDS,
    Code.CHANNEL_ORDER,
    Code.MODEL_UNREADABLE,
    Code.OUTPUT_MISSING,
}


def codes(report, check=None):
    rows = [row for row in report.rows if check in (None, row.check)]
    return {reason.code for row in rows for reason in row.reasons}


def failed(report):
    assert (report.verdict, report.exit_code) == (Verdict.FAIL, 1)
    return {row.check for row in report.rows if row.status is Status.FAIL}


def only_diagnosis(report, code):
    """The report names this mistake and none of the others."""
    assert codes(report) & DIAGNOSES == {code}, [str(reason) for reason in report.reasons]
    return True


def changed_weight(layer, role, change):
    weights = tuple(
        Weight(w.role, change(w.data.copy()), w.storage) if w.role == role else w
        for w in layer.weights
    )
    return replace(layer, weights=weights)


def test_the_good_bundle_passes(bundle_folder):
    report = bundle_folder.verify(bundle_folder.good())

    assert (report.verdict, report.exit_code, report.reasons) == (Verdict.PASS, 0, ())
    ran = {row.check for row in report.rows if row.status is Status.PASS}
    assert ran == {
        Check.CONTRACT,
        Check.ONNX_CPU,
        Check.NCNN_WEIGHTS,
        Check.NCNN_PRIORS,
        Check.NCNN_EXACT,
        Check.NCNN_SHIPPED_FP16,
    }


def test_a_transposed_head(bundle_folder):
    bundle = bundle_folder.copy("transposed")

    def without_permute(layer):
        first = layer.type == "Permute" and layer.name == "head/regression_head/Transpose"
        return replace(layer, params={"order_type": 0}) if first else layer

    edit_layers(bundle, without_permute)
    report = bundle_folder.verify(bundle)

    assert failed(report) == {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert only_diagnosis(report, Code.HEAD_TRANSPOSED)
    assert any("loc of level 0" in reason.text for reason in report.reasons)


def test_two_classes_exchanged(bundle_folder):
    bundle = bundle_folder.copy("exchanged")
    order = [0, 3, 2, 1]

    def exchange(values):
        rows = values.reshape(-1, CLASSES, values.size // 24)
        return np.ascontiguousarray(rows[:, order]).reshape(values.shape)

    def exchanged(layer):
        is_head = layer.type == "Convolution" and "classification_head" in layer.name
        if not is_head:
            return layer
        return changed_weight(changed_weight(layer, "weight", exchange), "bias", exchange)

    edit_layers(bundle, exchanged)
    report = bundle_folder.verify(bundle)

    assert failed(report) == {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert only_diagnosis(report, Code.CLASSES_EXCHANGED)
    text = " ".join(reason.text for reason in report.reasons)
    assert "scores of 'class_3' are in the place of 'class_1'" in text


def test_two_classes_exchanged_in_the_onnx_file(bundle_folder):
    bundle = bundle_folder.copy("exchanged-onnx")
    model = onnx.load(bundle.body_path)
    order = [0, 2, 1, 3]
    for tensor in model.graph.initializer:
        if "classification_head" in tensor.name and tensor.dims[0] == 24:
            values = onnx.numpy_helper.to_array(tensor)
            rows = values.reshape(-1, CLASSES, *values.shape[1:])[:, order]
            fresh = onnx.numpy_helper.from_array(rows.reshape(values.shape), tensor.name)
            tensor.CopyFrom(fresh)
    onnx.save(model, bundle.body_path)

    report = bundle_folder.verify(bundle)

    # without a counterpart the ncnn weights stay as shipped, in float16
    assert failed(report) == {Check.ONNX_CPU, Check.NCNN_WEIGHTS, Check.NCNN_EXACT}
    assert Code.CLASSES_EXCHANGED in codes(report, Check.ONNX_CPU)


def one_channel_up(values):
    if values.ndim == 1:
        values[9] += 0.01
    return values


def two_priors_of_a_cell_exchanged(values):
    return values.reshape(6, CLASSES, *values.shape[1:])[[0, 2, 1, 3, 4, 5]]


def one_layer_a_hundredth_too_strong(values):
    return values * (1.01 if values.ndim > 1 else 1)


@pytest.mark.parametrize(
    "mistake",
    [one_channel_up, two_priors_of_a_cell_exchanged, one_layer_a_hundredth_too_strong],
)
def test_a_head_of_the_onnx_file_that_is_a_little_wrong(bundle_folder, mistake):
    bundle = bundle_folder.copy("head-onnx")
    model = onnx.load(bundle.body_path)
    for tensor in model.graph.initializer:
        if "classification_head.module_list.0" in tensor.name and tensor.dims[0] == 24:
            values = onnx.numpy_helper.to_array(tensor).copy()
            wrong = mistake(values).reshape(values.shape).astype(values.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
    onnx.save(model, bundle.body_path)

    report = bundle_folder.verify(bundle, limit=1)

    assert Check.ONNX_CPU in failed(report)
    assert Code.HEADS_DIFFER in codes(report, Check.ONNX_CPU)


def test_one_prior_level_off(bundle_folder):
    bundle = bundle_folder.copy("priors")

    def shifted(layer):
        if layer.name != "mbox_priorbox_1":
            return layer
        return replace(layer, params=dict(layer.params) | {"offset": 0.45})

    edit_layers(bundle, shifted)
    report = bundle_folder.verify(bundle)

    assert only_diagnosis(report, Code.PRIORS_DIFFER)
    assert Check.NCNN_PRIORS in failed(report)
    (row,) = (row for row in report.rows if row.check is Check.NCNN_PRIORS)
    assert [level.wrong for level in row.priors.levels] == [0, 54, 0, 0, 0, 0]
    # the heads are right, and the boxes are not
    assert Code.BOXES_DIFFER in codes(report, Check.NCNN_EXACT)
    assert Code.HEADS_DIFFER not in codes(report)


def test_one_nan_weight(bundle_folder):
    bundle = bundle_folder.copy("nan")
    name = "head/classification_head/module_list.1/module_list.1.1/Conv"
    graph = read_ncnn(bundle.param_path, bundle.bin_path)
    (layer,) = (layer for layer in graph.layers if layer.name == name)
    halves = layer.weights[0].data.astype("<f2")
    stored = bundle.bin_path.read_bytes()
    assert stored.count(halves.tobytes()) == 1
    # our own writer refuses to write it
    poisoned = stored.replace(
        halves.tobytes(), np.append(halves[:-1], np.float16(np.nan)).tobytes()
    )
    bundle.bin_path.write_bytes(poisoned)

    report = bundle_folder.verify(bundle)

    assert failed(report) >= {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert codes(report, Check.NCNN_EXACT) & DIAGNOSES == {Code.NOT_FINITE}
    # the strict reader names the weight
    assert codes(report, Check.NCNN_WEIGHTS) == {Code.MODEL_UNREADABLE}
    assert any(f"{name!r}: weight has 1 numbers that are NaN" in r.text for r in report.reasons)


def test_a_network_made_for_bgr(bundle_folder):
    bundle = bundle_folder.copy("bgr")

    def reversed_input(layer):
        def reverse(values):
            channels = values.reshape(layer.params["num_output"], 3, -1)
            return np.ascontiguousarray(channels[:, ::-1]).reshape(values.shape)

        return changed_weight(layer, "weight", reverse) if "input" in layer.inputs else layer

    edit_layers(bundle, reversed_input)
    report = bundle_folder.verify(bundle)

    assert failed(report) == {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert only_diagnosis(report, Code.CHANNELS_REVERSED)


def test_a_contract_with_bgr(bundle_folder):
    bundle = bundle_folder.copy("bgr-contract")
    wrong = replace(bundle.spec.input, channel_order=ChannelOrder.BGR)

    report = bundle_folder.verify(with_contract(bundle, input=wrong))

    assert Check.CONTRACT in failed(report)
    assert codes(report, Check.CONTRACT) == {Code.CHANNEL_ORDER, Code.INPUT_TENSOR}
    first = report.reasons[0]
    assert first.text == (
        "contract: channel order is bgr in detector.json, rgb for this checkpoint"
    )
    # every runtime had the input of the contract
    for check in (Check.ONNX_CPU, Check.NCNN_EXACT):
        assert Code.CHANNELS_REVERSED in codes(report, check)


def test_a_contract_with_another_mean(bundle_folder):
    bundle = bundle_folder.copy("mean")
    wrong = replace(bundle.spec.input, mean=(123.675, 116.28, 103.53))

    report = bundle_folder.verify(with_contract(bundle, input=wrong))

    assert failed(report) >= {Check.CONTRACT, Check.ONNX_CPU, Check.NCNN_EXACT}
    assert codes(report, Check.CONTRACT) == {Code.NORMALISATION, Code.INPUT_TENSOR}


def test_a_contract_with_another_size_and_one_class_more(bundle_folder):
    bundle = bundle_folder.copy("size")
    wrong = replace(bundle.spec.input, height=128)
    names = (*bundle.spec.class_names, "unicorn")

    report = bundle_folder.verify(with_contract(bundle, input=wrong, class_names=names))

    assert failed(report) >= {Check.CONTRACT, Check.ONNX_CPU, Check.NCNN_EXACT}
    expected = {Code.INPUT_SIZE, Code.INPUT_TENSOR, Code.CLASS_NAMES, Code.THRESHOLDS}
    assert codes(report, Check.CONTRACT) == expected
    assert codes(report, Check.ONNX_CPU) == {Code.RUNTIME_FAILED}
    assert codes(report, Check.NCNN_EXACT) == {Code.OUTPUT_SHAPE}


def test_a_changed_threshold(bundle_folder):
    bundle = bundle_folder.copy("threshold")

    def stricter(layer):
        if layer.type != "DetectionOutput":
            return layer
        return replace(layer, params=dict(layer.params) | {"confidence_threshold": 0.4})

    edit_layers(bundle, stricter)
    report = bundle_folder.verify(bundle)

    assert Check.CONTRACT in failed(report)
    assert only_diagnosis(report, Code.THRESHOLDS)
    assert "confidence threshold is 0.4 in the .param file, 0.01" in report.reasons[0].text


def test_a_truncated_weight_file(bundle_folder):
    bundle = bundle_folder.copy("truncated")
    bundle.bin_path.write_bytes(bundle.bin_path.read_bytes()[:-400])

    report = bundle_folder.verify(bundle)

    assert failed(report) >= {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert only_diagnosis(report, Code.MODEL_UNREADABLE)
    assert any("the file ends at byte" in reason.text for reason in report.reasons)
    assert codes(report, Check.NCNN_EXACT) == {Code.RUNTIME_FAILED}


def test_a_truncated_onnx_file(bundle_folder):
    bundle = bundle_folder.copy("truncated-onnx")
    bundle.body_path.write_bytes(bundle.body_path.read_bytes()[:-4000])

    report = bundle_folder.verify(bundle)

    assert Check.ONNX_CPU in failed(report)
    assert codes(report, Check.ONNX_CPU) == {Code.MODEL_UNREADABLE}


@pytest.mark.parametrize("blob", ["detection_out", "mbox_conf_softmax"])
def test_a_missing_output(bundle_folder, blob):
    bundle = bundle_folder.copy("missing")
    gone = {"detection_out", blob}
    edit_layers(bundle, lambda layer: None if gone & set(layer.outputs) else layer)

    report = bundle_folder.verify(bundle)

    assert failed(report) == {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert only_diagnosis(report, Code.OUTPUT_MISSING)
    assert any(re.search(rf"the blob .*{blob}.* is missing", r.text) for r in report.reasons)


def test_a_weight_file_with_more_than_its_weights(bundle_folder):
    bundle = bundle_folder.copy("longer")
    bundle.bin_path.write_bytes(bundle.bin_path.read_bytes() + bytes(8))

    report = bundle_folder.verify(bundle)

    # ncnn would accept it
    assert Check.NCNN_WEIGHTS in failed(report)
    assert only_diagnosis(report, Code.MODEL_UNREADABLE)


def test_no_softmax(bundle_folder):
    bundle = bundle_folder.copy("logits")

    def without_softmax(layer):
        return replace(layer, type="Noop", params={}) if layer.type == "Softmax" else layer

    edit_layers(bundle, without_softmax)
    report = bundle_folder.verify(bundle)

    assert failed(report) == {Check.NCNN_WEIGHTS, Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16}
    assert only_diagnosis(report, Code.SCORES_NOT_SOFTMAX)


def test_a_graph_that_crashes_ncnn_is_a_row_not_a_crash(bundle_folder):
    bundle = bundle_folder.copy("crash")

    def negative_kernel(layer):
        first = "input" in layer.inputs
        return replace(layer, params=dict(layer.params) | {"stride_w": 0}) if first else layer

    edit_layers(bundle, negative_kernel)
    report = bundle_folder.verify(bundle)

    assert failed(report) >= {Check.NCNN_EXACT, Check.NCNN_SHIPPED_FP16, Check.NCNN_PRIORS}
    assert codes(report, Check.NCNN_EXACT) == {Code.RUNTIME_FAILED}


def only_first(matches, change):
    """An edit of the first layer that matches."""
    changed = []

    def edit(layer):
        if changed or not matches(layer):
            return layer
        changed.append(layer)
        return change(layer)

    return edit


def with_params(**params):
    """A change that sets parameters; None leaves one out."""

    def change(layer):
        merged = {key: v for key, v in (layer.params | params).items() if v is not None}
        return replace(layer, params=merged)

    return change


def is_masked_stride_2(layer):
    return layer.type == "ConvolutionDepthWise" and "featmask" in layer.params


LAYER_EDITS = {
    "an activation that clips too late": (
        only_first(
            lambda layer: layer.params.get("activation_type") == 3,
            with_params(activation_params=(0.0, 1000.0)),
        ),
        "is (0, 1000), not (0, 1)",
    ),
    "priors that may be rounded": (
        only_first(lambda layer: layer.name == "mbox_priorbox", with_params(featmask=None)),
        "featmask of Concat 'mbox_priorbox' is 0, not 6",
    ),
    "a mask that is gone": (
        only_first(is_masked_stride_2, with_params(featmask=None)),
        "is 0, not 1",
    ),
    "masks on all convolutions": (
        lambda layer: with_params(featmask=1)(layer) if "Conv" in layer.type else layer,
        "is 1, not 0 and ",
    ),
    "another input width": (
        only_first(lambda layer: layer.type == "Input", with_params(w=128)),
        "w of Input 'input' is 128, not 96",
    ),
    "another input height": (
        only_first(lambda layer: layer.type == "Input", with_params(h=64)),
        "h of Input 'input' is 64, not 96",
    ),
    "variances of width and centre exchanged": (
        only_first(
            lambda layer: layer.type == "DetectionOutput",
            with_params(variances_0=0.2, variances_1=0.2, variances_2=0.1, variances_3=0.1),
        ),
        "variances_0 of DetectionOutput 'detection_out' is 0.2",
    ),
}


@pytest.mark.parametrize("edit", LAYER_EDITS)
def test_a_layer_that_differs_from_body_onnx(bundle_folder, edit):
    bundle = bundle_folder.copy("layer")
    change, words = LAYER_EDITS[edit]
    edit_layers(bundle, change)
    record = bundle.manifest.ncnn

    (reason,) = read_files(bundle, record, read_body(bundle.body_path)).layout

    assert reason.code is Code.GRAPH_DIFFERS
    assert words in reason.text
    assert "run `mbv3ssd-deploy to-ncnn` again" in reason.text


def test_a_mistake_without_an_effect_on_images_fails_by_its_graph(bundle_folder):
    bundle = bundle_folder.copy("masks")
    edit_layers(bundle, with_params(featmask=None))

    report = bundle_folder.verify(bundle, limit=1)

    assert failed(report) == {Check.NCNN_WEIGHTS}
    assert codes(report) == {Code.GRAPH_DIFFERS}


def add_behind_detections(bundle, *layers):
    """Rewrite the ncnn files with `layers` leading from blob "raw_out" to "detection_out"."""
    graph = read_ncnn(bundle.param_path, bundle.bin_path)
    *body, last = graph.layers
    graph = NcnnGraph((*body, replace(last, outputs=("raw_out",)), *layers))
    bundle.param_path.write_text(render_param(graph))


def test_a_layer_too_many(bundle_folder):
    bundle = bundle_folder.copy("noop")
    add_behind_detections(bundle, NcnnLayer("Noop", "idle", ("raw_out",), ("detection_out",)))

    (reason,) = read_files(bundle, bundle.manifest.ncnn, read_body(bundle.body_path)).layout

    assert reason.code is Code.GRAPH_DIFFERS
    assert "is raw_out, not detection_out; Noop 'idle' is not in that graph" in reason.text


def test_halved_scores(bundle_folder):
    bundle = bundle_folder.copy("halved")
    parts = ("labels", "scores", "corners")
    half = {"op_type": 2, "with_scalar": 1, "b": 0.5}
    add_behind_detections(
        bundle,
        NcnnLayer("Slice", "cut", ("raw_out",), parts, {"slices": (1, 1, 4), "axis": 1}),
        NcnnLayer("BinaryOp", "halve", ("scores",), ("halves",), half),
        NcnnLayer(
            "Concat", "join", ("labels", "halves", "corners"), ("detection_out",), {"axis": 1}
        ),
    )

    report = bundle_folder.verify(bundle, limit=1)

    assert failed(report) >= {Check.NCNN_WEIGHTS, Check.NCNN_EXACT}
    assert Code.GRAPH_DIFFERS in codes(report, Check.NCNN_WEIGHTS)
    assert codes(report, Check.NCNN_EXACT) == {Code.SCORES_DIFFER}


def with_record(bundle, **changes):
    """The bundle with other fields in the ncnn record of detector.json."""
    record = replace(bundle.manifest.ncnn, **changes)
    return Bundle(bundle.directory, replace(bundle.manifest, ncnn=record))


@pytest.mark.parametrize("storage", ["float32", "int8", "half"])
def test_a_storage_that_is_not_the_files(bundle_folder, storage):
    bundle = with_record(bundle_folder.good(), storage=storage)

    report = bundle_folder.verify(bundle, limit=1)

    assert Check.NCNN_WEIGHTS in failed(report)
    assert codes(report, Check.NCNN_WEIGHTS) == {Code.RECORD_DIFFERS}


def test_a_carrier_of_priors_that_is_not_the_files(bundle_folder):
    levels = list(bundle_folder.good().manifest.ncnn.priors)
    levels[2] = replace(levels[2], layer="MemoryData")

    report = bundle_folder.verify(with_record(bundle_folder.good(), priors=tuple(levels)), limit=1)

    assert codes(report) == {Code.RECORD_DIFFERS}
    assert "level 2 is MemoryData in detector.json and PriorBox in the graph" in str(report.reasons)
