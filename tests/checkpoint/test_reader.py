"""What a file may be, and that nothing in it ever runs."""

import argparse
import datetime as dt
import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoint_files import Payload, saved, state_dict

from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def same(found, expected=WEIGHTS):
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.t7", "weights"])
@pytest.mark.parametrize("legacy", [False, True])
def test_both_containers_are_read_whatever_the_file_is_called(tmp_path, name, legacy):
    contents = read_checkpoint(saved(tmp_path / name, WEIGHTS, legacy=legacy))

    assert same(contents.tensors)
    assert contents.container == ("torch legacy" if legacy else "torch zip")
    assert contents.spec_json is None


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_later_pickle_protocols_are_read(tmp_path, legacy, protocol):
    path = saved(tmp_path / "w.pth", WEIGHTS, legacy=legacy, pickle_protocol=protocol)

    contents = read_checkpoint(path)

    assert same(contents.tensors)
    assert contents.notices == ()


def test_safetensors_are_read_by_content(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(safetensors.torch.save(WEIGHTS))

    contents = read_checkpoint(path)

    assert same(contents.tensors)
    assert contents.container == "safetensors"


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_common_wrappings_come_off(tmp_path, key):
    entries = {
        "epoch": 7,
        "optimizer": {"state": {0: torch.ones(2)}, "param_groups": []},
        "args": argparse.Namespace(lr=0.1, data="voc"),
        "best_loss": torch.tensor(2.0),
        key: {f"module.{name}": tensor for name, tensor in WEIGHTS.items()},
    }

    contents = read_checkpoint(saved(tmp_path / "w.pth", entries))

    assert same(contents.tensors)
    assert contents.wrapping == (
        f"weights taken from {key!r}",
        "prefix 'module.' removed from every key",
    )
    assert contents.notices == ()


def test_wrappings_may_be_nested(tmp_path):
    inner = {f"_orig_mod.module.{name}": tensor for name, tensor in WEIGHTS.items()}

    contents = read_checkpoint(saved(tmp_path / "w.pth", {"model": {"state_dict": inner}}))

    assert same(contents.tensors)


def test_plain_weights_come_before_averaged_ones(tmp_path):
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{k}": t + 1 for k, t in WEIGHTS.items()}}

    contents = read_checkpoint(saved(tmp_path / "w.pth", {"model_ema": averaged, "model": WEIGHTS}))

    assert same(contents.tensors)
    assert any(
        "not the averaged (EMA) ones under 'model_ema'" in notice for notice in contents.notices
    )


@pytest.mark.parametrize("key", ["model_ema", "ema", "ema_state_dict"])
def test_averaged_weights_alone_are_taken_and_reported(tmp_path, key):
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{k}": t for k, t in WEIGHTS.items()}}

    contents = read_checkpoint(saved(tmp_path / "w.pth", {key: averaged, "epoch": 3}))

    assert same(contents.tensors)
    assert any(
        "averaged (EMA) weights only" in notice and key in notice for notice in contents.notices
    )


def test_a_prefix_that_not_every_key_has_stays(tmp_path):
    entries = {"module.a": torch.ones(1), "b": torch.ones(1)}

    assert set(read_checkpoint(saved(tmp_path / "w.pth", entries)).tensors) == {"module.a", "b"}


def test_entries_that_are_no_tensors_are_told(tmp_path):
    contents = read_checkpoint(saved(tmp_path / "w.pth", {**WEIGHTS, "epoch": 3}))

    assert same(contents.tensors)
    assert contents.notices == ("entries that are not tensors were ignored: epoch",)


def test_the_allowance_for_namespaces_ends_with_the_call(tmp_path):
    path = saved(tmp_path / "w.pth", {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1)})
    read_checkpoint(path)

    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def payload_file(kind, path, marker):
    entries = {"state_dict": {**WEIGHTS, "extra": Payload(marker)}}
    if kind in ("zip", "legacy"):
        return saved(path, entries, legacy=kind == "legacy")
    path.write_bytes(pickle.dumps(entries["state_dict"]["extra"], protocol=int(kind)))
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "2", "3", "4", "5"])
def test_a_payload_is_refused_by_name_and_never_runs(tmp_path, kind):
    marker = tmp_path / "it ran"
    path = payload_file(kind, tmp_path / "w.pth", marker)

    with pytest.raises(UnsafeCheckpointError, match=r"would run (posix|nt)\.system") as info:
        read_checkpoint(path)

    assert not marker.exists()
    assert info.value.exit_code == 5
    assert info.value.where == str(path)
    assert "state_dict()" in info.value.hint


def test_the_payload_of_these_tests_is_real(tmp_path):
    marker = tmp_path / "it ran"

    pickle.loads(pickle.dumps(Payload(marker)))  # noqa: S301 -- the control of the tests above

    assert marker.exists()


@pytest.mark.parametrize("where", ["magic", "protocol", "system"])
def test_a_payload_ahead_of_the_object_of_a_legacy_file_is_refused_too(tmp_path, where):
    marker = tmp_path / "it ran"
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, WEIGHTS, []]
    parts[("magic", "protocol", "system").index(where)] = Payload(marker)
    path = tmp_path / "w.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts[:3]))

    with pytest.raises(UnsafeCheckpointError, match=r"\.system"):
        read_checkpoint(path)

    assert not marker.exists()


def hand_written_pickle(*lines):
    return b"\x80\x02" + b"".join(lines) + b"."


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (hand_written_pickle(b"cbuiltins\neval\n(X\x03\x00\x00\x001+1tR"), "builtins.eval"),
        (hand_written_pickle(b"(ios\nsystem\n"), "os.system"),
        (
            hand_written_pickle(
                b"\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x04true\x85R"
            ),
            "os.system",
        ),
        (hand_written_pickle(b"ctorch.hub\nload\n)R"), "torch.hub.load"),
        (hand_written_pickle(b"crunpy\nrun_path\n)R"), "runpy.run_path"),
    ],
)
def test_the_refusal_names_what_other_opcodes_want(tmp_path, code, name):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")

    with pytest.raises(UnsafeCheckpointError, match=name):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_date_of_a_training_script_is_refused_with_advice(tmp_path, legacy):
    entries = {"model": WEIGHTS, "saved": dt.date(2020, 2, 3)}

    with pytest.raises(UnsafeCheckpointError, match=r"would run datetime\.date") as info:
        read_checkpoint(saved(tmp_path / "w.pth", entries, legacy=legacy))

    assert "save only the weights" in info.value.hint


def script_module():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"net/{name}", b"")
    return buffer.getvalue()


def zip_of(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"abc")
    return buffer.getvalue()


def onnx_model():
    import onnx

    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"some notes\non training\n", "this is a text file"),
        ("épochs et résultats\n".encode() * 400, "this is a text file"),
        (b"\x00\x01\x02garbage\xff\xfe" * 50, "starts with the bytes 00 01 02"),
        (b"\x08", "starts with the bytes 08"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00abcdefgh", "a gzip archive"),
        (b"7767517\n2 2\n", r"an ncnn \.param file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x80\x02garbage", "damaged"),
        (b"\x80", "damaged"),
        (zip_of("a.txt", "b.txt"), "a zip archive of 2 files, none of which torch.save wrote"),
        (zip_of("a.npy", "b.npy"), r"NumPy \.npz"),
        (zip_of("archive/data.pkl"), "damaged"),
        (script_module(), "TorchScript"),
        (onnx_model(), "an ONNX model"),
        (pickle.dumps([1, 2, 3], protocol=2), "damaged: pickle exhausted"),
        ((90).to_bytes(8, "little") + b'{"a": 1', "safetensors file is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, data, message):
    path = tmp_path / "model.pth"
    path.write_bytes(data)

    with pytest.raises(CheckpointError, match=message) as info:
        read_checkpoint(path)

    assert info.value.where == str(path)
    assert not isinstance(info.value, UnsafeCheckpointError)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="this is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99, 0.9999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_one_clear_error(tmp_path, kind, share):
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        path.write_bytes(safetensors.torch.save(state_dict("torchvision_small")))
    else:
        saved(path, state_dict("torchvision_small"), legacy=kind == "legacy")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(CheckpointError, match=r"cut off|damaged") as info:
        read_checkpoint(path)

    assert not isinstance(info.value, UnsafeCheckpointError)
    assert info.value.where == str(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bytes_never_escape_as_another_error(tmp_path, kind):
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        path.write_bytes(safetensors.torch.save(WEIGHTS))
    else:
        saved(path, WEIGHTS, legacy=kind == "legacy")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        broken = data.copy()
        broken[random.integers(len(data), size=3)] ^= random.integers(1, 256, 3, dtype=np.uint8)
        path.write_bytes(broken.tobytes())
        try:
            read_checkpoint(path)
        except CheckpointError:
            refused += 1

    assert refused > 10


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (torch.ones(3), "holds a Tensor, not a state_dict"),
        ([torch.ones(3)], "holds a list, not a state_dict"),
        ({}, "no weights: its dictionary is empty"),
        ({"epoch": 3, "lr": 0.1}, "no weights, only the entries epoch, lr"),
        ({"model": {}}, "no weights"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, entries, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved(tmp_path / "w.pth", entries))


def test_the_sha256_is_of_the_whole_file(tmp_path):
    import hashlib

    path = saved(tmp_path / "w.pth", WEIGHTS)

    assert read_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
