"""Retrieval scores: CMC, mAP, mINP, and Instruct-ReID++'s mAPτ.

A *ranking* is one query's candidates in the order a model gave them, each marked right or wrong. Everything is computed
from rankings, so galleries may differ in length from query to query. AP runs over the full ranking unless a length is
asked for. Knows nothing of models, frames or masks.

A query without any right candidate cannot be scored: it is left out of every mean and counted. When no query can be
scored, the means are NaN.

Shapes: Q = queries; G = gallery; R = one ranking's length; K = `max_rank`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modeling.errors import DataError
from modeling.regions import BoolArray

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """One query's candidates, the best first."""

    is_right: BoolArray
    """(R,) whether the candidate at each place is a match."""
    num_missed: int = 0
    """Right candidates that the ranking lacks altogether, such as persons no detector found; they lower the AP."""
    is_scored: bool | None = None
    """Whether the query counts in the means; None: when it has any right candidate, found or missed."""

    @property
    def num_right(self) -> int:
        """Right candidates, found or missed."""
        return int(np.count_nonzero(self.is_right)) + self.num_missed

    @property
    def counts(self) -> bool:
        """Whether the query is part of the means."""
        return self.num_right > 0 if self.is_scored is None else self.is_scored


@dataclass(frozen=True)
class RetrievalScores:
    """Scores over all queries, fractions of 1; per-query scores are NaN where the query could not be scored."""

    cmc: Array
    """(K,) share of queries with a match among their first 1, 2, ..., K candidates."""
    mean_ap: float
    """mAP."""
    mean_inp: float
    """mINP: mean of (number of matches) / (rank of the last match)."""
    average_precisions: Array
    """(Q,) AP of each query."""
    inverse_negative_penalties: Array
    """(Q,) INP of each query."""
    num_scored: int
    """Queries in the means."""

    @property
    def top1(self) -> float:
        """Share of queries whose first candidate is a match."""
        return float(self.cmc[0])


def average_precision(ranking: Ranking, *, length: int | None = None) -> float:
    """Mean of the precision at each match's place (eq. 1's inner sum), over all matches, found or missed.

    With `length` only the first candidates count, and only the matches among them divide: eq. 1's n and n_q. A ranking
    without a match scores 0.
    """
    is_right = ranking.is_right[:length]
    places = np.flatnonzero(is_right) + 1
    num_right = places.size if length is not None else ranking.num_right
    if num_right == 0:
        return 0.0
    precision = np.arange(1, places.size + 1) / places
    return float(precision.sum() / num_right)


def inverse_negative_penalty(ranking: Ranking) -> float:
    """Number of matches over the rank of the last one; 0 when a match is missing from the ranking."""
    places = np.flatnonzero(ranking.is_right) + 1
    if places.size == 0 or ranking.num_missed:
        return 0.0
    return float(places.size / places[-1])


def cumulative_match(ranking: Ranking, *, max_rank: int) -> Array:
    """(K,) 1 from the place of the first match on, else 0; a ranking shorter than K keeps its last value."""
    first = np.flatnonzero(ranking.is_right)[:1]
    return (np.arange(max_rank) >= (first[0] if first.size else max_rank)).astype(np.float64)


def score_rankings(rankings: Iterable[Ranking], *, max_rank: int = 50, ap_length: int | None = None) -> RetrievalScores:
    """The scores of many queries; `ap_length` cuts the rankings for AP only (None: the full ranking)."""
    _check_positive("max_rank", max_rank)
    if ap_length is not None:
        _check_positive("ap_length", ap_length)
    cmc_K, ap, inp = np.zeros(max_rank), [], []
    for ranking in rankings:
        ap.append(average_precision(ranking, length=ap_length) if ranking.counts else np.nan)
        inp.append(inverse_negative_penalty(ranking) if ranking.counts else np.nan)
        cmc_K += cumulative_match(ranking, max_rank=max_rank) if ranking.counts else 0
    ap_Q, inp_Q = np.array(ap, dtype=np.float64), np.array(inp, dtype=np.float64)
    is_scored_Q = ~np.isnan(ap_Q)
    num_scored = int(is_scored_Q.sum())
    if num_scored == 0:
        return RetrievalScores(np.full(max_rank, np.nan), np.nan, np.nan, ap_Q, inp_Q, 0)
    mean_ap, mean_inp = float(ap_Q[is_scored_Q].mean()), float(inp_Q[is_scored_Q].mean())
    return RetrievalScores(cmc_K / num_scored, mean_ap, mean_inp, ap_Q, inp_Q, num_scored)


@dataclass(frozen=True)
class Labels:
    """Who is on each image, and from which camera."""

    identities: npt.NDArray[np.generic]
    """Numbers or names."""
    cameras: npt.NDArray[np.generic] | None = None
    """Numbers or names; None: cameras play no part, and nothing is junk."""


def rank_gallery(
    distances_QG: npt.ArrayLike,
    queries: Labels,
    gallery: Labels,
    *,
    instruction_similarity_QG: npt.ArrayLike | None = None,
    tau: float | None = None,
) -> Iterator[Ranking]:
    """Each query's ranking of one shared gallery by rising distance; equal distances keep the gallery's order.

    An image of the query's identity from the query's own camera is junk and left out. With a similarity and `tau` a
    match must also have an instruction similarity of at least tau (eq. 2). A query whose identity is in its gallery
    then counts even when no match is left, as 0: the mean runs over the same queries for every tau.
    """
    distances = np.asarray(distances_QG, dtype=np.float64)
    _check_shapes(distances, queries, gallery)
    similarity = _check_similarity(instruction_similarity_QG, tau, distances.shape)
    for row, distance_G in enumerate(distances):
        is_same_G = gallery.identities == queries.identities[row]
        is_kept_G = ~(is_same_G & _is_same_camera(queries, gallery, row))
        is_match_G = is_same_G if similarity is None else is_same_G & (similarity[row] >= tau)
        order = np.argsort(distance_G, kind="stable")
        order = order[is_kept_G[order]]
        yield Ranking(is_match_G[order], is_scored=bool(is_same_G[order].any()))


def score_gallery(
    distances_QG: npt.ArrayLike, queries: Labels, gallery: Labels, *, max_rank: int = 50, ap_length: int | None = None
) -> RetrievalScores:
    """CMC, mAP and mINP of one shared gallery, junk left out (see `rank_gallery`)."""
    return score_rankings(rank_gallery(distances_QG, queries, gallery), max_rank=max_rank, ap_length=ap_length)


def mean_ap_at_tau(
    distances_QG: npt.ArrayLike,
    queries: Labels,
    gallery: Labels,
    *,
    instruction_similarity_QG: npt.ArrayLike,
    tau: float,
    ap_length: int | None = None,
) -> float:
    """mAPτ (Instruct-ReID++, eq. 1-2), a fraction of 1; the similarity is the cosine of the two instructions."""
    rankings = rank_gallery(
        distances_QG, queries, gallery, instruction_similarity_QG=instruction_similarity_QG, tau=tau
    )
    return score_rankings(rankings, ap_length=ap_length).mean_ap


def _is_same_camera(queries: Labels, gallery: Labels, row: int) -> BoolArray:
    if queries.cameras is None or gallery.cameras is None:
        return np.zeros(len(gallery.identities), dtype=np.bool_)
    return np.asarray(gallery.cameras == queries.cameras[row])


def _check_shapes(distances: Array, queries: Labels, gallery: Labels) -> None:
    expected = (len(queries.identities), len(gallery.identities))
    if distances.shape != expected:
        raise DataError(f"distances are {distances.shape}, the labels say (queries, gallery) = {expected}")
    if np.isnan(distances).any():
        raise DataError(f"{int(np.isnan(distances).sum())} of {distances.size} distances are NaN: they have no order")
    for name, labels in (("queries", queries), ("gallery", gallery)):
        if labels.cameras is not None and len(labels.cameras) != len(labels.identities):
            raise DataError(f"{name}: {len(labels.identities)} identities but {len(labels.cameras)} cameras")
    if (queries.cameras is None) != (gallery.cameras is None):
        raise DataError("cameras must be given for both queries and gallery, or for neither")


def _check_similarity(similarity: npt.ArrayLike | None, tau: float | None, shape: tuple[int, ...]) -> Array | None:
    if (similarity is None) != (tau is None):
        raise DataError("an instruction similarity and tau belong together: give both or neither")
    if similarity is None:
        return None
    values = np.asarray(similarity, dtype=np.float64)
    if values.shape != shape or np.isnan(values).any():
        raise DataError(f"instruction similarities must be numbers of shape {shape}, got shape {values.shape}")
    return values


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise DataError(f"{name} is {value}: it must be at least 1")
