"""A bundle's files belong together, or the error says which command to run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import tiny_spec

from mbv3ssd_deploy.bundle.bundle import read_bundle, write_exported, write_ncnn
from mbv3ssd_deploy.bundle.manifest import (
    CheckpointRecord,
    Manifest,
    NcnnRecord,
    OnnxRecord,
    PriorLevelRecord,
    parse_manifest,
    render_manifest,
)
from mbv3ssd_deploy.errors import BundleError, OutputError

MANIFEST = Manifest(
    detector=tiny_spec(),
    checkpoint=CheckpointRecord("../model.pth", "ab" * 32, "native", ("a spec",), {"family": None}),
    onnx=OnnxRecord(17, 1, "torchscript", "onnxsim 0.8.1", 235),
    ncnn=None,
    files={},
    commands=("mbv3ssd-deploy export model.pth",),
    versions={"torch": "2.13.0"},
)
NCNN = NcnnRecord(
    "float16",
    "detections",
    "auto",
    (PriorLevelRecord(0, "PriorBox", 1e-8, "exact"),),
    0.01,
    0.45,
    300,
    300,
    188,
)


@pytest.fixture
def exported(tmp_path):
    return write_exported(tmp_path / "deploy", MANIFEST, b"body")


@pytest.fixture
def whole(exported):
    return write_ncnn(exported, NCNN, b"param", b"bin", "mbv3ssd-deploy to-ncnn")


def test_what_was_written_is_read(whole):
    found = read_bundle(whole.directory)

    assert found == whole
    assert found.has_ncnn
    assert found.manifest.commands == ("mbv3ssd-deploy export model.pth", "mbv3ssd-deploy to-ncnn")
    assert found.checkpoint_path.resolve() == (whole.directory / "../model.pth").resolve()
    assert read_bundle(whole.directory / "detector.json") == found


def test_a_new_export_takes_the_old_ncnn_files_and_report_away(whole):
    whole.report_path.write_text("{}")
    (whole.directory / "notes.txt").write_text("mine")

    write_exported(whole.directory, MANIFEST, b"new body")

    names = sorted(path.name for path in whole.directory.iterdir())
    assert names == ["body.onnx", "detector.json", "notes.txt"]
    assert not read_bundle(whole.directory).has_ncnn


def test_to_ncnn_again_keeps_one_command_of_each_kind(whole):
    again = write_ncnn(whole, NCNN, b"param 2", b"bin 2", "mbv3ssd-deploy to-ncnn --fp32")

    assert again.manifest.commands[1:] == ("mbv3ssd-deploy to-ncnn --fp32",)
    assert read_bundle(again.directory) == again


@pytest.mark.parametrize(
    ("spoil", "words", "command"),
    [
        (lambda d: (d / "body.onnx").write_bytes(b"other"), "body.onnx has changed", "export"),
        (lambda d: (d / "model.ncnn.bin").write_bytes(b""), "ncnn.bin has changed", "to-ncnn"),
        (lambda d: (d / "model.ncnn.param").unlink(), "ncnn.param is missing", "to-ncnn"),
        (lambda d: (d / "detector.json").unlink(), "has no detector.json", "export"),
        (lambda d: (d / "detector.json").write_text("{"), "is not JSON", "export"),
        (lambda d: (d / "detector.json").write_text("[]"), "not a detector.json", "export"),
    ],
    ids=["body", "bin", "param", "no manifest", "no json", "foreign json"],
)
def test_files_that_do_not_belong_together(whole, spoil, words, command):
    spoil(whole.directory)

    with pytest.raises(BundleError, match=words) as caught:
        read_bundle(whole.directory)

    assert f"mbv3ssd-deploy {command}" in caught.value.hint


def test_stale_ncnn_files_beside_a_fresh_export(exported):
    exported.param_path.write_bytes(b"of another model")

    with pytest.raises(BundleError, match="does not belong to this export"):
        read_bundle(exported.directory)


def test_no_folder_is_a_sentence(tmp_path):
    with pytest.raises(BundleError, match="no such bundle folder"):
        read_bundle(tmp_path / "deploy")


def edited(change):
    plain = json.loads(render_manifest(MANIFEST))
    change(plain)
    return json.dumps(plain).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(schema=99), "has schema 99, this version reads 1"),
        (lambda p: p.update(prior_count=1), "prior_count contradict"),
        (lambda p: p.update(surprise=1), "surprise is unknown"),
        (lambda p: p["detector"].pop("coder"), "detector.coder is missing"),
        (lambda p: p["detector"]["input"].update(channel_order="gbr"), "is 'gbr', not one of"),
        (lambda p: p["detector"]["input"].update(std=[0, 1, 1]), "std above 0"),
    ],
)
def test_an_edited_contract_is_refused(change, words):
    with pytest.raises(BundleError, match=words):
        parse_manifest(edited(change), where="detector.json")


def test_a_failed_write_leaves_the_old_bundle(whole):
    whole.report_path.mkdir()  # `remove` cannot unlink a folder

    with pytest.raises(OutputError):
        write_ncnn(whole, NCNN, b"param 2", b"bin 2", "again")

    assert read_bundle(whole.directory) == whole


def test_a_bundle_may_know_no_checkpoint(tmp_path):
    bundle = write_exported(tmp_path, replace(MANIFEST, checkpoint=None), b"body")

    assert read_bundle(tmp_path).checkpoint_path is None
    assert bundle.manifest.checkpoint is None


def test_the_checkpoint_is_found_behind_a_symbolic_link(exported, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    link = tmp_path / "far" / "away" / "link"
    link.symlink_to(exported.directory, target_is_directory=True)

    found = read_bundle(link).checkpoint_path

    assert found.resolve() == (exported.directory / "../model.pth").resolve()


def test_outputs_that_nobody_knows_are_named(whole):
    path = whole.directory / "detector.json"
    path.write_text(path.read_text().replace('"outputs": "detections"', '"outputs": "boxes"'))

    with pytest.raises(BundleError, match=r"ncnn\.outputs is 'boxes', not one of 'detections'"):
        read_bundle(whole.directory)


def test_a_detector_json_of_an_earlier_version_is_read():
    """Of the demo detector, written by the code before its files were merged."""
    path = Path(__file__).parent / "detector-schema1.json"
    data = path.read_bytes()

    manifest = parse_manifest(data, where=path.name)

    assert json.loads(render_manifest(manifest)) == json.loads(data)
    assert manifest.checkpoint.family == "native"
    assert set(manifest.files) == {"body.onnx", "model.ncnn.param", "model.ncnn.bin"}
    assert len(manifest.detector.class_names) == json.loads(data)["num_classes"]
