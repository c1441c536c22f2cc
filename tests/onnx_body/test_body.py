"""Reading bodies: ours come back whole, everything else is refused with its reasons."""

import json

import numpy as np
import onnx
import pytest
from builders import tiny_net, tiny_spec
from onnx import TensorProto, helper

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.onnx_body.body import (
    SPEC_KEY,
    body_from_model,
    bytes_from_body,
    metadata_from_spec,
    parse_model,
    read_body,
)
from mbv3ssd_deploy.onnx_body.export import export_body


@pytest.fixture(scope="module")
def body():
    spec = tiny_spec()
    return export_body(tiny_net(spec=spec), spec)


@pytest.fixture
def model(body):
    copy = onnx.ModelProto()
    copy.CopyFrom(body.model)
    return copy


def refusal(model):
    with pytest.raises(FormatError) as caught:
        body_from_model(model, source="some.onnx")
    assert "mbv3ssd-deploy export" in caught.value.hint
    return caught.value.message


def detector_of_another_kind(op_type="NonMaxSuppression"):
    """input -> Softmax -> boxes, plus one op that selects."""
    nodes = [
        helper.make_node("Softmax", ["images"], ["scores"], name="/softmax"),
        helper.make_node(op_type, ["scores"], ["boxes"], name="/select"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "detector",
        [value("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("boxes", TensorProto.FLOAT, [1, 5, 4]), value("scores", TensorProto.FLOAT, [1, 5])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_file_comes_back_as_it_was_written(body, tmp_path):
    path = tmp_path / "body.onnx"
    path.write_bytes(bytes_from_body(body))

    again = read_body(path)

    assert again.spec == body.spec
    assert bytes_from_body(again) == bytes_from_body(body)
    assert again.input_shape == (1, 3, 96, 96)
    assert (again.batch, again.opset, again.exporter) == (1, 17, "TorchScript")


def test_the_spec_is_in_the_metadata_sorted_and_compact(body):
    text = metadata_from_spec(body.spec)

    assert {p.key: p.value for p in body.model.metadata_props}[SPEC_KEY] == text
    assert ": " not in text
    assert list(json.loads(text)) == sorted(json.loads(text))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"This is not a protobuf.\n" * 20, "not an ONNX file"),
        (b"PK\x03\x04" + bytes(100), "not an ONNX file"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, data, reason):
    path = tmp_path / "body.onnx"
    path.write_bytes(data)

    with pytest.raises(FormatError, match=reason) as caught:
        read_body(path)

    assert caught.value.where == str(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(body, share):
    data = bytes_from_body(body)

    with pytest.raises(FormatError):
        body_from_model(parse_model(data[: int(len(data) * share)]))


def test_every_truncation_of_the_last_bytes_is_refused(body):
    data = bytes_from_body(body)

    for cut in range(1, 60):
        with pytest.raises(FormatError):
            body_from_model(parse_model(data[:-cut]))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        read_body(tmp_path / "body.onnx")
    with pytest.raises(FormatError, match="cannot be read"):
        read_body(tmp_path)


def test_a_detector_of_another_tool_is_refused_with_all_reasons():
    reasons = refusal(detector_of_another_kind())

    assert "not written by mbv3ssd-deploy" in reasons
    assert "no output loc or conf; it has boxes, scores" in reasons
    assert "post-processing: Softmax '/softmax', NonMaxSuppression '/select'" in reasons


def test_post_processing_is_refused_whoever_wrote_it(model):
    model.graph.node.append(helper.make_node("Softmax", ["conf"], ["scores"], name="/late"))

    assert "post-processing: Softmax '/late'" in refusal(model)


def test_ops_of_other_domains_are_refused(model):
    node = helper.make_node("FusedConv", ["input"], ["extra"], domain="com.microsoft")
    model.graph.node.append(node)

    assert "com.microsoft::FusedConv" in refusal(model)


def test_external_weights_are_refused(model):
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")

    assert f"weights in other files, which is not supported: {weight.name}" in refusal(model)


def test_metadata_that_is_not_json_is_refused(model):
    model.metadata_props[-1].value = "{"

    with pytest.raises(FormatError, match="not JSON"):
        body_from_model(model)


def test_metadata_that_is_not_a_spec_names_the_keys(model):
    spec = json.loads(model.metadata_props[-1].value)
    del spec["coder"]
    model.metadata_props[-1].value = json.dumps(spec)

    with pytest.raises(FormatError, match="coder is missing"):
        body_from_model(model)


def test_sizes_must_be_those_of_the_spec(model, body):
    other = tiny_spec(num_classes=body.spec.num_classes + 1, image_size=(96, 128))
    model.metadata_props[-1].value = metadata_from_spec(other)

    reasons = refusal(model)

    assert "input is [1, 3, 96, 96], where its description needs [1, 3, 96, 128]" in reasons
    assert f"loc is [1, {body.spec.priors.count}, 4]" in reasons
    assert f"needs [1, {other.priors.count}, {other.num_classes}]" in reasons


def test_a_free_batch_is_refused(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    assert "input is [batch, 3, 96, 96]" in refusal(model)


def test_a_renamed_input_is_refused(model):
    model.graph.input[0].name = "images"

    assert "must be called 'input'; it has images" in refusal(model)


def test_what_onnx_itself_refuses_is_refused(model):
    model.graph.node[3].input[0] = "nowhere"

    assert "ONNX's checker refuses it" in refusal(model)


def test_a_constant_of_another_size_than_its_shape_is_refused(model):
    bias = next(t for t in model.graph.initializer if t.name.endswith(".bias"))
    bias.raw_data += bytes(4)

    assert "numbers of a constant in it do not fill its shape" in refusal(model)


def test_half_precision_is_refused(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    assert "input is not float32" in refusal(model)


def test_the_weights_are_float32(body):
    kinds = {onnx.numpy_helper.to_array(t).dtype for t in body.model.graph.initializer}

    assert kinds <= {np.dtype(np.float32), np.dtype(np.int64)}


def test_a_name_that_is_not_utf_8_is_refused(body, tmp_path):
    name = body.model.graph.node[0].name.encode()
    path = tmp_path / "body.onnx"
    path.write_bytes(bytes_from_body(body).replace(name, b"\x81" * len(name)))

    with pytest.raises(FormatError, match="a name in it is not UTF-8") as caught:
        read_body(path)

    assert caught.value.where == str(path)
