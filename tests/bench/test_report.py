"""Medians, percentiles and ratios of rounds."""

import numpy as np
import pytest

from mbv3ssd_deploy.bench.report import median_of, percentile_of, ratio_of


def test_a_ratio_is_taken_round_by_round():
    base = [1.0, 10.0, 100.0, 1000.0, 10000.0]  # a machine that grows slower and slower

    ratio = ratio_of([2 * value for value in base], base)

    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


def test_the_ratio_of_the_first_row_to_itself_is_exactly_one():
    ratio = ratio_of([3.0, 5.0], [3.0, 5.0])

    assert ratio.median == 1.0
    assert ratio.uncertainty == 0.0


def test_the_interval_holds_the_true_median_in_95_of_100_cases():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        ratio = ratio_of(list(random.lognormal(0.0, 0.3, 31)), [1.0] * 31)
        hits += ratio.low <= 1.0 <= ratio.high

    assert 930 <= hits <= 995


def test_more_rounds_narrow_the_interval():
    random = np.random.default_rng(1)
    few, many = (ratio_of(list(random.normal(1, 0.1, n)), [1.0] * n) for n in (11, 1001))

    assert many.uncertainty < few.uncertainty / 3


def test_percentiles():
    values = list(range(101))

    assert (median_of(values), percentile_of(values, 90)) == (50.0, 90.0)


@pytest.mark.parametrize(("values", "base"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_match_are_refused(values, base):
    with pytest.raises(ValueError, match="cannot be compared"):
        ratio_of(values, base)
