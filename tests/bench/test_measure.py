"""A whole small measurement: its facts, never its times."""

import pytest
from renderer.scenes import render_scene

from mbv3ssd_deploy.bench.measure import measure
from mbv3ssd_deploy.bench.targets import BenchRequest
from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.io.records import json_from_record, record_from_json
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.pipeline import lower_to_ncnn

QUICK = {"rounds": 5, "warmup": 1, "threads": (1,)}
# millions of priors for two boxes: ncnn does not check, and DetectionOutput reads beyond its blobs
CRASHING = """7767517
5 5
Input input 0 1 input 0=1000 1=1000 2=3
MemoryData loc 0 1 mbox_loc 0=8
MemoryData conf 0 1 mbox_conf 0=2 1=2
PriorBox priors 1 1 input mbox_priorbox -23300=4,1.0,2.0,3.0,4.0 9=9 10=9
DetectionOutput out 3 1 mbox_loc mbox_conf mbox_priorbox detection_out 0=2
"""


@pytest.fixture(scope="session")
def report(bench):
    images = [("first", render_scene(0).image), ("second", render_scene(1).image)]
    request = BenchRequest(layers=True, **QUICK)
    return measure([bench.folder / "deploy"], images, request)


def test_every_runtime_and_precision_has_a_row(report):
    assert [row.title for row in report.rows] == [
        "torch fp32, 1 thread",
        "onnx fp32, 1 thread",
        "ncnn fp32, 1 thread",
        "ncnn fp16, 1 thread",
        "ncnn bf16, 1 thread",
    ]
    assert report.failures == ()
    assert report.images == ("first", "second")


def test_all_stages_took_time_and_belong_together(report):
    for row in report.rows:
        assert row.rounds == 5
        assert min(row.prepare_ms, row.network_ms, row.finish_ms, row.load_ms) > 0
        assert row.both_ms >= max(row.network_ms, row.finish_ms)
        assert row.p90_ms >= row.both_ms
        assert row.peak_mb > row.network_mb > 0
        assert row.file_bytes > 10_000


def test_the_first_row_is_the_base(report):
    assert report.rows[0].ratio.median == 1.0
    assert report.rows[1].ratio.median != 1.0


def test_all_runtimes_have_the_same_scores(report):
    exact = [row.candidates for row in report.rows if row.precision == "fp32"]

    assert exact[0] > 0
    assert max(exact) - min(exact) <= 2  # one at the very threshold may fall on either side


def test_layers_are_those_of_each_network_and_add_up(report):
    kinds = {layers.title: {line.kind for line in layers.kinds} for layers in report.layers}

    assert "Conv2d" in kinds["torch fp32, 1 thread"]
    assert "Conv" in kinds["onnx fp32, 1 thread"]
    assert {"Convolution", "DetectionOutput"} <= kinds["ncnn fp32, 1 thread"]
    for layers in report.layers:
        assert len(layers.layers) == 10
        assert sum(line.share for line in layers.kinds) == pytest.approx(1.0)
        assert layers.layers[0].ms >= layers.layers[-1].ms > 0


def test_the_report_survives_json(report):
    assert record_from_json(type(report), json_from_record(report), where="x") == report


@pytest.mark.parametrize("outputs", [Outputs.CONCAT, Outputs.LEVELS])
def test_raw_heads_are_read_prior_by_prior(bench, report, outputs):
    bundle = bench.copy(f"raw-{outputs}")
    threshold = report.rows[1].score_threshold
    lower_to_ncnn(bundle.directory, NcnnRequest(outputs=outputs, score_threshold=threshold))
    images = [("first", render_scene(0).image), ("second", render_scene(1).image)]

    request = BenchRequest(("ncnn",), ("fp32",), **QUICK)
    (row,) = measure([bundle.directory], images, request).rows

    onnx = report.rows[1]
    assert row.candidates == pytest.approx(onnx.candidates, abs=2)
    assert row.detections == pytest.approx(onnx.detections, abs=2)


def test_a_row_that_crashes_is_named_and_the_others_go_on(bench, tmp_path):
    bundle = bench.copy("crashing")
    broken = tmp_path / "broken.param"
    broken.write_text("7767517\n2 2\nInput data 0 1 data 0=8 1=8 2=3\nNoSuchLayer n 1 1 data out\n")
    (tmp_path / "broken.bin").write_bytes(b"")

    request = BenchRequest(("ncnn",), ("fp32",), **QUICK)
    report = measure([bundle.directory, broken], request=request)

    assert [row.target for row in report.rows] == [str(bundle.directory)]
    assert "ncnn" in report.failures[0]
    assert str(broken) in report.failures[0]
    assert report.exit_code == 1


def test_a_target_may_be_given_twice(bench):
    request = BenchRequest(("onnx",), ("fp32",), **QUICK)

    report = measure([bench.folder / "deploy"] * 2, request=request)

    assert [row.title for row in report.rows] == ["onnx fp32, 1 thread"] * 2


def test_when_no_row_runs_it_is_an_error(tmp_path):
    path = tmp_path / "crashing.param"
    path.write_text(CRASHING)

    request = BenchRequest(("ncnn",), ("fp32",), **QUICK)
    with pytest.raises(RuntimeFailedError) as caught:
        measure([path], request=request)

    assert "died of SIG" in str(caught.value)
    assert caught.value.where == str(path)


def test_truncated_weights_are_an_error(tmp_path, bench):
    bundle = bench.copy("cut")
    path = tmp_path / "cut.param"
    path.write_bytes(bundle.param_path.read_bytes())
    (tmp_path / "cut.bin").write_bytes(bundle.bin_path.read_bytes()[:1000])

    with pytest.raises(RuntimeFailedError):
        measure([path], request=BenchRequest(("ncnn",), ("fp32",), **QUICK))
