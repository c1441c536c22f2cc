"""Results of a board in the report of verify."""

import json

import pytest

from mbv3ssd_deploy.errors import BundleError, FormatError
from mbv3ssd_deploy.pipeline import verify
from mbv3ssd_deploy.verification.report import (
    ROWS,
    Status,
    Verdict,
    device_rows,
    read_device_result,
)
from mbv3ssd_deploy.verification.rules import Code


def result_of(bundle, **changes):
    """The result of a self-test that passes."""
    rows = [{"name": name, "status": "PASS", "text": "well", "numbers": {}} for name in ROWS]
    rows[4]["numbers"] = {"loc": 1e-5, "conf": 2e-5, "limit": 1e-4, "not_finite": 0}
    rows[-1]["status"] = "INFO"
    files = {name: record.sha256 for name, record in bundle.manifest.files.items()}
    return {
        "schema": 1,
        "verdict": "PASS",
        "model": bundle.spec.name,
        "made_by": "mbv3ssd-deploy 0.1.0",
        "arithmetic": "fp16",
        "in_effect": "fp16s",
        "ncnn": "1.0",
        "library": "0.1.0",
        "architecture": "aarch64",
        "features": ["neon"],
        "threads": 1,
        "rounds": 20,
        "files": files,
        "rows": rows,
    } | changes


def written(folder, result):
    path = folder / "result.json"
    path.write_text(json.dumps(result))
    return path


def test_a_result_is_in_the_report(bundle_folder, tmp_path):
    path = written(tmp_path, result_of(bundle_folder.good()))

    report = verify(bundle_folder.good().directory, bundle_folder.images, device_results=[path])

    assert report.verdict is Verdict.PASS
    rows = [row for row in report.rows if row.title.startswith("device ")]
    assert [row.title for row in rows] == [f"device fp16s {name}" for name in ROWS]
    ran = "ncnn 1.0 on aarch64, fp16s (fp16 did not take effect)"
    assert {row.ran for row in rows} == {ran}
    assert rows[-1].status is Status.INFO


def test_a_board_that_failed_fails_the_bundle(bundle_folder, tmp_path):
    result = result_of(bundle_folder.good(), verdict="FAIL")
    result["rows"][3] |= {"status": "FAIL", "text": "8 of 99 are NaN", "numbers": {"worst": "inf"}}

    path = written(tmp_path, result)
    report = verify(bundle_folder.good().directory, bundle_folder.images, device_results=[path])

    assert report.exit_code == 1
    assert [(reason.code, reason.text) for reason in report.reasons] == [
        (Code.DEVICE_FAILED, "device fp16s priors: 8 of 99 are NaN")
    ]


@pytest.mark.parametrize(
    ("numbers", "in_effect", "words"),
    [
        ({"loc": 0.011, "conf": 0}, "fp16s", "loc is off by 0.011 of its root mean square"),
        ({"loc": 0, "conf": "nan"}, "fp16s", "conf is off by nan"),
        ({"loc": 0}, "fp16s", "conf is off by None"),
        ({"loc": 0, "conf": 0}, "fp8", "no limits for fp8"),
    ],
)
def test_heads_are_compared_with_todays_limits(bundle_folder, tmp_path, numbers, in_effect, words):
    result = result_of(bundle_folder.good(), in_effect=in_effect)
    result["rows"][4]["numbers"] = numbers

    found = device_rows(read_device_result(written(tmp_path, result), bundle_folder.good()))

    heads = found[ROWS.index("heads")]
    assert heads.status is Status.FAIL
    assert words in heads.reasons[0].text


def test_the_result_of_another_model_is_refused(bundle_folder, tmp_path):
    result = result_of(bundle_folder.good(), model="another")
    result["files"]["model.ncnn.bin"] = "0" * 64

    with pytest.raises(BundleError, match=r"another model \(another\): model.ncnn.bin had other"):
        read_device_result(written(tmp_path, result), bundle_folder.good())


def without(result, key):
    return {name: value for name, value in result.items() if name != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r | {"schema": 2}, "in schema 1"),
        (lambda r: [r], "in schema 1"),
        (lambda r: without(r, "ncnn"), "ncnn"),
        (lambda r: r | {"rows": r["rows"][1:]}, "has the rows preprocess, "),
        (lambda r: r | {"rows": []}, "has the rows none"),
        (lambda r: r | {"verdict": "FAIL"}, "contradicts its rows"),
        (lambda r: r | {"verdict": "MAYBE"}, "verdict"),
    ],
)
def test_an_incomplete_result_is_refused(bundle_folder, tmp_path, change, words):
    path = written(tmp_path, change(result_of(bundle_folder.good())))

    with pytest.raises(FormatError, match=words):
        read_device_result(path, bundle_folder.good())


def test_a_missing_file_or_invalid_json_is_refused(bundle_folder, tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_device_result(tmp_path / "none.json", bundle_folder.good())
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"\xff{")
    with pytest.raises(FormatError):
        read_device_result(broken, bundle_folder.good())
