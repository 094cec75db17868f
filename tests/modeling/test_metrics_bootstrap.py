"""The bootstrap against what is known of it: a constant score, a normal approximation, and its own definition."""

import numpy as np
import pytest

from modeling.errors import DataError
from modeling.metrics.bootstrap import bootstrap_ratio


def test_a_score_that_is_the_same_for_every_query_has_no_width() -> None:
    interval = bootstrap_ratio(np.full(20, 0.25), np.ones(20))
    assert (interval.low, interval.high) == (0.25, 0.25)


def test_the_interval_of_a_share_is_about_two_standard_errors() -> None:
    hits = (np.arange(400) < 280).astype(float)
    interval = bootstrap_ratio(hits, np.ones(400), resamples=4000)
    error = np.sqrt(0.7 * 0.3 / 400)
    assert interval.low == pytest.approx(0.7 - 1.96 * error, abs=0.006)
    assert interval.high == pytest.approx(0.7 + 1.96 * error, abs=0.006)


def test_equals_the_definition_written_as_a_loop() -> None:
    rng = np.random.default_rng(3)
    above, below = rng.uniform(0, 5, 7), rng.uniform(1, 9, 7)
    drawn = np.random.default_rng(11).integers(7, size=(50, 7))
    ratios = [sum(above[i] for i in row) / sum(below[i] for i in row) for row in drawn]
    interval = bootstrap_ratio(above, below, resamples=50, seed=11)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(ratios, [0.025, 0.975]))


def test_queries_that_do_not_count_only_thin_the_sample() -> None:
    above, below = np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    interval = bootstrap_ratio(above, below, resamples=200)  # a resample without the first query has no score
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_nothing_to_score_gives_nan() -> None:
    for interval in (bootstrap_ratio([], []), bootstrap_ratio([0.0, 0.0], [0.0, 0.0])):
        assert np.isnan(interval.low) and np.isnan(interval.high)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(DataError, match=r"\(2,\).*\(3,\)"):
        bootstrap_ratio([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="resamples is 0"):
        bootstrap_ratio([1.0], [1.0], resamples=0)
