"""The real ncnn in its worker: empty blobs, broken files, crashes, hangs, noise."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

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
from mbv3ssd_deploy.runtimes import ncnn_model
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel, blob_names

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


def with_worker(monkeypatch, tmp_path, code):
    """Replace the worker by a script: `code` runs on the request number `count`."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, signal, struct, sys, time\n"
        "def send(header, payload=b''):\n"
        "    text = json.dumps(header).encode()\n"
        "    lengths = struct.pack('<II', len(text), len(payload))\n"
        "    sys.stdout.buffer.write(lengths + text + payload)\n"
        "    sys.stdout.flush()\n"
        "send({'version': 'ncnn of the test'})\n"
        "count = 0\n"
        "while lengths := sys.stdin.buffer.read(8):\n"
        "    sys.stdin.buffer.read(sum(struct.unpack('<II', lengths)))\n"
        "    count += 1\n" + textwrap.indent(code, "    ")
    )
    monkeypatch.setattr(ncnn_model, "_WORKER", str(script))


ANSWER = "send({'shapes': [[1]], 'seconds': 0.1}, bytes(4))\n"


def test_any_blob_by_name_in_ncnns_shape(heads):
    names = ("stem", "loc_map", "mbox_loc", "mbox_conf", "mbox_conf_softmax", "stem")

    (blobs,) = NcnnModel(*heads, exact=True).run_blobs(IMAGE, names)

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
    (blobs,) = NcnnModel(*heads, exact=True).run_blobs(IMAGE, ("stem",))

    padded = np.pad(IMAGE[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    expected = np.einsum("cyxij,ocij->oyx", windows, values["stem.weight"].astype(np.float64))
    expected += values["stem.bias"][:, None, None]
    np.testing.assert_allclose(blobs["stem"], np.maximum(expected, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("exact", [True, False])
def test_every_mode_gives_the_heads(heads, exact, threads):
    result = NcnnModel(*heads, exact=exact, threads=threads).run(IMAGE)
    reference = NcnnModel(*heads, exact=True).run(IMAGE)

    np.testing.assert_allclose(result.tensors["loc"], reference.tensors["loc"], atol=1e-2)
    assert ("exact" in result.provider) == exact
    assert result.engine.startswith("ncnn 1.")


def test_raw_heads_may_be_called_loc_and_conf(tmp_path):
    text = HEADS_PARAM.replace("mbox_loc", "loc").replace("mbox_conf\n", "conf\n")
    text = text.replace("mbox_conf conf_more", "conf conf_more")
    files = write(tmp_path, text, heads_bin(weights()))

    assert NcnnModel(*files, exact=True).run(IMAGE).tensors["conf"].shape == (1, PRIORS, 3)


def test_detections_and_no_detections_in_one_run(tmp_path):
    found = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.9))
    (blobs,) = NcnnModel(*found, exact=True).run_blobs(IMAGE, ("detection_out",))
    np.testing.assert_allclose(blobs["detection_out"], [[1, 0.9, 0.25, 0.25, 0.75, 0.75]])

    nothing = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.1))
    names = ("detection_out", "mbox_priorbox", "detection_out")
    for blobs in NcnnModel(*nothing, exact=True).run_blobs(IMAGE.repeat(3, axis=0), names):
        assert blobs["detection_out"].shape == (0,)
        assert blobs["mbox_priorbox"].shape == (2, 8)


def test_progress_is_told_image_by_image(heads):
    told = []

    NcnnModel(*heads, exact=True).run(
        IMAGE.repeat(3, axis=0), progress=lambda *step: told.append(step)
    )

    assert told == [("ncnn", done, 3) for done in range(4)]


def test_missing_files_are_told(heads):
    param_path, bin_path = heads
    bin_path.unlink()

    with pytest.raises(FormatError, match="no such file") as caught:
        NcnnModel(param_path, bin_path, exact=True)

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

    message = failure(NcnnModel(*files, exact=True), ("stem",))

    assert message.startswith("ncnn ")
    assert "model.ncnn.param" in message or "died of" in message


@pytest.mark.parametrize("size", [0, 4, 100, 600])
def test_a_truncated_bin_is_told(tmp_path, size):
    files = write(tmp_path, HEADS_PARAM, heads_bin(weights())[:size])

    assert "ncnn failed: it cannot load model.ncnn.bin" in failure(NcnnModel(*files, exact=True))


def test_what_ncnn_itself_says_is_passed_on(tmp_path):
    files = write(tmp_path, HEADS_PARAM.replace("Softmax ", "NoSuchLayer "), b"")

    message = failure(NcnnModel(*files, exact=True), ("stem",))

    assert "NoSuchLayer" in message.split("its last output: ")[1]


def test_an_unknown_blob_is_told_with_the_networks_ends(heads):
    message = failure(NcnnModel(*heads, exact=True), ("mbox_loc", "nowhere"))

    assert "no blob nowhere; it ends in mbox_loc, mbox_conf, mbox_conf_softmax" in message


def test_a_network_without_heads_is_told(tmp_path):
    files = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.9))

    with pytest.raises(RuntimeFailedError, match=r"no blob mbox_conf; it ends in .*detection_out"):
        NcnnModel(*files, exact=True).run(IMAGE)


def test_another_input_name_is_told(heads):
    message = failure(NcnnModel(*heads, exact=True, input_name="data"))

    assert "it has no input blob 'data'" in message
    assert "at image 1 of 1" in message


def test_heads_that_do_not_belong_together_are_told(tmp_path):
    text = DETECTIONS_PARAM.replace("mbox_loc 0=8", "mbox_loc 0=12")  # three boxes, two scores
    text = text.replace("mbox_conf_softmax 0=2 1=2", "mbox_conf 0=2 1=2")
    text = "\n".join(text.splitlines()[:5]).replace("5 5", "3 3", 1)
    files = write(tmp_path, text + "\n", bytes(64))

    with pytest.raises(RuntimeFailedError, match=r"shapes \(12,\) and \(2, 2\), which do not fit"):
        NcnnModel(*files, exact=True).run(IMAGE)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_names_the_signal_and_the_image(monkeypatch, tmp_path, heads, number):
    code = (
        f"if count == 1: {ANSWER}"
        "else:\n"
        "    sys.stderr.write('bad news\\n'); sys.stderr.flush()\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
    )
    with_worker(monkeypatch, tmp_path, code)

    message = failure(NcnnModel(*heads, exact=True), batch=IMAGE.repeat(2, axis=0))

    assert message == f"ncnn died of {number.name} at image 2 of 2; its last output: bad news"


def test_a_real_crash_in_ncnn_is_an_error_and_not_our_end(tmp_path):
    # millions of priors, two boxes: nothing in ncnn checks, and DetectionOutput reads on and on
    text = DETECTIONS_PARAM.replace(
        "MemoryData priors 0 1 mbox_priorbox 0=8 1=2",
        "PriorBox priors 1 1 input mbox_priorbox -23300=4,1.0,2.0,3.0,4.0 9=9 10=9",
    )
    files = write(tmp_path, text, detections_bin(0.9))
    large = np.zeros((1, 3, 1000, 1000), np.float32)

    message = failure(NcnnModel(*files, exact=True), ("detection_out",), large)

    assert message.startswith("ncnn died of SIGSEGV at image 1 of 1")


def test_an_exception_in_ncnn_is_told(tmp_path):
    files = write(tmp_path, DETECTIONS_PARAM.replace("3=9", "3=-1"), detections_bin(0.9))

    message = failure(NcnnModel(*files, exact=True), ("detection_out",))

    assert "exited with code 1 at image 1 of 1; its last output:" in message


def test_a_hanging_worker_is_stopped(monkeypatch, tmp_path, heads):
    with_worker(monkeypatch, tmp_path, "time.sleep(600)\n")

    message = failure(NcnnModel(*heads, exact=True, timeout_s=1.0))

    assert "was stopped after" in message
    assert "at image 1 of 1" in message


def test_an_interrupt_ends_the_worker(monkeypatch, tmp_path, heads):
    note = tmp_path / "pid"
    code = f"open({str(note)!r}, 'w').write(str(os.getpid()))\n{ANSWER}"
    with_worker(monkeypatch, tmp_path, code)

    def interrupted(_step, done, _total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NcnnModel(*heads, exact=True).run_blobs(IMAGE, ("stem",), progress=interrupted)

    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_an_interpreter_that_is_not_there_is_told(heads):
    runtime = NcnnModel(*heads, exact=True, python="/nowhere/python")

    with pytest.raises(RuntimeUnavailableError, match="cannot be started"):
        runtime.run(IMAGE)


def test_the_worker_needs_numpy_and_ncnn_alone():
    code = (
        "import runpy, sys; sys.argv = ['x'];"
        f"runpy.run_path({ncnn_model._WORKER!r}, run_name='child');"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'mbv3ssd_deploy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    said = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert said.strip() == "[]"
    assert script_command(ncnn_model._WORKER)[1] == "-P"


def test_blob_names_reads_what_it_can():
    names, ends = blob_names(HEADS_PARAM)

    assert {"input", "stem_a", "mbox_loc"} <= names
    assert ends == ("mbox_loc", "mbox_conf", "mbox_conf_softmax")
    assert blob_names("") == (frozenset(), ())
    assert blob_names("7767517\n1 1\nInput input 0\nReLU x one two a b\n") == (frozenset(), ())


def test_heads_and_other_blobs_of_one_pass(heads):
    runtime = NcnnModel(*heads, exact=True)

    result = runtime.run(IMAGE.repeat(2, axis=0), ("mbox_conf_softmax", "stem"))
    blobs = result.blobs

    np.testing.assert_array_equal(
        result.tensors["conf"], runtime.run(IMAGE).tensors["conf"][[0, 0]]
    )
    assert len(blobs) == 2
    assert blobs[0]["stem"].shape == (4, LEVEL, LEVEL)
    np.testing.assert_allclose(blobs[1]["mbox_conf_softmax"].sum(axis=1), 1, rtol=1e-6)


def test_bfloat16_is_near_and_is_said(heads):
    result = NcnnModel(*heads, exact=False, bf16=True).run(IMAGE)
    exact = NcnnModel(*heads, exact=True).run(IMAGE).tensors["loc"]

    assert result.provider == "cpu, bfloat16"
    np.testing.assert_allclose(result.tensors["loc"], exact, atol=0.05 * np.abs(exact).max())
    with pytest.raises(ValueError, match="bfloat16 is not exact"):
        NcnnModel(*heads, exact=True, bf16=True)


def worker():
    return ncnn_model._WORKERS[sys.executable, ncnn_model._WORKER, os.getpid()]


def test_one_worker_serves_all_models_of_a_process(heads, tmp_path):
    ncnn_model.close_workers()
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", DETECTIONS_PARAM, detections_bin(0.9))
    NcnnModel(*heads, exact=True).run_blobs(IMAGE, ("stem",))
    before = worker()

    NcnnModel(*heads, exact=False).run_blobs(IMAGE, ("stem",))
    NcnnModel(*other, exact=True).run_blobs(IMAGE, ("detection_out",))

    assert worker() is before


def test_after_a_crash_the_next_call_starts_another_worker(heads):
    model = NcnnModel(*heads, exact=True)
    expected = model.run(IMAGE).loc
    worker()._child.kill()
    worker()._child.wait()

    np.testing.assert_array_equal(model.run(IMAGE).loc, expected)


def test_a_file_that_was_replaced_is_loaded_again(tmp_path):
    files = write(tmp_path, DETECTIONS_PARAM, detections_bin(0.9))
    model = NcnnModel(*files, exact=True)
    (before,) = model.run_blobs(IMAGE, ("detection_out",))

    write(tmp_path, DETECTIONS_PARAM, detections_bin(0.8))
    (after,) = model.run_blobs(IMAGE, ("detection_out",))

    assert before["detection_out"][0, 1] == pytest.approx(0.9)
    assert after["detection_out"][0, 1] == pytest.approx(0.8)


def test_the_worker_ends_with_its_process():
    code = (
        "import sys; sys.path.insert(0, 'tests/support')\n"
        "from mbv3ssd_deploy.runtimes import ncnn_model\n"
        "worker = ncnn_model._worker(sys.executable, 60)\n"
        "print(worker._child.pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    result = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)

    process, deadline = Path("/proc", result.stdout.decode().strip()), time.monotonic() + 10
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists()
