"""Which rows are measured, and the reasons for those that are left out."""

import pytest

from mbv3ssd_deploy.bench.targets import BenchRequest, Target, plan_rows
from mbv3ssd_deploy.errors import BundleError, RuntimeUnavailableError, SpecError
from mbv3ssd_deploy.runtimes.bench_job import BenchRow


def a_target(*runtimes, **missing):
    rows = {r: BenchRow("deploy", r, "fp32", 1, "cpu", ("file",), None) for r in runtimes}
    return Target("deploy", rows, missing)


def titles(request, *targets):
    return [row.title for row in plan_rows(targets, request)[0]]


def test_all_runtimes_and_precisions_with_one_thread():
    request = BenchRequest(threads=(1,))

    assert titles(request, a_target("torch", "onnx", "ncnn")) == [
        "torch fp32, 1 thread",
        "onnx fp32, 1 thread",
        "ncnn fp32, 1 thread",
        "ncnn fp16, 1 thread",
        "ncnn bf16, 1 thread",
    ]


def test_only_what_was_requested():
    request = BenchRequest(("ncnn",), ("bf16",), (2, 1, 2))

    assert titles(request, a_target("onnx", "ncnn")) == [
        "ncnn bf16, 2 threads",
        "ncnn bf16, 1 thread",
    ]


def test_cuda_rows_have_no_thread_counts():
    request = BenchRequest(device="cuda", threads=(1, 2), precisions=("fp32",))

    assert titles(request, a_target("onnx", "ncnn")) == [
        "onnx cuda fp32, 1 thread",
        "ncnn fp32, 1 thread",
        "ncnn fp32, 2 threads",
    ]


def test_one_thread_is_timed_in_cpu_time_and_all_else_in_wall_time():
    request = BenchRequest(device="cuda", threads=(1, 2), precisions=("fp32",))

    rows, _ = plan_rows([a_target("onnx", "ncnn")], request)

    assert [row.clock for row in rows] == ["wall", "thread", "wall"]


def test_a_missing_runtime_among_others_is_reported():
    _, left_out = plan_rows([a_target("onnx", ncnn="no files")], BenchRequest(threads=(1,)))

    assert left_out == ("deploy: no ncnn row: no files",)


def test_a_target_without_any_row_is_refused_with_the_reason():
    with pytest.raises(BundleError, match="no files"):
        plan_rows([a_target("onnx", ncnn="no files")], BenchRequest(("ncnn",)))


def test_a_precision_that_no_runtime_has_is_refused():
    with pytest.raises(SpecError, match="onnx cannot compute in fp16"):
        plan_rows([a_target("onnx")], BenchRequest(("onnx",), ("fp16",)))


def test_ncnn_alone_on_cuda_is_refused_as_a_missing_device():
    with pytest.raises(RuntimeUnavailableError, match="ncnn does not run on CUDA"):
        plan_rows([a_target("ncnn")], BenchRequest(("ncnn",), device="cuda"))
