"""PyTorch's exporters behind one function: what was asked for, or a clear error."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from builders import tiny_input, tiny_net, tiny_spec
from onnx.reference import ReferenceEvaluator
from torch import nn

from mbv3ssd_deploy.errors import ExportError, RuntimeUnavailableError
from mbv3ssd_deploy.onnx_body.body import POST_PROCESSING, bytes_from_body
from mbv3ssd_deploy.onnx_body.export import export_body

SPEC = tiny_spec()
HAS_ONNXSCRIPT = importlib.util.find_spec("onnxscript") is not None


@pytest.fixture(scope="module")
def net():
    return tiny_net(spec=SPEC)


@pytest.fixture(scope="module")
def body(net):
    return export_body(net, SPEC)


def nodes_of(body):
    return body.model.graph.node


@pytest.mark.parametrize("opset", range(11, 21))
def test_every_supported_opset_is_honoured(net, opset):
    body = export_body(net, SPEC, opset=opset)

    assert body.opset == opset
    assert [o.domain for o in body.model.opset_import] == [""]


@pytest.mark.parametrize("opset", [-1, 0, 7, 10, 21, 23, 99])
def test_any_other_opset_is_refused_with_the_range(net, opset):
    with pytest.raises(ExportError, match=rf"opset {opset} cannot be honoured.* 11 to 20 .* 18"):
        export_body(net, SPEC, opset=opset)


def test_names_and_shapes(body):
    assert body.opset == 17
    assert body.input_shape == (1, 3, 96, 96)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in body.model.graph.output
    }
    assert shapes == {"loc": [1, SPEC.priors.count, 4], "conf": [1, SPEC.priors.count, 3]}


def test_a_batch_is_exported_as_asked(net):
    assert export_body(net, SPEC, batch=3).input_shape == (3, 3, 96, 96)
    with pytest.raises(ValueError, match="batch is 0"):
        export_body(net, SPEC, batch=0)


def test_no_post_processing_is_in_it(body):
    assert {node.op_type for node in nodes_of(body)}.isdisjoint(POST_PROCESSING)


def test_nothing_tells_who_made_it_where_and_when(body):
    model = body.model
    items = (model, model.graph, *nodes_of(body), *model.graph.initializer, *model.graph.output)

    assert all(item.doc_string == "" for item in items)
    assert all(len(item.metadata_props) == 0 for item in items[1:])
    assert {p.key for p in model.metadata_props} == {
        "mbv3ssd_deploy.exporter",
        "mbv3ssd_deploy.spec",
    }
    assert model.producer_name == "mbv3ssd-deploy"
    assert b".py" not in bytes_from_body(body)
    assert torch.__version__.encode() not in bytes_from_body(body)


def test_nodes_and_weights_are_named_after_modules(body):
    names = [node.name for node in nodes_of(body)]
    weights = {tensor.name for tensor in body.model.graph.initializer}

    assert len(set(names)) == len(names)
    assert all(name.startswith(("/backbone/", "/head/")) for name in names)
    assert "/backbone/features.0/features.0.0/features.0.0.0/Conv.weight" in weights
    assert not [name for name in weights if "::" in name]


def test_no_reshape_has_allowzero(body):
    reshapes = [node for node in nodes_of(body) if node.op_type == "Reshape"]

    assert reshapes
    assert all(len(node.attribute) == 0 for node in reshapes)


def test_the_same_net_gives_the_same_bytes(net, body, tmp_path, monkeypatch):
    export_body(tiny_net(seed=1, spec=SPEC), SPEC)  # exporters that count would count on
    monkeypatch.chdir(tmp_path)

    assert bytes_from_body(export_body(net, SPEC)) == bytes_from_body(body)


def test_other_weights_give_other_bytes(body):
    other = export_body(tiny_net(seed=1, spec=SPEC), SPEC)

    assert bytes_from_body(other) != bytes_from_body(body)


def test_the_net_stays_as_it_was(net):
    twin = tiny_net(spec=SPEC).train()
    twin.backbone.eval()
    before = {key: tensor.clone() for key, tensor in twin.state_dict().items()}

    body = export_body(twin, SPEC)

    assert twin.training
    assert not any(module.training for module in twin.backbone.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in twin.state_dict().items())
    assert bytes_from_body(body) == bytes_from_body(export_body(net, SPEC))  # as in eval mode


def test_deprecation_warnings_do_not_get_out(net):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_body(net, SPEC)

    assert [str(warning.message) for warning in caught] == []


def test_a_net_of_another_size_is_refused(net):
    other = tiny_spec(num_classes=5)

    with pytest.raises(ExportError, match=r"conf is \[1, \d+, 3\], where .* wants \[1, \d+, 5\]"):
        export_body(net, other)


class Finished(nn.Module):
    """A net with its softmax inside."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        loc, conf = self.net(x)
        return loc, conf.softmax(-1)


def test_a_net_that_post_processes_is_refused(net):
    with pytest.raises(ExportError, match="post-processing: Softmax"):
        export_body(Finished(net), SPEC)


class Broken(nn.Module):
    def forward(self, _):
        raise RuntimeError("this net cannot run\nat all")


def test_a_net_that_raises_is_an_export_error():
    with pytest.raises(ExportError, match="TorchScript exporter: this net cannot run"):
        export_body(Broken(), SPEC)


def without_torchscript(monkeypatch, real=torch.onnx.export):
    """PyTorch as it will be when the old exporter is gone."""

    def export_of_tomorrow(*args, **kwargs):
        if not kwargs["dynamo"]:
            raise TypeError("dynamo=False is no longer supported")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export_of_tomorrow)


def test_without_the_old_exporter_old_opsets_are_an_export_error(net, monkeypatch):
    without_torchscript(monkeypatch)

    with pytest.raises(ExportError, match=r"opset 17: TorchScript .* no longer") as caught:
        export_body(net, SPEC, opset=17)

    assert "18 to 20 with the dynamo exporter" in caught.value.hint


@pytest.mark.skipif(not HAS_ONNXSCRIPT, reason="onnxscript is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # onnxscript's own, at its import
def test_without_the_old_exporter_the_new_one_is_used(net, monkeypatch):
    without_torchscript(monkeypatch)

    body = export_body(net, SPEC, opset=18)

    assert (body.exporter, body.opset) == ("dynamo", 18)
    assert b".py" not in bytes_from_body(body)
    assert all(len(n.attribute) == 0 for n in nodes_of(body) if n.op_type == "Reshape")
    assert bytes_from_body(body) == bytes_from_body(export_body(net, SPEC, opset=18))


@pytest.mark.skipif(HAS_ONNXSCRIPT, reason="onnxscript is here")
def test_without_any_exporter_the_missing_package_is_named(net, monkeypatch):
    without_torchscript(monkeypatch)

    with pytest.raises(RuntimeUnavailableError, match="no longer") as caught:
        export_body(net, SPEC, opset=18)

    assert "pip install onnxscript" in caught.value.hint


def test_an_exporter_that_gives_another_opset_is_not_believed(net, monkeypatch):
    real = torch.onnx.export

    def careless(*args, **kwargs):
        return real(*args, **{**kwargs, "opset_version": 13})

    monkeypatch.setattr(torch.onnx, "export", careless)

    with pytest.raises(ExportError, match="it wrote opset 13 where 17 was asked for"):
        export_body(net, SPEC, opset=17)


def test_the_numbers_are_the_nets(net, body):
    session = ReferenceEvaluator(body.model)
    image = tiny_input(SPEC)

    loc, conf = session.run(None, {"input": image})

    with torch.no_grad():
        expected = net(torch.from_numpy(image))
    np.testing.assert_allclose(loc, expected[0].numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(conf, expected[1].numpy(), rtol=1e-3, atol=1e-4)
