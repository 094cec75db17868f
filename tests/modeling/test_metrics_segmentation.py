"""gIoU and cIoU under both rules, against a set-of-pixels oracle and by hand."""

import math

import numpy as np
import pytest

from modeling.errors import DataError
from modeling.metrics.segmentation import PairAreas, Rule, measure_pair, score_pairs
from tests.modeling import oracles


def bar(start: int, stop: int) -> np.ndarray:
    """A mask of 10 x 20 pixels that is set in some columns."""
    mask = np.zeros((10, 20), dtype=bool)
    mask[:, start:stop] = True
    return mask


def test_by_hand() -> None:
    pairs = [
        measure_pair(bar(0, 10), bar(0, 20)),  # IoU 0.5
        measure_pair(bar(0, 5), None),  # false accept, 50 pixels
        measure_pair(None, bar(0, 10)),  # false reject, 100 pixels
        measure_pair(None, None),  # rightly not here
    ]
    psreid = score_pairs(pairs, rule=Rule.PSREID)
    assert (psreid.giou, psreid.ciou, psreid.num_pairs) == (pytest.approx(0.5 / 3), pytest.approx(100 / 350), 3)
    gres = score_pairs(pairs, rule=Rule.GRES)
    assert (gres.giou, gres.ciou, gres.num_pairs) == (pytest.approx(1.5 / 4), pytest.approx(100 / 350), 4)
    assert psreid.rule is Rule.PSREID


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("seed", range(10))
def test_scores_equal_the_slow_definitions(seed: int, rule: Rule) -> None:
    rng = np.random.default_rng(seed)

    def mask() -> np.ndarray | None:
        return rng.random((6, 7)) < 0.4 if rng.random() < 0.6 else None

    masks = [(mask(), mask()) for _ in range(20)]
    nested = [tuple(None if part is None else part.tolist() for part in pair) for pair in masks]
    scores = score_pairs((measure_pair(*pair) for pair in masks), rule=rule)
    giou, ciou = oracles.segmentation(nested, rule.value)
    assert scores.giou == pytest.approx(giou, abs=1e-12)
    assert scores.ciou == pytest.approx(ciou, abs=1e-12)


def test_absent_pairs_cannot_lift_the_psreid_score() -> None:
    pairs = [measure_pair(None, bar(0, 4)), *[measure_pair(None, None)] * 99]
    assert score_pairs(pairs, rule=Rule.PSREID).giou == 0.0
    assert score_pairs(pairs, rule=Rule.GRES).giou == pytest.approx(0.99)


def test_min_pixels_turns_a_small_mask_into_a_rejection() -> None:
    small = bar(0, 4)  # 40 pixels
    assert measure_pair(small, None, min_pixels=50) == PairAreas(0, 0, is_present=False, is_accepted=False)
    assert measure_pair(small, None, min_pixels=40).is_accepted
    assert measure_pair(small, bar(0, 4), min_pixels=50) == PairAreas(0, 40, is_present=True, is_accepted=False)
    assert measure_pair(small, bar(0, 4)).iou == 1.0


def test_an_accepted_empty_mask_stays_a_false_accept() -> None:
    pair = measure_pair(bar(0, 0), None)
    assert pair.is_accepted
    assert pair.iou == 0.0
    assert score_pairs([pair], rule=Rule.PSREID).num_pairs == 1


def test_no_pair_that_counts_is_nan_not_a_crash() -> None:
    scores = score_pairs([measure_pair(None, None)], rule=Rule.PSREID)
    assert math.isnan(scores.giou)
    assert math.isnan(scores.ciou)
    assert scores.num_pairs == 0
    only_absent = score_pairs([measure_pair(None, None)], rule=Rule.GRES)
    assert (only_absent.giou, only_absent.ciou) == (1.0, 1.0)


def test_masks_of_different_frames_are_refused() -> None:
    with pytest.raises(DataError, match="mask shapes differ"):
        measure_pair(bar(0, 3), np.ones((3, 3), dtype=bool))
