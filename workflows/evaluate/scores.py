"""The scores of a gallery with their 95 % intervals, from the outcomes of its queries. Pure functions.

Every score is a sum over queries divided by another sum over queries, which is also what the bootstrap draws anew:

    top1, cmc5, cmc10   queries with a positive among the first frames / queries with a positive in the gallery
    mAP, mINP           summed AP, INP / the same queries
    giou                summed IoU / pairs that count under the rule
    ciou                summed intersection / summed union of the same pairs
    drawn_iou           summed IoU of the masks of all positives, accepted or not / positives: the masks by themselves
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modeling.metrics.bootstrap import Interval, bootstrap_ratio
from modeling.metrics.segmentation import Rule
from workflows.evaluate.outcomes import Outcome
from workflows.storage import JSON

DECIMALS = 4
Sums = tuple[float, float]

RETRIEVAL: Mapping[str, Callable[[Outcome], Sums]] = {
    "top1": lambda one: (one.is_hit(1), one.is_scored),
    "cmc5": lambda one: (one.is_hit(5), one.is_scored),
    "cmc10": lambda one: (one.is_hit(10), one.is_scored),
    "mAP": lambda one: (np.nan_to_num(one.average_precision), one.is_scored),
    "mINP": lambda one: (np.nan_to_num(one.inverse_negative_penalty), one.is_scored),
}
SEGMENTATION: Mapping[str, Callable[[Outcome], Sums]] = {
    "giou": lambda one: (one.iou_sum, one.num_iou),
    "ciou": lambda one: (one.shared_px, one.union_px),
    "drawn_iou": lambda one: (one.drawn_iou_sum, one.num_drawn),
}


@dataclass(frozen=True)
class Score:
    """A fraction of 1, None where nothing counts, with its 95 % interval."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class GalleryScores:
    """Everything said of one gallery."""

    gallery: str
    scores: Mapping[str, Score]
    counts: Mapping[str, int]
    rule: Rule | None
    """None where no masks were asked for."""

    def record(self) -> dict[str, JSON]:
        """The JSON of one gallery: scores by name, their intervals, counts, and the rule."""
        intervals = {
            name: [round(score.interval.low, DECIMALS), round(score.interval.high, DECIMALS)]
            for name, score in self.scores.items()
            if score.interval is not None
        }
        values = {name: _rounded(score.value) for name, score in self.scores.items()}
        rule = {} if self.rule is None else {"rule": self.rule.value}
        return {**values, "interval95": intervals, **self.counts, **rule}


def score_gallery(
    gallery: str, outcomes: Sequence[Outcome], *, rule: Rule | None, resamples: int, seed: int
) -> GalleryScores:
    """The scores of one gallery; `rule` None leaves the masks out."""
    wanted = RETRIEVAL if rule is None else {**SEGMENTATION, **RETRIEVAL}
    scores = {name: _score([sums(one) for one in outcomes], resamples, seed) for name, sums in wanted.items()}
    counts = {
        "queries": len(outcomes),
        "queries_with_positives": sum(one.is_scored for one in outcomes),
        "pairs": sum(one.num_frames for one in outcomes),
        "positives": sum(one.num_positives for one in outcomes),
        "not_judged": sum(one.num_not_judged for one in outcomes),
    }
    if rule is not None:
        for name in ("accepted", "false_accepts", "false_rejects"):
            counts[name] = sum(getattr(one, f"num_{name}") for one in outcomes)
    return GalleryScores(gallery, scores, counts, rule)


def _score(sums: Sequence[Sums], resamples: int, seed: int) -> Score:
    above, below = (np.array([pair[side] for pair in sums], dtype=np.float64) for side in (0, 1))
    if not below.sum():
        return Score(None, None)
    return Score(float(above.sum() / below.sum()), bootstrap_ratio(above, below, resamples=resamples, seed=seed))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
