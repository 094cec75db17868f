"""Retrieval scores against their definitions written out slowly, and the corners that reference code gets wrong."""

import math

import numpy as np
import pytest

from modeling.errors import DataError
from modeling.metrics.retrieval import (
    Labels,
    Ranking,
    average_precision,
    inverse_negative_penalty,
    mean_ap_at_tau,
    rank_gallery,
    score_gallery,
    score_rankings,
)
from tests.modeling import oracles


def ranking(*is_right: int, num_missed: int = 0) -> Ranking:
    return Ranking(np.array(is_right, dtype=bool), num_missed)


def labels(identities: list[int], cameras: list[int] | None = None) -> Labels:
    return Labels(np.array(identities), None if cameras is None else np.array(cameras))


@pytest.mark.parametrize("seed", range(25))
def test_scores_equal_the_slow_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_queries, num_gallery = rng.integers(1, 12), rng.integers(1, 30)
    distances = rng.integers(0, 6, (num_queries, num_gallery)).astype(float)  # few values: many ties
    queries = Labels(rng.integers(0, 5, num_queries), rng.integers(0, 3, num_queries))
    gallery = Labels(rng.integers(0, 5, num_gallery), rng.integers(0, 3, num_gallery))
    people = list(zip(gallery.identities, gallery.cameras, strict=True))
    rankings = [
        oracles.ranked_matches(list(distances[row]), (queries.identities[row], queries.cameras[row]), people)
        for row in range(num_queries)
    ]
    valid = [is_right for is_right in rankings if any(is_right)]

    scores = score_gallery(distances, queries, gallery, max_rank=20)

    assert scores.num_scored == len(valid)
    if not valid:
        assert math.isnan(scores.mean_ap)
        assert math.isnan(scores.mean_inp)
        assert np.isnan(scores.cmc).all()
        return
    precisions = [oracles.average_precision(is_right) for is_right in valid]
    penalties = [oracles.inverse_negative_penalty(is_right) for is_right in valid]
    np.testing.assert_allclose(scores.average_precisions[~np.isnan(scores.average_precisions)], precisions, atol=1e-12)
    assert scores.mean_ap == pytest.approx(np.mean(precisions), abs=1e-12)
    assert scores.mean_inp == pytest.approx(np.mean(penalties), abs=1e-12)
    np.testing.assert_allclose(scores.cmc, oracles.cmc(valid, 20), atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("length", [None, 1, 4, 100])
def test_map_tau_equals_equation_1(seed: int, length: int | None) -> None:
    rng = np.random.default_rng(seed)
    distances, similarity = rng.random((6, 15)), rng.random((6, 15))
    queries, gallery = labels([0, 0, 1, 1, 2, 2]), labels(list(rng.permutation([0, 1, 2] * 5)))
    psi = [
        [
            bool(gallery.identities[place] == queries.identities[row] and similarity[row, place] >= 0.5)
            for place in np.argsort(distances[row])
        ]
        for row in range(6)
    ]
    found = mean_ap_at_tau(distances, queries, gallery, instruction_similarity_QG=similarity, tau=0.5, ap_length=length)
    assert found == pytest.approx(oracles.map_tau_eq1(psi, length or 15), abs=1e-12)


def test_map_tau_at_minus_one_is_map_and_falls_as_tau_rises() -> None:
    rng = np.random.default_rng(3)
    distances, similarity = rng.random((8, 40)), rng.uniform(-1, 1, (8, 40))
    queries, gallery = labels([0, 1, 2, 3] * 2), labels([0, 1, 2, 3] * 10)
    perfect = -(gallery.identities == queries.identities[:, None]).astype(float)

    def map_at(tau: float, given: np.ndarray) -> float:
        return mean_ap_at_tau(given, queries, gallery, instruction_similarity_QG=similarity, tau=tau)

    assert map_at(-1.0, distances) == pytest.approx(score_gallery(distances, queries, gallery).mean_ap)
    assert map_at(-1.0, perfect) == pytest.approx(1.0)
    assert map_at(0.0, perfect) < 1.0
    assert map_at(1.01, perfect) == 0.0  # no match is left: every query counts, as 0


def test_map_tau_includes_similarity_equal_to_tau() -> None:
    found = mean_ap_at_tau([[0.0]], labels([1]), labels([1]), instruction_similarity_QG=[[0.75]], tau=0.75)
    assert found == 1.0


def test_a_query_without_match_is_left_out_and_counted() -> None:
    scores = score_gallery([[0.1, 0.2], [0.1, 0.2]], labels([7, 1]), labels([1, 2]), max_rank=2)
    assert scores.num_scored == 1
    assert scores.mean_ap == 1.0
    assert math.isnan(scores.average_precisions[0])
    assert scores.average_precisions[1] == 1.0
    assert scores.cmc.tolist() == [1.0, 1.0]


def test_a_match_on_the_querys_own_camera_is_junk_not_a_match() -> None:
    queries = labels([1], [0])
    only_junk = score_gallery([[0.0]], queries, labels([1], [0]))
    assert only_junk.num_scored == 0
    gallery = labels([1, 2, 1], [0, 0, 1])  # the junk first, then a stranger of the same camera, then the match
    scores = score_gallery([[0.0, 0.1, 0.2]], queries, gallery, max_rank=3)
    assert scores.mean_ap == 0.5
    assert scores.cmc.tolist() == [0.0, 1.0, 1.0]
    without_cameras = score_gallery([[0.0, 0.1, 0.2]], labels([1]), labels([1, 2, 1]), max_rank=3)
    assert without_cameras.cmc.tolist() == [1.0, 1.0, 1.0]


def test_equal_distances_keep_the_gallerys_order() -> None:
    gallery = labels([1, 2] * 50)
    (ranked,) = rank_gallery(np.zeros((1, 100)), labels([2]), gallery)
    assert ranked.is_right.tolist() == [False, True] * 50


def test_a_gallery_smaller_than_max_rank_keeps_its_last_value() -> None:
    scores = score_gallery([[0.2, 0.1]], labels([1]), labels([1, 2]), max_rank=6)
    assert scores.cmc.tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("gallery", "cmc", "mean_ap", "num_scored"),
    [
        (([1], [1]), [1.0, 1.0, 1.0], 1.0, 1),  # the match alone
        (([2], [1]), None, math.nan, 0),  # a stranger alone
        (([1], [0]), None, math.nan, 0),  # junk alone
        (([], []), None, math.nan, 0),  # nobody
    ],
)
def test_a_gallery_of_one_image_or_none(
    gallery: tuple[list[int], list[int]], cmc: list[float] | None, mean_ap: float, num_scored: int
) -> None:
    distances = np.zeros((1, len(gallery[0])))
    scores = score_gallery(distances, labels([1], [0]), labels(*gallery), max_rank=3)
    assert scores.num_scored == num_scored
    np.testing.assert_equal(scores.cmc, np.full(3, np.nan) if cmc is None else cmc)
    np.testing.assert_equal([scores.mean_ap, scores.mean_inp], [mean_ap, mean_ap])


def test_no_query_at_all_scores_nothing() -> None:
    scores = score_gallery(np.zeros((0, 2)), labels([], []), labels([1, 2], [0, 0]), max_rank=2)
    assert scores.num_scored == 0
    assert math.isnan(scores.mean_ap)


def test_a_match_that_ties_with_a_stranger_is_where_the_gallery_has_it() -> None:
    before = score_gallery([[0.3, 0.3]], labels([1]), labels([1, 2]), max_rank=2)
    behind = score_gallery([[0.3, 0.3]], labels([1]), labels([2, 1]), max_rank=2)
    assert (before.mean_ap, behind.mean_ap) == (1.0, 0.5)


def test_rankings_of_different_lengths() -> None:
    scores = score_rankings([ranking(1), ranking(0, 0, 1, 1), ranking(), ranking(0, 0)], max_rank=3)
    assert scores.num_scored == 2
    assert scores.mean_ap == pytest.approx((1 + (1 / 3 + 2 / 4) / 2) / 2)
    assert scores.mean_inp == pytest.approx((1 + 2 / 4) / 2)
    assert scores.cmc.tolist() == [0.5, 0.5, 1.0]
    assert scores.top1 == 0.5


def test_missed_matches_lower_ap_and_empty_inp() -> None:
    assert average_precision(ranking(1, 0, num_missed=1)) == 0.5
    assert inverse_negative_penalty(ranking(1, 0, num_missed=1)) == 0.0
    assert score_rankings([ranking(num_missed=2)]).mean_ap == 0.0


def test_a_cut_length_divides_by_the_matches_it_returns() -> None:
    assert average_precision(ranking(1, 0, 0, 1), length=2) == 1.0
    assert average_precision(ranking(0, 0, 1), length=2) == 0.0
    assert score_rankings([ranking(0, 0, 1)], ap_length=2).num_scored == 1


def test_names_serve_as_identities_and_cameras() -> None:
    queries = Labels(np.array(["ann"]), np.array(["door"]))
    gallery = Labels(np.array(["ann", "bob", "ann"]), np.array(["door", "door", "yard"]))
    assert score_gallery([[0.0, 0.5, 0.1]], queries, gallery).mean_ap == 1.0


@pytest.mark.parametrize(
    ("distances", "queries", "gallery", "complaint"),
    [
        ([[0.0, 1.0]], labels([1]), labels([1]), "distances are"),
        ([[math.nan]], labels([1]), labels([1]), "NaN"),
        ([[0.0]], labels([1], [1]), labels([1]), "both"),
        ([[0.0]], labels([1], [1, 2]), labels([1], [1]), "cameras"),
    ],
)
def test_unusable_input_is_refused(
    distances: list[list[float]], queries: Labels, gallery: Labels, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        score_gallery(distances, queries, gallery)


def test_tau_needs_similarities_of_the_right_shape() -> None:
    with pytest.raises(DataError, match="together"):
        next(rank_gallery([[0.0]], labels([1]), labels([1]), tau=0.5))
    with pytest.raises(DataError, match="shape"):
        mean_ap_at_tau([[0.0]], labels([1]), labels([1]), instruction_similarity_QG=[[0.1, 0.2]], tau=0.5)
    with pytest.raises(DataError, match="max_rank"):
        score_rankings([], max_rank=0)
