"""A remark for each finding, with its figure; none for a sound table."""

from mbv3ssd_deploy.bench.remarks import remarks_on
from mbv3ssd_deploy.bench.report import Ratio

PLAIN_CPU = frozenset({"avx2"})


def test_a_sound_table_gets_no_remark(a_row):
    assert remarks_on([a_row(), a_row(runtime="onnx")], PLAIN_CPU) == ()


def test_heavy_post_processing_is_reported_with_its_candidates(a_row):
    row = a_row(network_ms=6.0, finish_ms=4.0, candidates=11000.0)

    (remark,) = remarks_on([row], PLAIN_CPU)

    assert "post-processing takes 40%: 11,000 candidates pass the threshold 0.01" in remark
    assert "to-ncnn --conf" in remark


def test_it_is_reported_once_per_runtime(a_row):
    heavy = {"network_ms": 6.0, "finish_ms": 4.0}
    rows = [a_row(**heavy), a_row(**heavy, threads=2, title="ncnn fp32, 2 threads", both_ms=6.0)]

    assert sum("post-processing" in remark for remark in remarks_on(rows, PLAIN_CPU)) == 1


def test_fp16_options_without_effect(a_row):
    rows = [a_row(), a_row(precision="fp16", title="ncnn fp16, 1 thread", both_ms=10.04)]

    (remark,) = remarks_on(rows, PLAIN_CPU)

    assert "the fp16 options do nothing on this CPU (1.00x fp32)" in remark
    assert "no float16 arithmetic" in remark


def test_fp16_that_helps_gets_no_remark(a_row):
    rows = [a_row(), a_row(precision="fp16", both_ms=6.0)]

    assert remarks_on(rows, PLAIN_CPU) == ()


def test_slow_bf16_is_reported_with_its_reason_if_known(a_row):
    rows = [a_row(), a_row(precision="bf16", title="ncnn bf16, 1 thread", both_ms=11.0)]

    (remark,) = remarks_on(rows, PLAIN_CPU)
    (other,) = remarks_on(rows, frozenset({"avx512_bf16"}))

    assert "slower than fp32 here (1.10x): this CPU has no AVX512_BF16" in remark
    assert "AVX512_BF16" not in other


def test_a_difference_within_the_noise_is_not_called_slow(a_row):
    noisy = Ratio(1.1, 0.9, 1.3)
    rows = [a_row(), a_row(precision="bf16", both_ms=11.0, ratio=noisy)]

    remarks = remarks_on(rows, PLAIN_CPU)

    assert not any("slower than" in remark for remark in remarks)


def test_threads_that_gain_nothing(a_row):
    rows = [a_row(), a_row(threads=2, title="ncnn fp32, 2 threads", both_ms=9.8)]

    (remark,) = remarks_on(rows, PLAIN_CPU)

    assert "2 threads gain little over one (0.98x)" in remark


def test_heavy_preparation(a_row):
    (remark,) = remarks_on([a_row(prepare_ms=10.0)], PLAIN_CPU)

    assert "preparing the image takes 50%" in remark


def test_a_noisy_machine_is_reported(a_row):
    (remark,) = remarks_on([a_row(), a_row(ratio=Ratio(0.9, 0.8, 1.0))], PLAIN_CPU)

    assert "1 of 2 ratios are uncertain by up to 0.10" in remark
