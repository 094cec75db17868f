"""Matches that follow each other closely on one camera are one sighting: a person walked by.

Knows nothing of tables and pages. Arrays run over the matches of one query (N), in any order.
"""

import numpy as np
import numpy.typing as npt


def number_sightings(
    lanes_N: npt.NDArray[np.int64], times_N: npt.NDArray[np.float64], gap: float
) -> npt.NDArray[np.int64]:
    """(N,) the number of the sighting that each match belongs to, counted from 0 by lane and then time.

    A lane is one source video. A match starts a new sighting when it comes more than `gap` after the one before it in
    its lane (same unit as the times). A match without a time (NaN) is a sighting of its own.
    """
    order = np.lexsort((times_N, lanes_N))
    lanes, times = lanes_N[order], times_N[order]
    is_start = np.ones(len(order), dtype=bool)
    with np.errstate(invalid="ignore"):  # NaN compares as "not close", which is what it should mean
        is_start[1:] = (lanes[1:] != lanes[:-1]) | ~(np.diff(times) <= gap)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(is_start) - 1
    return numbers
