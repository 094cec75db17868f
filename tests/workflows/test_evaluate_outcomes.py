"""Outcomes and scores on cases small enough to work out by hand."""

import numpy as np
import pytest

from modeling.metrics.segmentation import Rule
from workflows.evaluate.outcomes import Asked, Outcome, QueryPairs, outcome_of, outcomes_table
from workflows.evaluate.pairs import TruePerson
from workflows.evaluate.persons import Persons, rank_frames, rank_persons
from workflows.evaluate.scores import score_gallery
from workflows.evaluate.threshold import best_threshold

NAN = np.nan
ASKED = Asked("G", "q", "both", "somebody")


def five_frames() -> QueryPairs:
    """A found positive, a rejected one, a false accept, a right reject, and a positive that was not judged."""
    return QueryPairs(
        frame_ids=["a", "b", "c", "d", "e"],
        scores=np.array([2.0, -1.0, 3.0, -2.0, NAN]),
        is_present=np.array([True, True, False, False, True]),
        is_accepted=np.array([True, False, True, False, False]),
        num_predicted_px=np.array([80.0, 40.0, 30.0, NAN, NAN]),
        num_true_px=np.array([100.0, 50.0, 0.0, 0.0, NAN]),
        num_shared_px=np.array([60.0, 40.0, NAN, NAN, NAN]),
    )


def outcome(pairs: QueryPairs, rule: Rule = Rule.PSREID, min_mask_px: int = 0) -> Outcome:
    return outcome_of(pairs, ASKED, rule=rule, min_mask_px=min_mask_px)


def test_ranking_counts_a_positive_that_was_not_judged_as_missed() -> None:
    one = outcome(five_frames())
    assert one.average_precision == pytest.approx((1 / 2 + 2 / 3) / 3)  # c, a, b, d; e is missed
    assert (one.first_rank, one.num_positives, one.num_not_judged) == (2, 3, 1)
    assert one.inverse_negative_penalty == 0.0
    assert not one.is_hit(1) and one.is_hit(2)


def test_masks_under_both_rules() -> None:
    one, gres = outcome(five_frames()), outcome(five_frames(), Rule.GRES)
    assert (one.iou_sum, one.num_iou) == (pytest.approx(60 / 120), 3)  # found; rejected 0; false accept 0
    assert (one.shared_px, one.union_px) == (60, 120 + 50 + 30)
    assert (gres.iou_sum, gres.num_iou) == (pytest.approx(60 / 120 + 1), 4)  # and the right reject 1
    assert (one.num_accepted, one.num_false_accepts, one.num_false_rejects) == (2, 1, 1)
    assert (one.drawn_iou_sum, one.num_drawn) == (pytest.approx(60 / 120 + 40 / 50), 2)


def test_a_mask_below_the_least_size_is_a_reject() -> None:
    one = outcome(five_frames(), min_mask_px=50)
    assert one.num_iou == 2  # the false accept of 30 pixels is none
    assert (one.shared_px, one.union_px) == (60, 120 + 50)


def test_a_benchmark_without_masks_gives_ranking_and_no_iou() -> None:
    pairs = five_frames()
    pairs.num_true_px[pairs.is_present] = NAN
    pairs.num_shared_px[:] = NAN
    one = outcome(pairs)
    assert (one.num_iou, one.num_drawn) == (1, 0)  # the false accept is known to be one
    assert one.average_precision > 0


def test_equal_scores_rank_by_frame_id() -> None:
    pairs = five_frames()
    pairs.scores[:] = 1.0
    assert [pairs.frame_ids[i] for i in pairs.order()] == ["a", "b", "c", "d", "e"]


def test_gallery_scores_are_ratios_over_queries_and_name_their_rule() -> None:
    found = outcome(five_frames().among(["a", "d"]))
    lost = outcome(five_frames().among(["b", "c"]))
    nobody = outcome(five_frames().among(["d"]))
    scores = score_gallery("G", [found, lost, nobody], rule=Rule.PSREID, resamples=100, seed=0)
    record = scores.record()
    assert record["top1"] == 0.5 and record["mAP"] == 0.75 and record["mINP"] == 0.75
    assert record["giou"] == pytest.approx(0.5 / 3, abs=1e-4) and record["ciou"] == 0.3
    assert (record["queries"], record["queries_with_positives"], record["rule"]) == (3, 2, "psreid")
    low, high = record["interval95"]["top1"]
    assert low == 0.0 and high == 1.0
    table = outcomes_table([found, nobody]).to_pylist()
    assert [row["rank_1"] for row in table] == [True, False]
    assert [row["average_precision"] for row in table] == [1.0, None]


def test_person_search_hits_the_best_person_on_the_true_box_and_counts_undetected_frames() -> None:
    box, near, far = [0.0, 0.0, 20.0, 60.0], [1.0, 0.0, 21.0, 60.0], [50.0, 0.0, 70.0, 60.0]
    persons = Persons(
        embeddings_ND=np.array([[0.9, 0.0], [0.8, 0.0], [1.0, 0.0], [0.5, 0.0]], dtype=np.float32),
        boxes_N4=np.array([far, box, near, far], dtype=np.float32),
        rows_of={"a": np.array([0, 1]), "b": np.array([2]), "c": np.array([3])},
    )
    true = {"a": TruePerson(box, None), "c": TruePerson(box, None), "d": TruePerson(box, None)}
    vector = np.array([1.0, 0.0], dtype=np.float32)
    ranking = rank_persons(persons, vector, ["a", "b", "c", "d"], true)
    assert ranking.is_right.tolist() == [False, False, True, False]  # b's, a's far one, a's true one, c's far one
    assert ranking.num_missed == 2  # c's person was not detected there, d holds no person at all
    frames = rank_frames(persons, vector, ["a", "b", "c", "d"], true)
    assert frames.is_right.tolist() == [False, True, True, True]


def test_the_best_threshold_equals_trying_them_all() -> None:
    rng = np.random.default_rng(4)
    queries = []
    for number in range(6):
        count = 12
        is_present = rng.random(count) < 0.3
        true = np.where(is_present, 100.0, 0.0)
        shared = np.where(is_present, rng.integers(20, 100, count), NAN)
        scores = np.round(rng.normal(size=count) + is_present, 1)  # ties among them
        if number == 5:
            scores[0] = NAN
        predicted = np.where(is_present, 100.0, NAN)
        ids = [str(n) for n in range(count)]
        queries.append(QueryPairs(ids, scores, is_present, scores > 0, predicted, true, shared))

    def giou(threshold: float) -> float:
        above = counted = 0.0
        for pairs in queries:
            for n in range(12):
                if np.isnan(pairs.scores[n]):
                    continue
                accepted, present = pairs.scores[n] > threshold, pairs.is_present[n]
                counted += accepted or present
                if accepted and present:
                    above += pairs.num_shared_px[n] / (200 - pairs.num_shared_px[n])
        return above / counted

    tried = {threshold: giou(threshold) for threshold in np.arange(-4, 4, 0.05)}
    found = best_threshold(queries)
    assert found is not None and found.giou == pytest.approx(max(tried.values()))
    assert giou(found.threshold) == pytest.approx(found.giou)
    assert best_threshold([QueryPairs.none()]) is None
