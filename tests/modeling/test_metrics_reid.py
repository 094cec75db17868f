"""Match rules, places and re-ranking against slow, obvious versions."""

import numpy as np
import pytest

from modeling.errors import DataError
from modeling.metrics.reid import MatchRule, Places, ReidLabels, places_in_gallery, relations
from modeling.metrics.reranking import rerank
from modeling.metrics.retrieval import Labels, score_gallery, score_rankings
from tests.modeling import oracles, slow_reranking


def _labels(*rows: tuple[str, str, str, str]) -> ReidLabels:
    """Rows of (identity, camera, clothes, modality)."""
    return ReidLabels(*(np.array([row[column] for row in rows], dtype=str) for column in range(4)))


QUERY = _labels(("a", "c1", "a1", "rgb"))
GALLERY = _labels(
    ("a", "c1", "a1", "rgb"), ("a", "c2", "a1", "rgb"), ("a", "c2", "a2", "rgb"), ("a", "c3", "a1", "ir"),
    ("b", "c2", "b1", "rgb"), ("b", "c3", "b1", "ir"), ("a", "c2", "", "rgb"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "matches", "junk"),
    [
        (MatchRule(), [1, 2, 3, 6], [0]),
        (MatchRule(same_camera_is_junk=False), [0, 1, 2, 3, 6], []),
        (MatchRule(clothes="same"), [1, 3, 6], [0, 2]),
        (MatchRule(clothes="different"), [2, 6], [0, 1, 3]),
        (MatchRule(clothes="same", gallery="rgb"), [1, 6], [0, 2, 3, 5]),
        (MatchRule(clothes="same", modality="other", gallery="other"), [3], [0, 1, 2, 4, 6]),
    ],
)
def test_relations(rule: MatchRule, matches: list[int], junk: list[int]) -> None:
    is_match, is_junk = relations(rule, QUERY, 0, GALLERY)
    assert (np.flatnonzero(is_match).tolist(), np.flatnonzero(is_junk).tolist()) == (matches, junk)


def test_a_joint_gallery_keeps_every_stranger() -> None:
    rule = MatchRule(modality="other", gallery="other")
    _, is_junk = relations(rule, QUERY, 0, GALLERY, is_joint=True)
    assert np.flatnonzero(is_junk).tolist() == [0, 1, 2, 6]


def test_places_give_the_scores_of_whole_rankings() -> None:
    rng = np.random.default_rng(0)
    distances = rng.random((12, 40)).round(1)  # with ties
    names = np.array(list("abcdef"))
    queries = ReidLabels(rng.choice(names, 12), rng.choice(names[:3], 12), np.full(12, ""), np.full(12, "rgb"))
    gallery = ReidLabels(rng.choice(names, 40), rng.choice(names[:3], 40), np.full(40, ""), np.full(40, "rgb"))
    expected = score_gallery(
        distances, Labels(queries.identities, queries.cameras), Labels(gallery.identities, gallery.cameras), max_rank=9
    )
    places = list(places_in_gallery(distances, queries, gallery, [MatchRule()] * 12))
    got = score_rankings((one.ranking() for one in places), max_rank=9)
    assert (got.mean_ap, got.mean_inp, got.num_scored) == (expected.mean_ap, expected.mean_inp, expected.num_scored)
    np.testing.assert_array_equal(got.cmc, expected.cmc)
    cut = score_rankings((one.ranking() for one in places), ap_length=5)
    whole = score_gallery(
        distances, Labels(queries.identities, queries.cameras), Labels(gallery.identities, gallery.cameras), ap_length=5
    )
    assert cut.mean_ap == whole.mean_ap


def test_map_at_tau_is_equation_1_and_2() -> None:
    # Matches at 1, 3 and 4 with similarities .9, .5, .2: at τ = .5 the list reads 1 0 1 0.
    places = Places(np.array([1, 3, 4]), np.array([0.9, 0.5, 0.2]))
    for tau, psi in ((0.25, [1, 0, 1]), (0.75, [1]), (0.1, [1, 0, 1, 1])):
        expected = oracles.map_tau_eq1([[bool(x) for x in psi]], length=10)
        assert score_rankings([places.ranking(tau=tau)]).mean_ap == pytest.approx(expected)
    assert score_rankings([places.ranking(tau=0.95)]).mean_ap == 0.0
    nobody = Places(np.zeros(0, np.int64), np.zeros(0))
    assert score_rankings([nobody.ranking()]).num_scored == 0


def test_bad_input() -> None:
    with pytest.raises(DataError, match="NaN"):
        list(places_in_gallery(np.array([[np.nan] * 7]), QUERY, GALLERY, [MatchRule()]))
    with pytest.raises(DataError, match="labels say"):
        list(places_in_gallery(np.zeros((1, 3)), QUERY, GALLERY, [MatchRule()]))
    with pytest.raises(DataError, match="differ in number"):
        ReidLabels(np.array(["a"]), np.array(["a", "b"]), np.array(["a"]), np.array(["a"]))


@pytest.mark.parametrize(("k1", "k2"), [(6, 3), (20, 6), (4, 1)])
def test_reranking_equals_the_slow_one(k1: int, k2: int) -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(5, 8))
    features = np.concatenate([centre + 0.4 * rng.normal(size=(6, 8)) for centre in centres])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features = features[rng.permutation(30)]
    got = rerank(features[:7], features[7:], k1=k1, k2=k2)
    expected = slow_reranking.rerank(features[:7].tolist(), features[7:].tolist(), k1, k2, 0.3)
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_reranking_of_a_single_picture_and_bad_numbers() -> None:
    assert rerank(np.eye(2)[:1], np.eye(2)[1:]).shape == (1, 1)
    with pytest.raises(DataError, match="k2 <= k1"):
        rerank(np.eye(2)[:1], np.eye(2)[1:], k1=2, k2=3)
