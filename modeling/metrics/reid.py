"""What counts as a match in each kind of re-identification, and scores from the places of matches alone.

A gallery picture of the query's identity is a match, or it is junk and left out: from the query's own camera, in the
wrong clothes, of the wrong modality. Pictures of others are never junk, unless the task's gallery leaves them out.

The score of a query needs only the places at which its matches stand. A place is one plus the number of candidates
that stand before: with the higher score, or an equal one and the lower number in the gallery. So a gallery in pieces
gives the very scores of a whole one.

Shapes: Q queries; G gallery pictures, or those of one piece; M matches of a query.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from modeling.errors import DataError
from modeling.metrics.retrieval import Array, Ranking
from modeling.regions import BoolArray

Names = npt.NDArray[np.generic]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MatchRule:
    """Which pictures of the query's identity are matches; the others of it are junk."""

    clothes: Literal["any", "same", "different"] = "any"
    """Against the clothes that the query names: its own, or those asked for. Unknown clothes fit every rule."""
    modality: Literal["any", "other"] = "any"
    same_camera_is_junk: bool = True
    gallery: Literal["all", "rgb", "other"] = "all"
    """The pictures that take part when the task is scored on its own: all, colour ones, or the other modality."""


@dataclass(frozen=True)
class ReidLabels:
    """Who is on each picture, where and in what. Empty text: unknown."""

    identities: Names
    cameras: Names
    clothes: Names
    modalities: Names

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.identities, self.cameras, self.clothes, self.modalities)}
        if len(lengths) > 1:
            raise DataError(f"identities, cameras, clothes and modalities differ in number: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.identities)


def relations(
    rule: MatchRule, queries: ReidLabels, row: int, gallery: ReidLabels, *, is_joint: bool = False
) -> tuple[BoolArray, BoolArray]:
    """(is_match_G, is_junk_G) of one query. `is_joint`: every picture takes part, as in a joint test set."""
    is_same_G = np.asarray(gallery.identities == queries.identities[row])
    fits_G = np.ones(len(gallery), dtype=np.bool_)
    if rule.clothes != "any" and queries.clothes[row]:
        is_equal = gallery.clothes == queries.clothes[row]
        fits_G &= (is_equal if rule.clothes == "same" else ~is_equal) | (gallery.clothes == "")
    is_other_modality = np.asarray(gallery.modalities != queries.modalities[row])
    if rule.modality == "other":
        fits_G &= is_other_modality
    if rule.same_camera_is_junk and queries.cameras[row]:
        fits_G &= gallery.cameras != queries.cameras[row]
    is_junk_G = is_same_G & ~fits_G
    if not is_joint and rule.gallery != "all":
        is_junk_G |= ~(is_other_modality if rule.gallery == "other" else np.asarray(gallery.modalities == "rgb"))
    return is_same_G & fits_G & ~is_junk_G, is_junk_G


@dataclass(frozen=True)
class Places:
    """Where one query's matches stand."""

    places: Indices
    """(M,) from 1, ascending."""
    similarities: Array
    """(M,) cosine of the query's instruction and the match's own, for mAPτ."""

    def ranking(self, *, tau: float | None = None) -> Ranking:
        """The ranking down to the last match; with `tau`, matches of less similar instructions count as wrong (eq. 2).

        A query that has matches counts in the means for every tau, as 0 where none is left.
        """
        kept = self.places if tau is None else self.places[self.similarities >= tau]
        is_right = np.zeros(int(kept.max()) if kept.size else 0, dtype=np.bool_)
        is_right[kept - 1] = True
        return Ranking(is_right, is_scored=bool(self.places.size))


def places_in_gallery(
    distances_QG: npt.ArrayLike,
    queries: ReidLabels,
    gallery: ReidLabels,
    rules: Sequence[MatchRule],
    *,
    instruction_similarity_QG: npt.ArrayLike | None = None,
    is_joint: bool = False,
) -> Iterator[Places]:
    """Each query's places in a gallery held in memory, by rising distance; ties keep the gallery's order.

    `rules` has one rule for each query.
    """
    distances = np.asarray(distances_QG)
    if distances.shape != (len(queries), len(gallery)):
        raise DataError(f"distances are {distances.shape}, the labels say {(len(queries), len(gallery))}")
    if np.isnan(distances).any():
        raise DataError(f"{int(np.isnan(distances).sum())} of {distances.size} distances are NaN: they have no order")
    similarity = None if instruction_similarity_QG is None else np.asarray(instruction_similarity_QG)
    for row, distance_G in enumerate(distances):
        is_match_G, is_junk_G = relations(rules[row], queries, row, gallery, is_joint=is_joint)
        order = np.argsort(distance_G, kind="stable")
        order = order[~is_junk_G[order]]
        found = np.flatnonzero(is_match_G[order])
        similar = np.ones(found.size) if similarity is None else similarity[row][order[found]].astype(np.float64)
        yield Places(found + 1, similar)
