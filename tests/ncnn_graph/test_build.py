"""What a request means: the family's settings where it says nothing, refusals where ncnn fails."""

import dataclasses

import builders
import pytest

from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, tail_options
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

SPEC = builders.tiny_spec()


def spec_with(**changes):
    return dataclasses.replace(SPEC, decode=dataclasses.replace(SPEC.decode, **changes))


def test_a_silent_request_takes_the_family_s_settings():
    decode = SPEC.decode
    options = tail_options(SPEC, NcnnRequest())

    assert (
        options.score_threshold,
        options.iou_threshold,
        options.nms_top_k,
        options.keep_top_k,
    ) == (
        decode.score_threshold,
        decode.iou_threshold,
        decode.candidates_per_class,
        decode.keep_total,
    )


def test_no_limit_is_the_number_of_priors():
    options = tail_options(spec_with(candidates_per_class=None, keep_total=None), NcnnRequest())

    assert options.nms_top_k == options.keep_top_k == SPEC.priors.count


@pytest.mark.parametrize("name", ["nms_top_k", "keep_top_k"])
@pytest.mark.parametrize("limit", [0, -1, 2**31, 10**12])
def test_a_top_k_that_ncnn_cannot_read_is_refused(name, limit):
    with pytest.raises(SpecError, match=r"must lie within 1\.\.2147483647"):
        tail_options(SPEC, NcnnRequest(**{name: limit}))


@pytest.mark.parametrize("threshold", [0.0, 1e-9, 9.9e-7])
def test_a_score_threshold_that_leaves_boxes_undecoded_is_refused(threshold):
    with pytest.raises(SpecError, match="at least 1e-06: ncnn leaves boxes undecoded") as caught:
        tail_options(SPEC, NcnnRequest(score_threshold=threshold))
    with pytest.raises(SpecError, match="undecoded"):
        tail_options(spec_with(score_threshold=threshold), NcnnRequest())

    assert "--conf" in caught.value.hint


def test_the_least_score_threshold_passes_and_raw_heads_have_none():
    raw = tail_options(spec_with(score_threshold=0.0), NcnnRequest(outputs=Outputs.CONCAT))

    assert tail_options(SPEC, NcnnRequest(score_threshold=1e-6)).score_threshold == 1e-6
    assert raw.score_threshold == 0.0


@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(name, value):
    with pytest.raises(SpecError, match=r"within 0\.\.1"):
        tail_options(SPEC, NcnnRequest(**{name: value}))
