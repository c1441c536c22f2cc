"""Rules, rows and verdicts: pass, fail, and not enough evidence."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.verification.detections import Cut, DetectionPair, compare_detections
from mbv3ssd_deploy.verification.report import (
    HEADER,
    Row,
    Status,
    Verdict,
    VerificationReport,
    json_from_report,
    judged,
)
from mbv3ssd_deploy.verification.rules import (
    MIN_REFERENCE_BOXES,
    PASS_RULE,
    RULES,
    Check,
    Code,
    Reason,
    box_reasons,
    head_reasons,
)
from mbv3ssd_deploy.verification.tensors import compare_tensors

EXACT, HALF = RULES[Check.NCNN_EXACT], RULES[Check.NCNN_SHIPPED_FP16]


def found(count, score=0.9):
    corners = np.arange(count, dtype=np.float32)[:, None] + np.float32((0, 0, 1, 1))
    return Detections(corners, np.full(count, score), np.ones(count))


def diff_of(reference, actual):
    pair = DetectionPair("a.png", reference, actual)
    return compare_detections([pair], Cut(0.3, 0.5, None))


def codes(reasons):
    return [reason.code for reason in reasons]


def heads(*values, rule=EXACT):
    expected = np.ones(len(values), np.float32)
    return (compare_tensors("conf", expected, np.float32(values), rule.heads, image="a.png"),)


def report(*rows, boxes=100):
    return VerificationReport(
        name="tiny",
        family="native",
        reference="PyTorch on cpu",
        checkpoint_sha256="0" * 64,
        rows=rows,
        images=("a.png",),
        skipped=(),
        reference_boxes=boxes,
        versions={"torch": "2"},
        seconds=1.5,
    )


def row(status=Status.PASS, check=Check.NCNN_EXACT, **changes):
    plain = Row(check, "ncnn exact", "cpu, fp32", status, detections=diff_of(found(30), found(30)))
    return replace(plain, **changes)


def test_equal_boxes_have_no_reason():
    assert box_reasons(EXACT, diff_of(found(30), found(30))) == ()


def test_one_lost_box_of_a_hundred_fails_the_exact_rule_and_not_the_half_one():
    diff = diff_of(found(100), found(99))

    assert codes(box_reasons(EXACT, diff)) == [Code.BOXES_DIFFER]
    assert "99 of 100 boxes" in box_reasons(EXACT, diff)[0].text
    assert box_reasons(HALF, diff) == ()


def test_boxes_that_the_reference_does_not_have_fail_too():
    assert codes(box_reasons(EXACT, diff_of(found(30), found(31)))) == [Code.BOXES_DIFFER]
    assert codes(box_reasons(HALF, diff_of(found(30), found(60)))) == [Code.BOXES_DIFFER]


def test_a_score_beyond_its_tolerance_fails_by_its_own_code():
    near, off, far = (diff_of(found(30), found(30, score)) for score in (0.8985, 0.897, 0.5))

    assert box_reasons(EXACT, near) == ()
    (reason,) = box_reasons(EXACT, off)
    assert reason.code is Code.SCORES_DIFFER
    assert "is off by 0.003; at most 0.002 is allowed" in reason.text
    assert box_reasons(HALF, off) == ()
    assert codes(box_reasons(HALF, far)) == [Code.SCORES_DIFFER]


def test_only_a_few_boxes_may_be_borderline():
    steady, faint = found(100), found(3, score=0.31)
    both = Detections(
        np.concatenate([steady.boxes, faint.boxes + 500]),
        np.concatenate([steady.scores, faint.scores]),
        np.ones(103),
    )

    assert codes(box_reasons(EXACT, diff_of(both, steady))) == [Code.TOO_MUCH_FLICKER]
    assert box_reasons(HALF, diff_of(both, steady)) == ()


def test_fewer_than_twenty_boxes_give_no_verdict():
    count = MIN_REFERENCE_BOXES - 1

    reasons = box_reasons(EXACT, diff_of(found(count), found(count)))

    assert codes(reasons) == [Code.TOO_FEW_BOXES]
    assert judged(reasons) is Status.UNPROVEN


def test_heads_beyond_their_tolerance_fail_where_enforced():
    assert head_reasons(EXACT, heads(1, 1.001)) == ()
    assert codes(head_reasons(EXACT, heads(1, 1.01))) == [Code.HEADS_DIFFER]
    assert head_reasons(HALF, heads(1, 1.05, rule=HALF)) == ()


def test_heads_in_another_direction_fail_even_where_only_reported():
    (reason,) = head_reasons(HALF, heads(1, -1, rule=HALF))

    assert reason.code is Code.HEADS_DIFFER
    assert "cosine 0.0" in reason.text


@pytest.mark.parametrize("rule", [EXACT, HALF])
def test_nan_heads_fail_by_their_own_code(rule):
    assert Code.NOT_FINITE in codes(head_reasons(rule, heads(1, math.nan, rule=rule)))


def test_all_checks_passed_is_a_pass():
    whole = report(row(), row(Status.INFO, detections=None), row(Status.SKIPPED, detections=None))

    assert (whole.verdict, whole.exit_code, whole.reasons) == (Verdict.PASS, 0, ())


def test_one_failed_check_fails_the_whole_and_gives_its_reason():
    bad = row(Status.FAIL, reasons=(Reason(Code.HEADS_DIFFER, "loc: off"),))

    whole = report(row(), bad)

    assert (whole.verdict, whole.exit_code) == (Verdict.FAIL, 1)
    assert whole.reasons == (Reason(Code.HEADS_DIFFER, "ncnn exact: loc: off"),)


@pytest.mark.parametrize(
    "whole",
    [
        report(row(), boxes=MIN_REFERENCE_BOXES - 1),
        report(row(), row(Status.UNPROVEN)),
        report(row(Status.SKIPPED, detections=None)),
        report(row(Status.PASS, detections=None)),
        report(),
    ],
    ids=["few boxes", "one unproven", "all skipped", "no boxes compared", "no rows"],
)
def test_missing_evidence_is_not_a_pass(whole):
    assert (whole.verdict, whole.exit_code) == (Verdict.NOT_ENOUGH_EVIDENCE, 1)


def test_a_failure_outranks_missing_evidence():
    bad = row(Status.FAIL, reasons=(Reason(Code.NOT_FINITE, "loc: NaN"),))

    assert report(bad, boxes=0).verdict is Verdict.FAIL


def test_the_table_has_one_cell_a_column():
    table = report(
        row(heads=heads(1, 1.25)), row(Status.SKIPPED, detections=None, note="no GPU")
    ).table()

    assert table[0] == HEADER
    assert {len(cells) for cells in table} == {len(HEADER)}
    assert dict(zip(HEADER, table[1], strict=True))["IoU 0.99"] == "30/30"
    assert dict(zip(HEADER, table[1], strict=True))["conf diff"] == "2.5e-01"
    assert table[2][-1] == "no GPU"


def test_json_is_strict_and_contains_the_rule():
    plain = json_from_report(report(row(heads=heads(1, math.nan))))

    text = json.dumps(plain, allow_nan=False)

    assert json.loads(text)["schema"] == 1
    assert plain["verdict"] == "PASS"
    assert plain["pass_rule"] == PASS_RULE
    assert plain["rows"][0]["heads"][0]["max_abs"] == "inf"
    assert plain["rows"][0]["detections"]["matched"] == [30, 30, 30]


def test_the_headline_counts_boxes():
    assert report(row()).headline == "PASS on 1 image: ncnn exact 30/30 boxes at IoU 0.99"
