"""What can be measured, and the errors for what cannot."""

from pathlib import Path

import numpy as np
import pytest

from mbv3ssd_deploy.bench.targets import read_target
from mbv3ssd_deploy.errors import BundleError, FormatError
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.pipeline import lower_to_ncnn

FOREIGN = """7767517
2 2
Input data 0 1 data
Convolution c 1 1 data out 0=8 1=3 5=1 6=216
"""


def test_a_bundle_runs_on_everything(bench, tmp_path):
    target = read_target(bench.folder / "deploy", tmp_path, input_size=None)

    assert set(target.rows) == {"torch", "onnx", "ncnn"}
    assert target.missing == {}
    ncnn = target.rows["ncnn"]
    assert (ncnn.heads, ncnn.ends) == (("mbox_loc", "mbox_conf_softmax"), ("detection_out",))
    assert ncnn.classes == 4


def test_without_its_checkpoint_it_runs_on_all_but_torch(bench, tmp_path):
    bundle = bench.copy("moved/deploy")

    target = read_target(bundle.directory, tmp_path, input_size=None)

    assert "torch" not in target.rows
    assert "is missing" in target.missing["torch"]


@pytest.mark.parametrize(
    ("outputs", "heads"),
    [
        (Outputs.CONCAT, ("loc", "conf")),
        (Outputs.LEVELS, tuple(f"{name}_{i}" for name in ("loc", "conf") for i in range(6))),
    ],
)
def test_raw_heads_are_named_boxes_first(bench, tmp_path, outputs, heads):
    bundle = bench.copy(f"raw-{outputs}")
    lower_to_ncnn(bundle.directory, NcnnRequest(outputs=outputs))

    row = read_target(bundle.directory, tmp_path, input_size=None).rows["ncnn"]

    assert (row.heads, row.ends) == (heads, ())


def test_a_param_without_weights_gets_weights_and_an_input(tmp_path):
    path = tmp_path / "foreign.param"
    path.write_text(FOREIGN)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    target = read_target(path, scratch, input_size=(20, 30))

    row = target.rows["ncnn"]
    assert set(target.rows) == {"ncnn"}
    assert (row.input_name, row.heads, row.ends) == ("data", ("out",), ())
    assert np.load(row.tensor).shape == (3, 20, 30)
    assert Path(row.files[1]).stat().st_size == 4 * (1 + 216 + 8)
    assert "its weights are random" in target.notes[0]


def test_a_input_has_the_channels_that_its_layer_declares(tmp_path):
    path = tmp_path / "gray.param"
    path.write_text("7767517\n2 2\nInput x 0 1 x 0=8 1=6 2=1\nReLU r 1 1 x y\n")

    row = read_target(path, tmp_path, input_size=None).rows["ncnn"]

    assert np.load(row.tensor).shape == (1, 6, 8)


def test_its_own_weights_are_used_where_they_are(tmp_path):
    (tmp_path / "foreign.param").write_text(FOREIGN)
    (tmp_path / "foreign.bin").write_bytes(bytes(900))

    target = read_target(tmp_path / "foreign.param", tmp_path, input_size=(20, 30))

    assert target.rows["ncnn"].files[1] == str(tmp_path / "foreign.bin")
    assert target.notes == ()


def test_the_size_of_the_image_must_come_from_somewhere(tmp_path):
    (tmp_path / "foreign.param").write_text(FOREIGN)

    with pytest.raises(FormatError, match="declares no image size") as caught:
        read_target(tmp_path / "foreign.param", tmp_path, input_size=None)

    assert "--input-size" in caught.value.hint


@pytest.mark.parametrize("size", [(100_000, 100_000), (1, 1 << 40)])
def test_an_input_beyond_the_limit_is_refused_before_it_is_made(tmp_path, size):
    (tmp_path / "foreign.param").write_text(FOREIGN)

    with pytest.raises(FormatError, match="beyond the limit of 67,108,864 numbers"):
        read_target(tmp_path / "foreign.param", tmp_path, input_size=size)


def test_a_lone_body_runs_on_onnx_only(bench, tmp_path):
    body = bench.folder / "deploy" / "body.onnx"

    assert set(read_target(body, tmp_path, input_size=None).rows) == {"onnx"}


@pytest.mark.parametrize("name", ["weights.bin", "photo.jpg"])
def test_other_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"something")

    with pytest.raises(FormatError, match="neither a bundle folder, nor"):
        read_target(tmp_path / name, tmp_path, input_size=None)


def test_a_missing_bundle_is_reported_as_everywhere(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        read_target(tmp_path / "nowhere", tmp_path, input_size=None)
