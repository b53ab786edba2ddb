"""The summary over seeds, against quantiles of Student's t as they are tabulated."""

import math

import pytest

from workbench.analysis.seeds import summarise

# t(0.975, degrees of freedom), NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2
QUANTILES = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 30: 2.042}


@pytest.mark.parametrize(("freedom", "quantile"), QUANTILES.items())
def test_the_interval_is_students(freedom, quantile):
    n = freedom + 1
    values = [0.5 + 0.01 * (i % 3) for i in range(n)]
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    summary = summarise(values)
    half = (summary.interval95[1] - summary.interval95[0]) / 2
    assert half == pytest.approx(quantile * deviation / math.sqrt(n), rel=2e-4)
    assert sum(summary.interval95) / 2 == pytest.approx(mean)


def test_three_seeds_by_hand():
    summary = summarise([0.8, 0.9, 0.7])
    assert (summary.n, summary.lowest, summary.highest) == (3, 0.7, 0.9)
    assert summary.mean == pytest.approx(0.8)
    assert summary.interval95 == pytest.approx((0.8 - 0.2484, 0.8 + 0.2484), abs=1e-4)  # 4.303 * 0.1 / sqrt(3)


def test_one_seed_has_no_interval_and_equal_seeds_one_of_no_width():
    assert summarise([0.5]).interval95 is None
    assert summarise([0.25, 0.25]).interval95 == (0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_no_summary_of_nothing(values):
    with pytest.raises(ValueError, match="finite"):
        summarise(values)
