"""Verification of whole bundles: rows, missing evidence, and refused input."""

import json
import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from builders import tiny_net, tiny_spec
from bundle_folder import edit_layers

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.data.images import write_image
from mbv3ssd_deploy.errors import BundleError, DatasetError, RuntimeUnavailableError
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.precision import PrecisionMasks
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.onnx_body.body import read_body
from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn, verify
from mbv3ssd_deploy.verification.ncnn_files import read_files
from mbv3ssd_deploy.verification.report import Status, Verdict, json_from_report
from mbv3ssd_deploy.verification.rules import Check, Code
from mbv3ssd_deploy.verification.verify import verify_bundle


def rows(report):
    return {row.check: row for row in report.rows}


def lowered(bundle_folder, name, **request):
    """The good bundle's body, lowered with other options."""
    bundle = bundle_folder.copy(name)
    return lower_to_ncnn(bundle.directory, NcnnRequest(**request)).bundle


@pytest.fixture(scope="module")
def report(bundle_folder):
    return bundle_folder.verify(bundle_folder.good(), device="auto")


def test_the_report_names_runtimes_and_devices(report, bundle_folder):
    assert report.images == tuple(map(str, bundle_folder.images))
    assert report.skipped == ()
    assert report.reference.startswith("PyTorch ")
    assert report.reference_boxes >= 20
    assert "CPUExecutionProvider" in rows(report)[Check.ONNX_CPU].ran
    assert rows(report)[Check.NCNN_SHIPPED_FP16].ran == "ncnn on cpu, float16 storage"
    assert report.versions["ncnn"]


def test_all_three_tiers_are_in_the_report(report):
    exact = rows(report)[Check.NCNN_EXACT]

    assert [diff.name for diff in exact.heads] == ["loc", "conf", "scores"]
    assert all(diff.elements > 0 and math.isfinite(diff.needed_atol) for diff in exact.heads)
    assert exact.detections.matched_at(0.99) == exact.detections.counted >= 20
    priors = rows(report)[Check.NCNN_PRIORS].priors
    assert [level.carrier for level in priors.levels] == ["PriorBox"] * 6
    assert priors.worst_error < 1e-6


def test_the_report_is_json(report):
    plain = json.loads(json.dumps(json_from_report(report), allow_nan=False))

    assert (plain["verdict"], plain["exit_code"]) == ("PASS", 0)
    assert {row["check"] for row in plain["rows"]} >= {"onnx_cpu", "ncnn_exact", "ncnn_priors"}


def test_the_familys_rules_inform_and_never_fail(bundle_folder):
    bundle = lowered(bundle_folder, "strict-tail", score_threshold=0.3, keep_top_k=100)

    report = bundle_folder.verify(bundle)

    row = rows(report)[Check.NCNN_RULES]
    assert row.status is Status.INFO
    assert row.detections.reference > row.detections.actual
    assert report.verdict is Verdict.PASS


@pytest.mark.parametrize("outputs", [Outputs.CONCAT, Outputs.LEVELS])
def test_raw_heads_are_decoded_by_the_familys_rules(bundle_folder, outputs):
    report = bundle_folder.verify(lowered(bundle_folder, f"raw-{outputs}", outputs=outputs))

    assert report.verdict is Verdict.PASS
    assert rows(report)[Check.NCNN_EXACT].detections.counted == report.reference_boxes
    assert Check.NCNN_PRIORS not in rows(report)
    assert Check.NCNN_RULES not in rows(report)


def test_full_precision_storage_has_the_stricter_rule(bundle_folder):
    report = bundle_folder.verify(lowered(bundle_folder, "fp32", storage=Storage.FLOAT32))

    assert report.verdict is Verdict.PASS
    assert Check.NCNN_SHIPPED_FP32 in rows(report)
    assert Check.NCNN_SHIPPED_FP16 not in rows(report)


def test_a_bundle_without_guards_is_compared_with_its_own_record(bundle_folder):
    bare = lowered(bundle_folder, "unguarded", guards=PrecisionMasks(fp16=False, bf16=False))

    assert "31=" not in bare.param_path.read_text()
    assert read_files(bare, bare.manifest.ncnn, read_body(bare.body_path)).layout == ()


def test_constant_priors_are_proven_too(bundle_folder):
    report = bundle_folder.verify(lowered(bundle_folder, "constant", priors="constant"))

    assert report.verdict is Verdict.PASS
    carriers = {level.carrier for level in rows(report)[Check.NCNN_PRIORS].priors.levels}
    assert carriers == {"MemoryData"}


def test_a_body_that_takes_several_images_at_once(bundle_folder, tmp_path):
    bundle = export_checkpoint(
        bundle_folder.folder / "tiny.pth", tmp_path / "deploy", batch=2
    ).bundle

    report = verify_bundle(bundle, bundle_folder.images, device="cpu")

    assert rows(report)[Check.ONNX_CPU].status is Status.PASS
    assert len(report.images) % 2 == 1


def test_without_ncnn_files_the_row_has_a_hint(bundle_folder, tmp_path):
    bundle = export_checkpoint(bundle_folder.folder / "tiny.pth", tmp_path / "deploy").bundle

    report = verify_bundle(bundle, bundle_folder.images, device="cpu")

    row = rows(report)[Check.NCNN_EXACT]
    assert (row.status, report.verdict) == (Status.SKIPPED, Verdict.PASS)
    assert "to-ncnn" in row.note


def test_fewer_than_twenty_boxes_are_not_enough_evidence(bundle_folder, tmp_path):
    spec = tiny_spec(num_classes=4)
    spec = replace(spec, decode=replace(spec.decode, keep_total=5))
    write_native(tmp_path / "tiny.pth", tiny_net(spec=spec), spec)
    export_checkpoint(tmp_path / "tiny.pth", tmp_path / "deploy")
    bundle = lower_to_ncnn(tmp_path / "deploy").bundle

    report = verify_bundle(bundle, bundle_folder.images, device="cpu")

    assert report.reference_boxes == 15
    assert (report.verdict, report.exit_code) == (Verdict.NOT_ENOUGH_EVIDENCE, 1)
    assert {reason.code for reason in report.reasons} == {Code.TOO_FEW_BOXES}
    assert "only 15 reference boxes; at least 20 are needed" in report.reasons[0].text


def test_an_empty_detection_out_is_not_a_failure(bundle_folder):
    bundle = lowered(bundle_folder, "sure-only", score_threshold=0.999999)

    report = bundle_folder.verify(bundle)

    row = rows(report)[Check.NCNN_EXACT]
    assert (row.status, row.detections.actual) == (Status.UNPROVEN, 0)
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE


def test_no_images_are_refused(bundle_folder):
    with pytest.raises(DatasetError, match="no image to verify on"):
        verify_bundle(bundle_folder.good(), [])


def test_broken_images_among_good_ones_are_left_out_and_named(bundle_folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(bundle_folder.images[0].read_bytes()[:100])

    report = verify_bundle(bundle_folder.good(), [broken, *bundle_folder.images], device="cpu")

    assert report.images == tuple(map(str, bundle_folder.images))
    assert [left.image for left in report.skipped] == [str(broken)]
    assert report.verdict is Verdict.PASS


def test_only_broken_images_are_refused_by_name(bundle_folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")

    with pytest.raises(DatasetError, match=r"broken\.png"):
        verify_bundle(bundle_folder.good(), [broken], device="cpu")


def test_the_limit_takes_the_first_images(bundle_folder):
    copy = bundle_folder.copy("limited")

    report = verify(copy.directory, bundle_folder.images, device="cpu", limit=1)

    assert report.images == (str(bundle_folder.images[0]),)


def test_more_images_than_fit_in_memory_at_once(bundle_folder, monkeypatch):
    monkeypatch.setattr("mbv3ssd_deploy.verification.reference.CHUNK", 2)
    whole = bundle_folder.verify(bundle_folder.good())

    assert whole.verdict is Verdict.PASS
    assert len(whole.images) == 3
    elements = rows(whole)[Check.NCNN_EXACT].heads[0].elements
    assert elements == 3 * bundle_folder.good().spec.priors.count * 4


def test_a_missing_checkpoint_names_the_flag(bundle_folder, tmp_path):
    shutil.copytree(bundle_folder.folder / "deploy", tmp_path / "elsewhere" / "deploy")
    moved = Bundle(tmp_path / "elsewhere" / "deploy", bundle_folder.good().manifest)

    with pytest.raises(BundleError) as raised:
        verify_bundle(moved, bundle_folder.images)
    assert "--checkpoint FILE" in raised.value.hint

    report = verify_bundle(
        moved, bundle_folder.images, checkpoint=bundle_folder.folder / "tiny.pth", device="cpu"
    )
    assert report.verdict is Verdict.PASS


def test_a_changed_checkpoint_is_refused_and_another_one_fails(bundle_folder, tmp_path):
    deploy = tmp_path / "deploy"
    shutil.copytree(bundle_folder.folder / "deploy", deploy)
    record = replace(
        bundle_folder.good().manifest.checkpoint,
        path=os.path.relpath(tmp_path / "tiny.pth", deploy),
    )
    bundle = Bundle(deploy, replace(bundle_folder.good().manifest, checkpoint=record))
    spec = tiny_spec(num_classes=4)
    write_native(tmp_path / "tiny.pth", tiny_net(seed=1, spec=spec), spec)

    with pytest.raises(BundleError, match="has changed since") as raised:
        verify_bundle(bundle, bundle_folder.images)
    assert "--checkpoint FILE" in raised.value.hint

    report = verify_bundle(
        bundle, bundle_folder.images, checkpoint=tmp_path / "tiny.pth", device="cpu"
    )
    assert report.verdict is Verdict.FAIL
    assert rows(report)[Check.ONNX_CPU].status is Status.FAIL


def test_a_checkpoint_that_is_not_there_is_refused(bundle_folder, tmp_path):
    with pytest.raises(BundleError, match="no such checkpoint"):
        verify_bundle(
            bundle_folder.good(),
            bundle_folder.images,
            checkpoint=tmp_path / "none.pth",
            device="cpu",
        )


def test_a_gpu_that_is_not_there(bundle_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    report = bundle_folder.verify(bundle_folder.good(), device="auto", limit=1)

    for check in (Check.ONNX_CUDA, Check.TORCH_CUDA):
        assert rows(report)[check].status is Status.SKIPPED
        assert "cuda" in rows(report)[check].note.lower()
    with pytest.raises(RuntimeUnavailableError):
        bundle_folder.verify(bundle_folder.good(), device="cuda")


def test_an_unknown_device_is_a_value_error(bundle_folder):
    with pytest.raises(ValueError, match="tpu"):
        bundle_folder.verify(bundle_folder.good(), device="tpu")


def test_progress_reaches_its_end_for_every_runtime(bundle_folder):
    told = {}

    def note(step, done, total):
        told.setdefault(step, []).append((done, total))

    bundle_folder.verify(bundle_folder.good(), on_progress=note)

    assert set(told) == {"PyTorch", "ONNX Runtime", "ncnn exact", "ncnn as shipped"}
    for steps in told.values():
        assert (steps[0], steps[-1]) == ((0, 3), (3, 3))


def test_images_of_any_size_and_shape_pass(bundle_folder, tmp_path):
    sizes = [(96, 96), (31, 200), (300, 40)]
    paths = [tmp_path / f"{h}x{w}.png" for h, w in sizes]
    random = np.random.default_rng(0)
    for path, (height, width) in zip(paths, sizes, strict=True):
        write_image(path, random.integers(0, 256, (height, width, 3), np.uint8))

    assert verify_bundle(bundle_folder.good(), paths, device="cpu").verdict is Verdict.PASS


def test_the_shipped_bytes_are_what_runs(bundle_folder):
    bundle = bundle_folder.copy("bytes")
    edit_layers(bundle, lambda layer: layer)

    assert bundle.bin_path.read_bytes() == bundle_folder.good().bin_path.read_bytes()
    assert bundle.param_path.read_bytes() == bundle_folder.good().param_path.read_bytes()
