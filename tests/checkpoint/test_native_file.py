import pytest
import safetensors.torch
import torch
from builders import tiny_input, tiny_net, tiny_spec
from checkpoint_files import saved

from mbv3ssd_deploy.checkpoint.load import LoadOptions, load_detector
from mbv3ssd_deploy.checkpoint.native_file import FORMAT, write_native
from mbv3ssd_deploy.core.spec import ChannelOrder, ClipRule, ResizeRule, json_from_spec
from mbv3ssd_deploy.errors import CheckpointError, OutputError, SpecError


@pytest.mark.parametrize("name", ["n.pth", "n.safetensors"])
def test_net_and_spec_survive_the_file(tmp_path, name):
    spec, net = tiny_spec(num_classes=4), tiny_net(spec=tiny_spec(num_classes=4))
    write_native(tmp_path / name, net, spec)

    loaded = load_detector(tmp_path / name)

    assert loaded.spec == spec
    assert loaded.checkpoint.family == "native"
    x = torch.from_numpy(tiny_input(spec))
    with torch.no_grad():
        assert all(map(torch.equal, loaded.net(x), net(x)))
    assert loaded.provenance["priors"] == "file"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_native_file_is_readable_with_weights_only(tmp_path):
    write_native(tmp_path / "n.pth", tiny_net(), tiny_spec(), extra={"epoch": 3})

    entries = torch.load(tmp_path / "n.pth", weights_only=True)

    assert entries["format"] == FORMAT
    assert entries["schema"] == 1
    assert entries["spec"] == json_from_spec(tiny_spec())
    assert entries["epoch"] == 3
    assert load_detector(tmp_path / "n.pth").spec == tiny_spec()


def test_the_same_weights_without_a_spec_are_torchvision(tmp_path):
    net = tiny_net()

    loaded = load_detector(saved(tmp_path / "bare.pth", net.state_dict()))

    assert loaded.checkpoint.family == "torchvision"
    assert loaded.spec.priors.clip is ClipRule.SIZES
    assert loaded.spec.arch == tiny_spec().arch


def test_bare_safetensors_are_read_by_their_keys(tmp_path):
    path = tmp_path / "bare.safetensors"
    path.write_bytes(safetensors.torch.save(tiny_net().state_dict(), metadata={"format": "pt"}))

    assert load_detector(path).checkpoint.family == "torchvision"


def test_the_preset_is_one_that_ncnn_expresses():
    spec = tiny_spec()

    assert spec.priors.clip is ClipRule.NONE
    assert spec.coder.max_log_size is None
    assert not spec.decode.clip_before_nms
    assert spec.decode.iou_epsilon == 0.0
    assert spec.input.resize is ResizeRule.CV2_U8
    assert spec.input.channel_order is ChannelOrder.RGB


def test_another_image_size_moves_even_cells(tmp_path):
    write_native(tmp_path / "n.pth", tiny_net(), tiny_spec())

    spec = load_detector(tmp_path / "n.pth", LoadOptions(image_size=(128, 192))).spec

    assert spec == tiny_spec(image_size=(128, 192))


def test_another_image_size_is_refused_where_steps_are_fixed(tmp_path):
    spec = json_from_spec(tiny_spec())
    spec["priors"]["levels"][0]["step_x"] = 50.0
    entries = {"format": FORMAT, "schema": 1, "spec": spec, "state_dict": tiny_net().state_dict()}
    path = saved(tmp_path / "n.pth", entries)

    assert load_detector(path).spec.priors.levels[0].step_x == 50.0
    with pytest.raises(SpecError, match="fixed for 96 x 96, not 128 x 128"):
        load_detector(path, LoadOptions(image_size=(128, 128)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "native schema 2; this version reads 1"),
        ({"spec": None}, "has no spec"),
        ({"spec": {"name": "x"}}, r"arch is missing.*priors is missing"),
        ({"spec": {**json_from_spec(tiny_spec()), "speed": 1}}, "speed is unknown"),
        ({"spec": json_from_spec(tiny_spec(num_classes=5))}, "predict 3 classes, .* names 5"),
        ({"state_dict": {}}, "no weights"),
    ],
)
def test_a_native_file_that_contradicts_itself_is_refused(tmp_path, changes, message):
    entries = {
        "format": FORMAT,
        "schema": 1,
        "spec": json_from_spec(tiny_spec()),
        "state_dict": tiny_net().state_dict(),
    }
    path = saved(tmp_path / "n.pth", entries | changes)

    with pytest.raises((CheckpointError, SpecError), match=message) as info:
        load_detector(path)

    assert str(path) in info.value.where


def test_broken_metadata_of_safetensors_is_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    write_native(path, tiny_net(), tiny_spec())
    path.write_bytes(path.read_bytes().replace(b'{\\"name\\"', b'[\\"name\\"', 1))

    with pytest.raises(CheckpointError, match="metadata of the file is not valid JSON"):
        load_detector(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "n.pth"
    path.mkdir()

    with pytest.raises(OutputError):
        write_native(path, tiny_net(), tiny_spec())

    assert path.is_dir()


def test_extra_entries_may_not_hide_ours(tmp_path):
    with pytest.raises(ValueError, match="must not be called"):
        write_native(tmp_path / "n.pth", tiny_net(), tiny_spec(), extra={"spec": {}})
    with pytest.raises(ValueError, match="tensors only"):
        write_native(tmp_path / "n.safetensors", tiny_net(), tiny_spec(), extra={"epoch": 1})
    assert list(tmp_path.iterdir()) == []
