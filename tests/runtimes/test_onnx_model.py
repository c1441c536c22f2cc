"""ONNX Runtime: the provider that really runs is read back; broken models are told."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mbv3ssd_deploy.errors import RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel, check_provider

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def model(batch=1, op_type="Relu"):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op_type, ["input"], ["loc"], name="/op")],
        "graph",
        [value("input", TensorProto.FLOAT, [batch, 3, 2, 2])],
        [value("loc", TensorProto.FLOAT, [batch, 3, 2, 2])],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def images(count):
    return np.arange(count * 12, dtype=np.float32).reshape(count, 3, 2, 2) - 5


def test_a_file_and_its_bytes_give_the_same(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model())

    from_file = OnnxModel(path, threads=1).run(images(1))
    from_bytes = OnnxModel(model(), threads=1).run(images(1))

    np.testing.assert_array_equal(from_file.tensors["loc"], np.maximum(images(1), 0))
    np.testing.assert_array_equal(from_bytes.tensors["loc"], from_file.tensors["loc"])
    assert from_file.provider == "CPUExecutionProvider"


def test_a_fixed_batch_is_filled_step_by_step():
    runtime = OnnxModel(model(batch=2))

    for count in (1, 3, 4):
        found = runtime.run(images(count)).tensors["loc"]
        np.testing.assert_array_equal(found, np.maximum(images(count), 0))


def test_a_free_batch_takes_all_at_once():
    runtime = OnnxModel(model(batch="N"))

    assert runtime.run(images(5)).tensors["loc"].shape == (5, 3, 2, 2)


@pytest.mark.parametrize("data", [b"no model", model()[:-20], model(op_type="NoSuchOp")])
def test_a_broken_model_is_told(data):
    with pytest.raises(RuntimeFailedError, match="refuses the model"):
        OnnxModel(data)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(RuntimeFailedError, match="refuses the model") as caught:
        OnnxModel(tmp_path / "nothing.onnx")

    assert caught.value.where.endswith("nothing.onnx")


def test_an_input_of_another_size_is_told():
    with pytest.raises(RuntimeFailedError, match="could not run the model"):
        OnnxModel(model()).run(np.zeros((1, 3, 9, 9), np.float32))


def test_an_unknown_device_is_misuse():
    with pytest.raises(ValueError, match="'tpu', not one of cpu, cuda"):
        OnnxModel(model(), "tpu")


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_missing_cuda_is_told():
    with pytest.raises(RuntimeUnavailableError, match="has no CUDAExecutionProvider") as caught:
        OnnxModel(model(), "cuda")

    assert "onnxruntime-gpu" in caught.value.hint
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("running", [["CPUExecutionProvider"], []])
def test_a_session_that_fell_back_is_refused(running):
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider was asked for"):
        check_provider("CUDAExecutionProvider", running)


def test_a_session_on_the_right_provider_is_accepted():
    check_provider("CUDAExecutionProvider", ["CUDAExecutionProvider", "CPUExecutionProvider"])
