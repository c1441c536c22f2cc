"""The contract that every runtime keeps: same tensors, any number of images, read-only results."""

import io

import numpy as np
import pytest
import torch
from ncnn_files import BOXES, CLASSES, HEADS_PARAM, PRIORS, heads_bin, weights, write
from torch import nn

from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel
from mbv3ssd_deploy.runtimes.torch_model import TorchModel

RUNTIMES = ("torch", "onnx", "ncnn")


class Heads(nn.Module):
    """The net of `ncnn_files.HEADS_PARAM` in PyTorch."""

    def __init__(self, values):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.loc = nn.Conv2d(4, 4 * BOXES, 1)
        self.conf = nn.Conv2d(4, CLASSES * BOXES, 1)
        self.load_state_dict({name: torch.from_numpy(array) for name, array in values.items()})

    def forward(self, x):
        x = self.stem(x).relu()
        loc, conf = (head(x).permute(0, 2, 3, 1) for head in (self.loc, self.conf))
        return loc.reshape(-1, PRIORS, 4), conf.reshape(-1, PRIORS, CLASSES)


def onnx_bytes(net, batch=1):
    file = io.BytesIO()
    names = {"input_names": ["input"], "output_names": ["loc", "conf"]}
    torch.onnx.export(net, (torch.zeros(batch, 3, 8, 8),), file, dynamo=False, **names)
    return file.getvalue()


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory):
    values = weights()
    net = Heads(values)
    files = write(tmp_path_factory.mktemp("ncnn"), HEADS_PARAM, heads_bin(values))
    with pytest.warns(DeprecationWarning, match="ONNX export|feature will be removed"):
        model = onnx_bytes(net)
    return {
        "torch": TorchModel(net),
        "onnx": OnnxModel(model),
        "ncnn": NcnnModel(*files, exact=True),
    }


def images(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("name", RUNTIMES)
def test_shapes_types_and_who_ran(runtimes, name):
    result = runtimes[name].run(images(3))

    assert {k: v.shape for k, v in result.tensors.items()} == {
        "loc": (3, PRIORS, 4),
        "conf": (3, PRIORS, CLASSES),
    }
    assert all(tensor.dtype == np.float32 for tensor in result.tensors.values())
    assert not any(tensor.flags.writeable for tensor in result.tensors.values())
    assert "cpu" in result.provider.lower()
    assert any(character.isdigit() for character in result.engine)  # it names its version
    assert 0 < result.seconds < 60


@pytest.mark.parametrize("name", RUNTIMES[1:])
def test_all_runtimes_give_what_pytorch_gives(runtimes, name):
    batch = images(2)

    expected = runtimes["torch"].run(batch).tensors
    actual = runtimes[name].run(batch).tensors

    for tensor in ("loc", "conf"):
        assert np.std(expected[tensor]) > 0.1
        np.testing.assert_allclose(actual[tensor], expected[tensor], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUNTIMES)
def test_each_image_is_computed_on_its_own(runtimes, name):
    batch = images(2)

    both = runtimes[name].run(batch).tensors
    second = runtimes[name].run(batch[1:]).tensors

    np.testing.assert_array_equal(both["conf"][1:], second["conf"])
    assert not np.array_equal(both["conf"][0], both["conf"][1])


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_input_stays_as_it_was(runtimes, name):
    batch = images(1)
    before = batch.copy()
    batch.setflags(write=False)

    runtimes[name].run(batch)

    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((3, 8, 8), np.float32),
        np.zeros((0, 3, 8, 8), np.float32),
        np.zeros((1, 1, 8, 8), np.float32),
        np.zeros((1, 3, 8, 8), np.float64),
    ],
    ids=["no batch", "no image", "grey", "float64"],
)
def test_a_batch_of_another_kind_is_misuse(runtimes, name, batch):
    with pytest.raises(ValueError, match="the batch"):
        runtimes[name].run(batch)


@pytest.mark.parametrize("name", RUNTIMES)
def test_rows_with_gaps_in_memory_are_read_right(runtimes, name):
    batch = images(1)
    strided = np.asfortranarray(batch)

    expected = runtimes[name].run(batch).tensors["conf"]

    np.testing.assert_array_equal(runtimes[name].run(strided).tensors["conf"], expected)
