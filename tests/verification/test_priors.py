"""All priors of a file compared with the checkpoint's own."""

import numpy as np
import pytest
from reference_specs import qfgaohao_spec

from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_priors, level_slices
from mbv3ssd_deploy.verification.priors import compare_priors
from mbv3ssd_deploy.verification.rules import Code

SPEC = qfgaohao_spec()
CARRIERS = ("PriorBox",) * 6


@pytest.fixture
def corners():
    return corners_from_centre(build_priors(SPEC.priors)).astype(np.float32)


@pytest.fixture
def variances():
    return np.tile(np.float32((0.1, 0.1, 0.2, 0.2)), (SPEC.priors.count, 1))


def compare(corners, variances):
    priorbox = np.stack([corners.ravel(), variances.ravel()])
    return compare_priors(SPEC, priorbox, carriers=CARRIERS)


def test_priors_rounded_to_float32_are_the_checkpoints(corners, variances):
    diff = compare(corners, variances)

    assert diff.passed
    assert diff.reason == ""
    assert (diff.count, diff.wrong) == (3000, 0)
    assert diff.worst_error < 1e-7
    assert diff.worst_iou > 0.99999


def test_a_shifted_level_is_named_and_the_others_are_not(corners, variances):
    rows = level_slices(SPEC.priors)[3]
    corners[rows] += np.float32(0.01)

    diff = compare(corners, variances)

    assert [level.wrong for level in diff.levels] == [0, 0, 0, 54, 0, 0]
    assert diff.max_px == pytest.approx(3.0, abs=1e-4)
    assert rows.start <= diff.worst_index < rows.stop
    (reason,) = diff.reasons()
    assert reason.code is Code.PRIORS_DIFFER
    assert "level 3 (PriorBox): 54 of 54 priors" in reason.text


def test_one_wrong_corner_among_thousands_is_found_and_located(corners, variances):
    corners[1234, 2] += np.float32(2e-6)

    diff = compare(corners, variances)

    assert (diff.wrong, diff.worst_index) == (1, 1234)
    assert diff.worst_actual[2] - diff.worst_expected[2] == pytest.approx(2e-6, rel=0.1)


def test_a_nan_prior_is_infinitely_wrong(corners, variances):
    corners[7] = np.nan

    diff = compare(corners, variances)

    assert (diff.wrong, diff.worst_error, diff.worst_iou) == (1, np.inf, 0.0)


def test_variances_are_compared_too(corners, variances):
    variances[0, 3] = 0.1

    (reason,) = compare(corners, variances).reasons()

    assert reason.code is Code.VARIANCES_DIFFER


def test_another_number_of_priors_is_refused(corners, variances):
    with pytest.raises(ValueError, match="not \\(2, 12000\\)"):
        compare(corners[:-1], variances[:-1])
