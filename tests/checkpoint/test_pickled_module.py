"""The tensors of pickled modules come out bit-equal, and nothing in the file is run."""

import sys
import warnings

import numpy as np
import pytest
import torch
from checkpoint_files import saved
from forged_files import TensorOf, float_storage, module_of, pickled, wrap_pickle
from zoo import ZOO, needs_zoo, state_dict

from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.errors import CheckpointError, DeployError, UnsafeCheckpointError

SOURCE = """
import pathlib
import torch
from torch import nn

pathlib.Path({marker!r}).touch()


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)
        self.bn = nn.BatchNorm2d(4)

    def __setstate__(self, state):
        pathlib.Path({marker!r}).touch()
        super().__setstate__(state)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.act = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), self.act, Gate())
        self.again = self.body[2]  # one object under two names
        self.scale = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        self.fp16 = nn.Parameter(torch.randn(3).half())
        self.register_buffer("table", torch.randn(8, 2))
        self.register_buffer("rows", self.table[3:5])  # a part of the same storage
        self.register_buffer("empty", torch.zeros(0, 4))
        self.plain = torch.ones(3)  # an attribute: no part of the state_dict
"""
NAME = "code_that_vanishes"


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A module whose class is importable while it is saved, and whose import leaves a mark."""
    (tmp_path / f"{NAME}.py").write_text(SOURCE.format(marker=str(tmp_path / "it ran")))
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    yield __import__(NAME).Net()
    sys.modules.pop(NAME, None)


def read_without_classes(path, folder):
    """Read `path` while its classes are importable again; fail if that was ever done."""
    sys.modules.pop(NAME, None)
    (folder / "it ran").unlink(missing_ok=True)
    try:
        return read_checkpoint(path)
    finally:
        assert NAME not in sys.modules
        assert not (folder / "it ran").exists()


def assert_same(found, expected):
    assert list(found) == list(expected)
    assert all(found[key].dtype == tensor.dtype for key, tensor in expected.items())
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def optimizer_of(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sum(p.float().sum() for p in net.parameters()).backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_tensors_are_the_state_dict_in_its_order(tmp_path, net, legacy, protocol):
    entries = {"epoch": 4, "model": net, "optimizer": optimizer_of(net)}
    expected = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    path = saved(tmp_path / "net.pth.tar", entries, legacy=legacy, pickle_protocol=protocol)

    contents = read_without_classes(path, tmp_path)

    assert_same(contents.tensors, expected)
    assert contents.wrapping == ("weights taken from 'model'",)
    assert len(contents.notices) == 1
    assert f"a pickled module ({NAME}.Net)" in contents.notices[0]
    assert "nothing in it was run" in contents.notices[0]


def test_the_import_and_the_setstate_of_these_tests_are_real(tmp_path, net):
    path = saved(tmp_path / "net.pth", net)
    (tmp_path / "it ran").unlink()

    torch.load(path, weights_only=False)

    assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_bare_module_is_read_too_and_its_wrapper_comes_off(tmp_path, net, legacy):
    path = saved(tmp_path / "net.pth", torch.nn.DataParallel(net), legacy=legacy)

    contents = read_without_classes(path, tmp_path)

    assert_same(contents.tensors, net.state_dict())
    assert contents.wrapping == ("prefix 'module.' removed from every key",)


def test_plain_weights_come_before_an_averaged_module(tmp_path, net):
    path = saved(tmp_path / "net.pth", {"model": net, "ema": torch.nn.Linear(1, 1)})

    contents = read_without_classes(path, tmp_path)

    assert_same(contents.tensors, net.state_dict())
    assert any("not the averaged (EMA) ones under 'ema'" in notice for notice in contents.notices)


def test_what_is_read_may_be_written_to_and_outlives_the_file(tmp_path, net):
    path = saved(tmp_path / "net.pth", net, legacy=True)
    tensors = read_without_classes(path, tmp_path).tensors

    path.unlink()
    tensors["table"][3:5] = 7

    assert torch.equal(tensors["rows"], torch.full((2, 2), 7.0))


@needs_zoo
@pytest.mark.parametrize("legacy", [False, True])
def test_compact_large_as_its_authors_saved_it(tmp_path, monkeypatch, legacy):
    monkeypatch.syspath_prepend(ZOO)
    monkeypatch.delitem(sys.modules, "model", raising=False)
    import wrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no source text exists for the stand-in classes
        path = saved(tmp_path / "c.pth.tar", wrap.build(str(ZOO / "compact_large")), legacy=legacy)
    for name in ("model", "wrap", "weights"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    contents = read_checkpoint(path)

    assert_same(contents.tensors, state_dict("compact_large"))
    assert "model" not in sys.modules
    assert any("model.SSD300" in notice for notice in contents.notices)


def test_numbers_of_numpy_in_a_training_file_are_no_obstacle(tmp_path):
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    entries = {"model": weights, "best": np.float64(0.7), "curve": np.arange(4.0)}

    for number, legacy in enumerate((False, True)):
        contents = read_checkpoint(saved(tmp_path / f"{number}.pth", entries, legacy=legacy))

        assert_same(contents.tensors, weights)
        assert contents.notices == ()


class Link:
    """An object that links to another one; not a module."""


def module(**children):
    thing = Link()
    vars(thing).update(_modules=children, _parameters={}, _buffers={})
    return thing


def tensor(*, count=6, offset=0, size=(2, 3), stride=(3, 1), more=()):
    return TensorOf(float_storage("0", count), offset, size, stride, *more)


def self_containing():
    thing = module()
    thing._modules["inner"] = module(back=thing)
    return thing


def doubling():
    thing = module()
    for _ in range(40):
        thing = module(left=thing, right=thing)
    return thing


def deep():
    thing = module()
    for _ in range(80):
        thing = module(inner=thing)
    return thing


def wrapped_in_itself():
    entries = {"code": Link}  # makes it a file for the second reading
    entries |= dict.fromkeys(("model", "net"), entries)
    return {"model": entries, "net": entries}


def with_members(**members):
    thing = module()
    vars(thing).update(members)
    return thing


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (self_containing(), "contains itself"),
        (doubling(), "more than 100000 parts"),
        (deep(), "nests more than 64 deep"),
        (module(inner=3), "'inner' is among the modules but is not one"),
        (module(inner=Link()), "'inner' is among the modules but is not one"),
        (with_members(_buffers={"a": 3}), "'a' is among the tensors but is not one"),
        (with_members(_buffers=[1]), "_buffers of the .* is not a dictionary of names"),
        (with_members(_parameters={3: None}), "_parameters of the .* is not a dictionary of names"),
        (with_members(_buffers={"\x1b[2J": None}), "is not a dictionary of names"),
        (with_members(_buffers={"a" * 1000: None}), "is not a dictionary of names"),
        (
            with_members(
                _buffers={"a.b": tensor()}, _modules={"a": with_members(_buffers={"b": tensor()})}
            ),
            r"two tensors named a\.b",
        ),
        (Link(), "holds .*Link, which is neither a module nor a state_dict"),
        ({"model": Link()}, "no weights, only the entries model"),
        (module(), "no weights"),
        (wrapped_in_itself(), "no weights, only the entries code, model, net"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_no_sound_module_is_refused(tmp_path, thing, message, legacy):
    code = pickled(thing)
    storages = {"0": bytes(24)} if b"FloatStorage" in code else {}
    path = wrap_pickle(tmp_path / "w.pth", code, legacy=legacy, storages=storages)

    with pytest.raises(CheckpointError, match=message) as info:
        read_checkpoint(path)

    assert not isinstance(info.value, UnsafeCheckpointError)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_module_cut_off_anywhere_is_one_clear_error(tmp_path, net, legacy):
    path = saved(tmp_path / "net.pth", {"model": net}, legacy=legacy)
    data = path.read_bytes()

    for length in {*range(0, len(data), len(data) // 97), len(data) - 1, len(data) - 8}:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError) as info:
            read_without_classes(path, tmp_path)
        assert not isinstance(info.value, UnsafeCheckpointError)
        assert info.value.where == str(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bytes_of_a_module_never_escape_as_another_error(tmp_path, net, legacy):
    if legacy:
        path = saved(tmp_path / "net.pth", {"model": net}, legacy=True)
        data = np.frombuffer(path.read_bytes(), np.uint8)
    else:  # the archive checks its bytes itself: flip those of the pickle inside
        data = np.frombuffer(
            module_of(a=tensor(), b=tensor(offset=3, size=(3,), stride=(1,))), np.uint8
        )
        path = tmp_path / "net.pth"
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = data.copy()
        places = random.integers(min(len(data), 8000), size=2)
        broken[places] ^= random.integers(1, 256, 2, dtype=np.uint8)
        if legacy:
            path.write_bytes(broken.tobytes())
        else:
            wrap_pickle(path, broken.tobytes(), storages={"0": bytes(24)})
        try:
            read_without_classes(path, tmp_path)
        except DeployError:
            refused += 1

    assert refused > 30
