"""Scores so close that rounding ranks them: the reference's own heads separate ties from mistakes.

A model with given outputs stands in for a runtime.
"""

import functools

import numpy as np
import pytest
from builders import tiny_spec

from mbv3ssd_deploy.core.detections import detections_from_heads
from mbv3ssd_deploy.runtimes.model import Output
from mbv3ssd_deploy.verification.detections import TIE
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.report import Status
from mbv3ssd_deploy.verification.rules import Check, Code
from mbv3ssd_deploy.verification.runtime_check import HeadsAdapter, RuntimeCheck, with_ties

SPEC = tiny_spec()
ROWS = np.arange(SPEC.priors.count)[:, None]


class Replayed:
    """A model with these heads as its output."""

    def __init__(self, loc, conf):
        self.heads = {"loc": loc, "conf": conf}

    def run(self, batch):
        assert len(batch) == 1
        return Output("replayed", "cpu", self.heads, 0.0)


def crowded_heads():
    """Each prior its own box; class 1 everywhere, at logits near 2 that suppress their likes."""
    conf = np.zeros((1, SPEC.priors.count, SPEC.num_classes), np.float32)
    conf[0, :, 1] = 2 + 0.02 * np.random.default_rng(5).random(SPEC.priors.count)
    return np.zeros((1, SPEC.priors.count, 4), np.float32), conf


def checked(conf, actual, loc, actual_loc=None):
    """The row of a runtime that gives `actual` where the reference gives `conf`."""
    found = tuple(detections_from_heads(*heads, SPEC) for heads in zip(loc, conf, strict=True))
    inputs = np.zeros((1, 3, SPEC.input.height, SPEC.input.width), np.float32)
    given = loc if actual_loc is None else actual_loc
    adapter = HeadsAdapter(Replayed(given, actual.astype(np.float32)), SPEC)
    check = RuntimeCheck(Check.ONNX_CPU, "replayed", adapter, SPEC)
    check.update(Chunk(("a.png",), inputs, inputs, loc, conf, found))
    return check.row()


def codes(row):
    return {reason.code for reason in row.reasons}


def boxes_of(loc, conf):
    return {tuple(box) for box in detections_from_heads(loc[0], conf[0], SPEC).boxes.tolist()}


@functools.cache
def tied_heads():
    """Heads with one tie that decides: the same, but for the last digits of one score."""
    loc, conf = crowded_heads()
    for prior in reversed(range(SPEC.priors.count - 1)):
        before, after = conf.copy(), conf.copy()
        before[0, prior + 1, 1] = np.nextafter(conf[0, prior, 1], np.float32(0))
        after[0, prior + 1, 1] = conf[0, prior, 1] + np.float32(1e-6)
        if boxes_of(loc, before) != boxes_of(loc, after):
            return loc, before, after
    raise AssertionError("no two neighbours compete")


def test_a_tie_that_falls_the_other_way_is_borderline_and_reported():
    loc, conf, actual = tied_heads()

    row = checked(conf, actual, loc)

    assert (row.status, row.reasons) == (Status.PASS, ())
    diff = row.detections
    assert 0 < max(diff.tied_lost, diff.tied_new) <= 0.02 * diff.reference
    assert diff.matched_at(0.99) == diff.counted == diff.reference - diff.tied_lost
    assert f"{diff.tied_lost} lost and {diff.tied_new} new boxes are ties" in row.note
    assert f"move by {TIE:g} or less" in row.note


def test_many_ties_are_too_many_borderline_boxes():
    loc, conf = crowded_heads()
    conf[..., 1] = 2.0
    ranked_by_chance = conf + 4e-6 * np.random.default_rng(2).random(conf.shape)

    row = checked(conf, ranked_by_chance, loc)

    assert codes(row) == {Code.TOO_MUCH_FLICKER}
    assert "or by a tie" in row.reasons[0].text


# scores of 0.6 shift by 1e-3 where logits do by 4e-3, and by 4e-4 under the factor
SHIFTS = {
    "every other score shifted by 1e-3": (lambda c: c + 4e-3 * (ROWS % 2) * (c > 0), True),
    "every other logit 0.09 % too large": (lambda c: c * (1 + 9e-4 * (ROWS % 2)), False),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_systematic_shift_of_scores_cannot_pose_as_ties(shift):
    loc, conf = crowded_heads()
    mistake, visible_in_the_heads = SHIFTS[shift]

    row = checked(conf, mistake(conf), loc)

    expected = {Code.BOXES_DIFFER} | ({Code.HEADS_DIFFER} if visible_in_the_heads else set())
    assert codes(row) == expected
    assert (row.detections.tied_lost, row.detections.tied_new, row.note) == (0, 0, "")


def test_boxes_that_are_off_cannot_pose_as_ties():
    loc, conf, actual = tied_heads()

    row = checked(conf, actual, loc, actual_loc=loc + np.float32(0.5))

    assert codes(row) == {Code.HEADS_DIFFER, Code.BOXES_DIFFER}
    assert row.detections.tied_new == 0


def test_only_scores_within_the_tie_are_moved():
    ours = np.float32([0.5, 0.5, 0.5, np.nan, 0.25])
    theirs = np.float32([0.5 + TIE / 2, 0.5 - TIE / 2, 0.501, 0.3, np.nan])

    moved = with_ties(ours, theirs)

    np.testing.assert_array_equal(moved, np.float32([theirs[0], theirs[1], 0.5, np.nan, 0.25]))
