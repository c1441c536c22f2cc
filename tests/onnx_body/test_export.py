"""PyTorch's exporters behind one function: what was asked for, or a clear error."""

import importlib.util
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import tiny_input, tiny_net, tiny_spec
from onnx.reference import ReferenceEvaluator
from torch import nn

from mbv3ssd_deploy.core.spec import PriorLevel
from mbv3ssd_deploy.errors import ExportError, RuntimeUnavailableError
from mbv3ssd_deploy.onnx_body.body import POST_PROCESSING, bytes_from_body
from mbv3ssd_deploy.onnx_body.export import export_body

SPEC = tiny_spec()
HAS_ONNXSCRIPT = importlib.util.find_spec("onnxscript") is not None


LEVEL = PriorLevel(4, 4, 2.0, 2.0, 2.0, 3.0, ())
SMALL = replace(
    SPEC,
    input=replace(SPEC.input, height=8, width=8),
    priors=replace(SPEC.priors, frame_width=8, frame_height=8, levels=(LEVEL,)),
)


class SmallNet(nn.Module):
    """One level and every activation of MobileNetV3: as much as an opset can get wrong."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.loc, self.conf = nn.Conv2d(8, 2 * 4, 1), nn.Conv2d(8, 2 * 3, 1)

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.relu6(x * self.gate(x))
        loc, conf = self.loc(x).permute(0, 2, 3, 1), self.conf(x).permute(0, 2, 3, 1)
        return loc.reshape(loc.shape[0], -1, 4), conf.reshape(conf.shape[0], -1, 3)


@pytest.fixture(scope="module")
def small_net():
    return SmallNet().eval()


@pytest.fixture(scope="module")
def net():
    return tiny_net(spec=SPEC)


@pytest.fixture(scope="module")
def body(net):
    return export_body(net, SPEC)


def nodes_of(body):
    return body.model.graph.node


@pytest.mark.parametrize("opset", range(11, 21))
def test_every_supported_opset_is_honoured(small_net, opset):
    body = export_body(small_net, SMALL, opset=opset)

    assert body.opset == opset
    assert [o.domain for o in body.model.opset_import] == [""]


@pytest.mark.parametrize("opset", [-1, 0, 7, 10, 21, 23, 99])
def test_any_other_opset_is_refused_with_the_range(small_net, opset):
    with pytest.raises(ExportError, match=rf"opset {opset} cannot be honoured.* 11 to 20 .* 18"):
        export_body(small_net, SMALL, opset=opset)


def test_names_and_shapes(body):
    assert body.opset == 17
    assert body.input_shape == (1, 3, 96, 96)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in body.model.graph.output
    }
    assert shapes == {"loc": [1, SPEC.priors.count, 4], "conf": [1, SPEC.priors.count, 3]}


def test_a_batch_is_exported_as_asked(small_net):
    assert export_body(small_net, SMALL, batch=3).input_shape == (3, 3, 8, 8)
    with pytest.raises(ValueError, match="batch is 0"):
        export_body(small_net, SMALL, batch=0)


def test_no_post_processing_is_in_it(body):
    assert {node.op_type for node in nodes_of(body)}.isdisjoint(POST_PROCESSING)


def test_nothing_in_it_depends_on_author_place_or_time(body):
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
    training = tiny_net(spec=SPEC).train()
    training.backbone.eval()
    before = {key: tensor.clone() for key, tensor in training.state_dict().items()}

    body = export_body(training, SPEC)

    assert training.training
    assert not any(module.training for module in training.backbone.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in training.state_dict().items())
    assert bytes_from_body(body) == bytes_from_body(export_body(net, SPEC))  # as in eval mode


def test_deprecation_warnings_do_not_get_out(small_net):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_body(small_net, SMALL)

    assert [str(warning.message) for warning in caught] == []


def test_a_net_of_another_size_is_refused(small_net):
    other = replace(SMALL, class_names=tiny_spec(num_classes=5).class_names)

    with pytest.raises(ExportError, match=r"conf is \[1, 32, 3\], where .* needs \[1, 32, 5\]"):
        export_body(small_net, other)


class Finished(nn.Module):
    """A net with its softmax inside."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        loc, conf = self.net(x)
        return loc, conf.softmax(-1)


def test_a_net_that_post_processes_is_refused(small_net):
    with pytest.raises(ExportError, match="post-processing: Softmax"):
        export_body(Finished(small_net), SMALL)


class Broken(nn.Module):
    def forward(self, _):
        raise RuntimeError("this net cannot run\nat all")


def test_a_net_that_raises_is_an_export_error():
    with pytest.raises(ExportError, match="TorchScript exporter: this net cannot run"):
        export_body(Broken(), SPEC, opset=17)


def without_torchscript(monkeypatch, real=torch.onnx.export):
    """PyTorch as it will be when the old exporter is gone."""

    def export_of_tomorrow(*args, **kwargs):
        if not kwargs["dynamo"]:
            raise TypeError("dynamo=False is no longer supported")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export_of_tomorrow)


def test_without_the_old_exporter_old_opsets_are_an_export_error(small_net, monkeypatch):
    without_torchscript(monkeypatch)

    with pytest.raises(ExportError, match=r"opset 17: TorchScript .* no longer") as caught:
        export_body(small_net, SMALL, opset=17)

    assert "18 to 20 with the dynamo exporter" in caught.value.hint


@pytest.mark.skipif(not HAS_ONNXSCRIPT, reason="onnxscript is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # onnxscript's own, at its import
def test_without_the_old_exporter_the_new_one_is_used(small_net, monkeypatch, caplog):
    without_torchscript(monkeypatch)

    body = export_body(small_net, SMALL)

    assert (body.exporter, body.opset) == ("dynamo", 18)
    assert b".py" not in bytes_from_body(body)
    assert all(len(n.attribute) == 0 for n in nodes_of(body) if n.op_type == "Reshape")
    assert bytes_from_body(body) == bytes_from_body(export_body(small_net, SMALL, opset=18))
    assert [r.message for r in caplog.records if r.levelname in {"WARNING", "ERROR"}] == []


@pytest.mark.skipif(HAS_ONNXSCRIPT, reason="onnxscript is here")
def test_without_any_exporter_the_missing_package_is_named(small_net, monkeypatch):
    without_torchscript(monkeypatch)

    with pytest.raises(RuntimeUnavailableError, match="no longer") as caught:
        export_body(small_net, SMALL, opset=18)

    assert "pip install onnxscript" in caught.value.hint


def test_an_exporter_that_gives_another_opset_is_not_believed(small_net, monkeypatch):
    real = torch.onnx.export

    def careless(*args, **kwargs):
        return real(*args, **{**kwargs, "opset_version": 13})

    monkeypatch.setattr(torch.onnx, "export", careless)

    with pytest.raises(ExportError, match="it wrote opset 13 where 17 was requested"):
        export_body(small_net, SMALL, opset=17)


def test_the_numbers_are_the_nets(net, body):
    session = ReferenceEvaluator(body.model)
    image = tiny_input(SPEC)

    loc, conf = session.run(None, {"input": image})

    with torch.no_grad():
        expected = net(torch.from_numpy(image))
    np.testing.assert_allclose(loc, expected[0].numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(conf, expected[1].numpy(), rtol=1e-3, atol=1e-4)
