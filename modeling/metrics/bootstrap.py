"""Confidence intervals by the percentile bootstrap over queries (Efron & Tibshirani 1993, ch. 13).

Every score of an evaluation is a ratio of two sums over queries: top-1 is hits over scored queries, gIoU is summed IoU
over counted pairs, cIoU is summed intersection over summed union. So one function serves all: queries are drawn with
replacement, both sums are taken again, and the interval holds the middle share of the ratios.

Shapes: Q = queries; B = resamples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modeling.errors import DataError

Array = npt.NDArray[np.float64]
BLOCK_DRAWS = 1 << 22  # drawn query numbers in memory at a time, 32 MB


@dataclass(frozen=True)
class Interval:
    """The middle share of the resampled scores; both ends NaN where no resample has a score."""

    low: float
    high: float


def bootstrap_ratio(
    numerator_Q: npt.ArrayLike,
    denominator_Q: npt.ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of sum(numerator) / sum(denominator) when queries are drawn anew; deterministic in the seed.

    A query that does not count has 0 in both. A resample whose denominators sum to 0 has no score and is left out.
    """
    above, below = np.asarray(numerator_Q, dtype=np.float64), np.asarray(denominator_Q, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1:
        raise DataError(f"numerators {above.shape} and denominators {below.shape} must be one number a query each")
    if resamples < 1 or not 0 < confidence < 1:
        raise DataError(f"resamples is {resamples} (at least 1), confidence is {confidence} (between 0 and 1)")
    if not above.size:
        return Interval(np.nan, np.nan)
    ratios = _resampled_ratios(above, below, resamples, np.random.default_rng(seed))
    if not ratios.size:
        return Interval(np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _resampled_ratios(above_Q: Array, below_Q: Array, resamples: int, rng: np.random.Generator) -> Array:
    """At most `resamples` ratios, some resamples at a time."""
    block = max(1, BLOCK_DRAWS // above_Q.size)
    ratios = []
    for start in range(0, resamples, block):
        drawn_BQ = rng.integers(above_Q.size, size=(min(block, resamples - start), above_Q.size))
        above_B, below_B = above_Q[drawn_BQ].sum(1), below_Q[drawn_BQ].sum(1)
        has_score = below_B > 0
        ratios.append(above_B[has_score] / below_B[has_score])
    return np.concatenate(ratios)
