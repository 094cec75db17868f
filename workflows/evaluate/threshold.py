"""Which threshold would have given the best gIoU: every one is scored at once, for masks of positives are all drawn.

Under rule `psreid` the gIoU at a threshold is the summed IoU of the positives above it, divided by the number of
positives and of other frames above it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflows.evaluate.outcomes import QueryPairs
from workflows.storage import JSON

DECIMALS = 4


@dataclass(frozen=True)
class BestThreshold:
    """Scores above `threshold` are matches, one threshold for all queries of the gallery."""

    threshold: float
    giou: float

    def record(self) -> dict[str, JSON]:
        return {"threshold": round(self.threshold, DECIMALS), "giou": round(self.giou, DECIMALS)}


def best_threshold(queries: Sequence[QueryPairs]) -> BestThreshold | None:
    """Over all judged pairs of a gallery; None where there is no positive with a mask."""
    scores, gains, costs, num_positives = [], [], [], 0
    for pairs in queries:
        known = pairs.is_judged & ~np.isnan(pairs.num_true_px)
        is_positive = known & (pairs.num_true_px > 0)
        union = pairs.num_predicted_px + pairs.num_true_px - pairs.num_shared_px
        iou = np.where(is_positive, np.nan_to_num(pairs.num_shared_px / np.maximum(union, 1)), 0.0)
        scores.append(pairs.scores[known])
        gains.append(iou[known])
        costs.append(~is_positive[known])
        num_positives += int(is_positive.sum())
    if not num_positives:
        return None
    score, gain, cost = np.concatenate(scores), np.concatenate(gains), np.concatenate(costs)
    order = np.argsort(-score, kind="stable")
    giou = np.cumsum(gain[order]) / (num_positives + np.cumsum(cost[order]))
    lowest = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # equal scores are taken together
    place = int(lowest[giou[lowest].argmax()])
    below = score[order][place + 1] if place + 1 < len(order) else score[order][place] - 1.0
    return BestThreshold(float(score[order][place] + below) / 2, float(giou[place]))
