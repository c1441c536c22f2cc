"""The real ncnn in its child: empty blobs, broken files, crashes, hangs, noise."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from ncnn_files import (
    DETECTIONS_PARAM,
    HEADS_PARAM,
    LEVEL,
    PRIORS,
    detections_bin,
    heads_bin,
    weights,
    write,
)

from mbv3ssd_deploy.errors import FormatError, RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.io.child import script_command
from mbv3ssd_deploy.runtimes import ncnn_runtime
from mbv3ssd_deploy.runtimes.ncnn_runtime import NcnnRuntime, blob_names

IMAGE = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def heads(tmp_path):
    return write(tmp_path, HEADS_PARAM, heads_bin(weights()))


def failure(runtime, names=("mbox_loc",), batch=IMAGE):
    with pytest.raises(RuntimeFailedError) as caught:
        runtime.run_blobs(batch, names)
    assert caught.value.where.endswith(".param")
    assert "to-ncnn" in caught.value.hint
    return caught.value.message


def with_child(monkeypatch, tmp_path, code):
    """Let a script of ours stand in for the child; it finds the job's folder as FOLDER."""
    script = tmp_path / "child.py"
    script.write_text(f"import os, signal, sys, time\nFOLDER = sys.argv[1]\n{code}\n")
    monkeypatch.setattr(ncnn_runtime, "_CHILD", str(script))


def test_any_blob_by_name_in_ncnns_shape(heads):
    names = ("stem", "loc_map", "mbox_loc", "mbox_conf", "mbox_conf_softmax", "stem")

    (blobs,) = NcnnRuntime(*heads, exact=True).run_blobs(IMAGE, names)

    assert {name: blob.shape for name, blob in blobs.items()} == {
        "stem": (4, LEVEL, LEVEL),
        "loc_map": (8, LEVEL, LEVEL),
        "mbox_loc": (4 * PRIORS,),
        "mbox_conf": (PRIORS, 3),
        "mbox_conf_softmax": (PRIORS, 3),
    }
    rows = blobs["loc_map"].transpose(1, 2, 0).ravel()
    np.testing.assert_array_equal(rows, blobs["mbox_loc"])
    np.testing.assert_allclose(blobs["mbox_conf_softmax"].sum(axis=1), 1, rtol=1e-6)


def test_exact_mode_is_the_plain_sum_of_products(heads):
    values = weights()
    (blobs,) = NcnnRuntime(*heads, exact=True).run_blobs(IMAGE, ("stem",))

    padded = np.pad(IMAGE[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    expected = np.einsum("cyxij,ocij->oyx", windows, values["stem.weight"].astype(np.float64))
    expected += values["stem.bias"][:, None, None]
    np.testing.assert_allclose(blobs["stem"], np.maximum(expected, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("exact", [True, False])
def test_every_mode_gives_the_heads(heads, exact, threads):
    result = NcnnRuntime(*heads, exact=exact, threads=threads).run(IMAGE)
    reference = NcnnRuntime(*heads, exact=True).run(IMAGE)

    np.testing.assert_allclose(result.tensors["loc"], reference.tensors["loc"], atol=1e-2)
    assert ("exact" in result.provider) == exact
    assert result.runtime.startswith("ncnn 1.")


def test_raw_heads_may_be_called_loc_and_conf(tmp_path):
    text = HEADS_PARAM.replace("mbox_loc", "loc").replace("mbox_conf\n", "conf\n")
    text = text.replace("mbox_conf conf_more", "conf conf_more")
    files = write(tmp_path, text, heads_bin(weights()))

    assert NcnnRuntime(*files, exact=True).run(IMAGE).tensors["conf"].shape == (1, PRIORS, 3)


def test_detections_and_no_detections_in_one_run(tmp_path):
    found = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.9))
    (blobs,) = NcnnRuntime(*found, exact=True).run_blobs(IMAGE, ("detection_out",))
    np.testing.assert_allclose(blobs["detection_out"], [[1, 0.9, 0.25, 0.25, 0.75, 0.75]])

    nothing = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.1))
    names = ("detection_out", "mbox_priorbox", "detection_out")
    for blobs in NcnnRuntime(*nothing, exact=True).run_blobs(IMAGE.repeat(3, axis=0), names):
        assert blobs["detection_out"].shape == (0,)
        assert blobs["mbox_priorbox"].shape == (2, 8)


def test_progress_is_told_image_by_image(heads):
    told = []

    NcnnRuntime(*heads, exact=True).run(
        IMAGE.repeat(3, axis=0), progress=lambda *step: told.append(step)
    )

    assert told == [("ncnn", done, 3) for done in range(4)]


def test_missing_files_are_told(heads):
    param_path, bin_path = heads
    bin_path.unlink()

    with pytest.raises(FormatError, match="no such file") as caught:
        NcnnRuntime(param_path, bin_path, exact=True)

    assert caught.value.where == str(bin_path)


@pytest.mark.parametrize(
    "param",
    [
        "",
        "not a param file\n",
        HEADS_PARAM.replace("7767517", "7767518"),
        HEADS_PARAM.replace("Softmax ", "NoSuchLayer "),
        HEADS_PARAM[:200],
    ],
    ids=["empty", "text", "magic", "layer", "truncated"],
)
def test_a_broken_param_is_told(tmp_path, param):
    files = write(tmp_path, param, heads_bin(weights()))

    message = failure(NcnnRuntime(*files, exact=True), ("stem",))

    assert message.startswith("ncnn ")
    assert "model.ncnn.param" in message or "died of" in message


@pytest.mark.parametrize("size", [0, 4, 100, 600])
def test_a_truncated_bin_is_told(tmp_path, size):
    files = write(tmp_path, HEADS_PARAM, heads_bin(weights())[:size])

    assert "ncnn failed: it cannot load model.ncnn.bin" in failure(NcnnRuntime(*files, exact=True))


def test_what_ncnn_itself_says_is_passed_on(tmp_path):
    files = write(tmp_path, HEADS_PARAM.replace("Softmax ", "NoSuchLayer "), b"")

    message = failure(NcnnRuntime(*files, exact=True), ("stem",))

    assert "NoSuchLayer" in message.split("its last words: ")[1]


def test_an_unknown_blob_is_told_with_the_networks_ends(heads):
    message = failure(NcnnRuntime(*heads, exact=True), ("mbox_loc", "nowhere"))

    assert "no blob nowhere; it ends in mbox_loc, mbox_conf, mbox_conf_softmax" in message


def test_a_network_without_heads_is_told(tmp_path):
    files = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.9))

    with pytest.raises(RuntimeFailedError, match=r"no blob mbox_conf; it ends in .*detection_out"):
        NcnnRuntime(*files, exact=True).run(IMAGE)


def test_another_input_name_is_told(heads):
    message = failure(NcnnRuntime(*heads, exact=True, input_name="data"))

    assert "it has no input blob 'data'" in message
    assert "at image 1 of 1" in message


def test_heads_that_do_not_belong_together_are_told(tmp_path):
    text = DETECTIONS_PARAM.replace("mbox_loc 0=8", "mbox_loc 0=12")  # three boxes, two scores
    text = text.replace("mbox_conf_softmax 0=2 1=2", "mbox_conf 0=2 1=2")
    text = "\n".join(text.splitlines()[:5]).replace("5 5", "3 3", 1)
    files = write(tmp_path, text + "\n", bytes(64))

    with pytest.raises(RuntimeFailedError, match=r"shapes \(12,\) and \(2, 2\) do not belong"):
        NcnnRuntime(*files, exact=True).run(IMAGE)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_child_that_dies_is_told_with_signal_and_image(monkeypatch, tmp_path, heads, number):
    code = (
        "print('begin 0\\nend 0 0.1\\nbegin 1', flush=True)\n"
        "sys.stderr.write('bad news\\n'); sys.stderr.flush()\n"
        f"os.kill(os.getpid(), {int(number)})"
    )
    with_child(monkeypatch, tmp_path, code)

    message = failure(NcnnRuntime(*heads, exact=True), batch=IMAGE.repeat(2, axis=0))

    assert message == f"ncnn died of {number.name} at image 2 of 2; its last words: bad news"


def test_a_real_crash_in_ncnn_is_an_error_and_not_our_end(tmp_path):
    # millions of priors, two boxes: nothing in ncnn checks, and DetectionOutput reads on and on
    text = DETECTIONS_PARAM.replace(
        "MemoryData priors 0 1 mbox_priorbox 0=8 1=2",
        "PriorBox priors 1 1 input mbox_priorbox -23300=4,1.0,2.0,3.0,4.0 9=9 10=9",
    )
    files = write(tmp_path, text, detections_bin(0.9))
    large = np.zeros((1, 3, 1000, 1000), np.float32)

    message = failure(NcnnRuntime(*files, exact=True), ("detection_out",), large)

    assert message.startswith("ncnn died of SIGSEGV at image 1 of 1")


def test_an_exception_in_ncnn_is_told(tmp_path):
    files = write(tmp_path, DETECTIONS_PARAM.replace("3=9", "3=-1"), detections_bin(0.9))

    message = failure(NcnnRuntime(*files, exact=True), ("detection_out",))

    assert "exited with code 1 at image 1 of 1; its last words:" in message


def test_a_hanging_child_is_stopped(monkeypatch, tmp_path, heads):
    with_child(monkeypatch, tmp_path, "print('begin 0', flush=True); time.sleep(600)")

    message = failure(NcnnRuntime(*heads, exact=True, timeout_s=1.0))

    assert "was stopped after" in message
    assert "at image 1 of 1" in message


def test_an_interrupt_ends_the_child_and_leaves_no_files(monkeypatch, tmp_path, heads):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    note = tmp_path / "pid"
    with_child(
        monkeypatch,
        tmp_path,
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        "print('end 0 0.1', flush=True); time.sleep(600)",
    )

    def interrupted(_step, done, _total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NcnnRuntime(*heads, exact=True).run(IMAGE, progress=interrupted)

    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert not list(tmp_path.glob("mbv3ssd-deploy-*"))


def test_an_interpreter_that_is_not_there_is_told(heads):
    runtime = NcnnRuntime(*heads, exact=True, python="/nowhere/python")

    with pytest.raises(RuntimeUnavailableError, match="cannot be started"):
        runtime.run(IMAGE)


def test_the_child_needs_numpy_and_ncnn_alone():
    code = (
        "import runpy, sys; sys.argv = ['x'];"
        f"runpy.run_path({ncnn_runtime._CHILD!r}, run_name='child');"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'mbv3ssd_deploy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    said = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert said.strip() == "[]"
    assert script_command(ncnn_runtime._CHILD)[1] == "-P"


def test_blob_names_reads_what_it_can():
    names, ends = blob_names(HEADS_PARAM)

    assert {"input", "stem_a", "mbox_loc"} <= names
    assert ends == ("mbox_loc", "mbox_conf", "mbox_conf_softmax")
    assert blob_names("") == (frozenset(), ())
    assert blob_names("7767517\n1 1\nInput input 0\nReLU x one two a b\n") == (frozenset(), ())


def test_heads_and_other_blobs_of_one_pass(heads):
    runtime = NcnnRuntime(*heads, exact=True)

    result, blobs = runtime.run_with(IMAGE.repeat(2, axis=0), ("mbox_conf_softmax", "stem"))

    np.testing.assert_array_equal(
        result.tensors["conf"], runtime.run(IMAGE).tensors["conf"][[0, 0]]
    )
    assert len(blobs) == 2
    assert blobs[0]["stem"].shape == (4, LEVEL, LEVEL)
    np.testing.assert_allclose(blobs[1]["mbox_conf_softmax"].sum(axis=1), 1, rtol=1e-6)


def test_bfloat16_is_near_and_is_said(heads):
    result = NcnnRuntime(*heads, exact=False, bf16=True).run(IMAGE)
    exact = NcnnRuntime(*heads, exact=True).run(IMAGE).tensors["loc"]

    assert result.provider == "cpu, bfloat16"
    np.testing.assert_allclose(result.tensors["loc"], exact, atol=0.05 * np.abs(exact).max())
    with pytest.raises(ValueError, match="bfloat16 is not exact"):
        NcnnRuntime(*heads, exact=True, bf16=True)
