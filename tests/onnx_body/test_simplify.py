"""A simplifier that crashes, hangs, lies or breaks the model changes nothing; a good one helps."""

import sys
import textwrap

import cv2
import numpy as np
import onnx
import pytest
from builders import tiny_input, tiny_net, tiny_spec

from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.onnx_body.body import bytes_from_body
from mbv3ssd_deploy.onnx_body.export import export_body
from mbv3ssd_deploy.onnx_body.simplify import simplify_body
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel

SPEC = tiny_spec()
SAMPLE = tiny_input(SPEC)


@pytest.fixture(scope="module")
def body():
    return export_body(tiny_net(spec=SPEC), SPEC)


@pytest.fixture(scope="module")
def simplified(body):
    return simplify_body(body, SAMPLE, run_onnx)


def run_onnx(model, inputs):
    return OnnxModel(model, threads=1).run(inputs).tensors


def with_child(tmp_path, body, code, **options):
    """Simplify with a child of our own: `code` finds SOURCE and TARGET, and onnx."""
    script = tmp_path / "child.py"
    head = "import os, signal, sys, time\nimport onnx\nSOURCE, TARGET = sys.argv[1:]\n"
    script.write_text(head + textwrap.dedent(code))
    return simplify_body(body, SAMPLE, run_onnx, child=(sys.executable, str(script)), **options)


def assert_kept(outcome, body, reason):
    result, report = outcome
    assert result is body
    assert not report.applied
    assert reason in report.reason
    assert reason in report.outcome
    assert report.ops_after == report.ops_before
    assert report.bytes_after == report.bytes_before == len(bytes_from_body(body))


def test_it_simplifies(body, simplified):
    result, report = simplified

    assert report.applied
    assert report.reason == ""
    assert report.simplifier.startswith("onnxsim ")
    assert report.outcome == report.simplifier
    assert report.nodes_before == len(body.model.graph.node)
    assert report.nodes_after == len(result.model.graph.node) < report.nodes_before
    assert report.ops_before["Constant"] > report.ops_after.get("Constant", 0)
    assert report.ops_after["Conv"] == report.ops_before["Conv"]
    assert report.bytes_after == len(bytes_from_body(result)) < report.bytes_before
    assert report.worst_difference < 1e-4


def test_what_the_body_promises_still_holds(body, simplified):
    result, _ = simplified

    assert result.spec == body.spec
    assert result.input_shape == body.input_shape
    assert (result.opset, result.exporter) == (body.opset, body.exporter)
    assert result.model.metadata_props == body.model.metadata_props
    assert result.model.producer_name == "mbv3ssd-deploy"
    assert b"onnxsim" not in bytes_from_body(result)


def test_opencv_reads_it_and_agrees(simplified):
    data = bytes_from_body(simplified[0])
    expected = run_onnx(data, SAMPLE)

    net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    net.setInput(SAMPLE)
    outputs = dict(zip(("loc", "conf"), net.forward(["loc", "conf"]), strict=True))

    for name, tensor in outputs.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=1e-4)


def test_two_runs_in_two_folders_give_the_same_bytes(body, simplified, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONHASHSEED", "7")

    again, _ = simplify_body(body, SAMPLE, run_onnx)

    assert bytes_from_body(again) == bytes_from_body(simplified[0])


def test_a_batch_survives():
    spec = tiny_spec(num_classes=2)
    body = export_body(tiny_net(spec=spec), spec, batch=2)

    result, report = simplify_body(body, tiny_input(spec, batch=2), run_onnx)

    assert report.applied
    assert result.batch == 2


def test_a_crash_is_a_message(body, tmp_path):
    outcome = with_child(tmp_path, body, "os.kill(os.getpid(), signal.SIGSEGV)")

    assert_kept(outcome, body, "it died of SIGSEGV")
    assert outcome[1].worst_difference is None


def test_a_hang_is_a_message(body, tmp_path):
    outcome = with_child(tmp_path, body, "time.sleep(600)", timeout_s=0.5)

    assert_kept(outcome, body, "it was stopped after")


def test_an_exception_is_a_message(body, tmp_path):
    outcome = with_child(tmp_path, body, "raise RuntimeError('I do not know this op')")

    assert_kept(outcome, body, "exited with code 1: RuntimeError: I do not know this op")


def test_a_program_that_is_not_there_is_a_message(body, tmp_path):
    outcome = simplify_body(body, SAMPLE, run_onnx, child=(str(tmp_path / "nothing"),))

    assert_kept(outcome, body, "cannot be started")


@pytest.mark.parametrize(
    "code",
    ["", "open(TARGET, 'wb').close()", "open(TARGET, 'wb').write(b'no model' * 9)"],
    ids=["nothing", "empty", "garbage"],
)
def test_no_readable_model_is_a_message(body, tmp_path, code):
    assert_kept(with_child(tmp_path, body, code), body, "left no readable model")


CHANGES = {
    "other numbers": (
        """
        weight = model.graph.initializer[0]
        array = onnx.numpy_helper.to_array(weight) * 3 + 1
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        """,
        "gives other results",
    ),
    "a NaN": (
        """
        weight = model.graph.initializer[0]
        array = onnx.numpy_helper.to_array(weight) * float('nan')
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        """,
        "gives other results",
    ),
    "another opset": ("model.opset_import[0].version = 18", "changed the opset from 17 to 18"),
    "a lost output": ("del model.graph.output[1]", "no output conf"),
    "a new output name": ("model.graph.output[0].name = 'boxes'", "no output loc; it has boxes"),
    "an open shape": (
        "model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = 'N'",
        "input is [N, 3, 96, 96]",
    ),
    "a torn graph": ("model.graph.node[5].input[0] = 'nowhere'", "checker refuses it"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_model_is_not_used(body, tmp_path, name):
    change, reason = CHANGES[name]
    code = "model = onnx.load(SOURCE)\n" + textwrap.dedent(change) + "\nonnx.save(model, TARGET)\n"

    assert_kept(with_child(tmp_path, body, code), body, reason)


def test_numbers_within_the_tolerance_are_accepted(body, tmp_path):
    code = """
    model = onnx.load(SOURCE)
    bias = next(t for t in model.graph.initializer if t.name.endswith('module_list.5.1.bias'))
    array = onnx.numpy_helper.to_array(bias) + 5e-5
    bias.CopyFrom(onnx.numpy_helper.from_array(array.astype('float32'), bias.name))
    onnx.save(model, TARGET)
    """

    _, report = with_child(tmp_path, body, code)

    assert report.applied
    assert 4e-5 < report.worst_difference < 6e-5


def test_a_model_that_does_not_run_is_not_used(body):
    before = bytes_from_body(body)

    def only_the_first_runs(model, inputs):
        if model != before:
            raise RuntimeFailedError("no kernel")
        return run_onnx(model, inputs)

    outcome = simplify_body(body, SAMPLE, only_the_first_runs)

    assert_kept(outcome, body, "its model does not run: no kernel")


def test_temporary_folders_go_away(body, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    inside = tmp_path / "inside"
    inside.mkdir()

    with_child(inside, body, "raise SystemExit(1)")

    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_the_sample_must_fit(body):
    with pytest.raises(ValueError, match="the sample is"):
        simplify_body(body, np.zeros((1, 3, 8, 8), np.float32), run_onnx)


def test_the_input_is_not_changed(body):
    before = bytes_from_body(body)

    simplify_body(body, SAMPLE, run_onnx)

    assert bytes_from_body(body) == before
    assert isinstance(body.model, onnx.ModelProto)
