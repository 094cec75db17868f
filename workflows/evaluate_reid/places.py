"""Where each query's matches stand in a gallery that comes in pieces: two passes, each over one piece at a time.

The first pass finds the matches of a piece with their scores; when all are known, the second counts, in each piece,
the candidates that stand before each match. Sums of counts are places, and places are all that scores need
(`modeling/metrics/reid.py`). Scores are exact, so the result equals that of one sort of the whole gallery.

Shapes: Q queries; G gallery pictures of one piece; M matches of a query in the whole gallery.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modeling.instruct_reid.instructions import Task
from modeling.instruct_reid.protocol import TASK_RULES
from modeling.metrics.reid import Places, ReidLabels, relations
from modeling.topk import cosine_scores

BLOCK_QUERIES = 256  # scored at a time


@dataclass(frozen=True)
class Side:
    """Queries, or one piece of the gallery, as scoring sees them."""

    labels: ReidLabels
    features: dict[str, NDArray[np.float16]]
    """Unit vectors by name: for queries one, for a gallery the task-free one and those of tasks."""
    instructions: dict[str, NDArray[np.float32]]
    """Encoded instructions, unit vectors by name."""


@dataclass(frozen=True)
class Question:
    """How some queries of one task are scored."""

    task: Task
    rows: NDArray[np.int64]
    """The queries, as numbers of rows."""
    feature: str
    """Which feature of the gallery they are compared with."""
    own_instruction: str | None
    """Which instruction of the gallery theirs is compared with, for mAPτ; None: all are equal."""
    is_joint: bool


@dataclass(frozen=True)
class Found:
    """The matches of the queries of one question in one piece, or in all; three columns of equal length."""

    query: NDArray[np.int64]
    """Number of the query, ascending."""
    key: NDArray[np.int64]
    """(number of the piece << 32) + number of the row in it: the gallery's order, which decides ties."""
    score: NDArray[np.float32]
    similarity: NDArray[np.float32]


def find_matches(question: Question, queries: Side, gallery: Side, *, piece: int) -> Found:
    """First pass: all matches in one piece."""
    parts = [Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))]
    for rows, scores_QG in _scored(question, queries, gallery):
        similarity_QG = _similarity(question, queries, gallery, rows)
        for place, row in enumerate(rows.tolist()):
            is_match_G, _ = _relations(question, queries, gallery, row)
            found = np.flatnonzero(is_match_G)
            similar = np.ones(len(found), np.float32) if similarity_QG is None else similarity_QG[place, found]
            parts.append(Found(np.full(len(found), row), (piece << 32) + found, scores_QG[place, found], similar))
    return join_found(parts)


def join_found(parts: Sequence[Found]) -> Found:
    """Matches of several pieces as one, by query, the best first, ties in the gallery's order."""
    query, key = (np.concatenate([getattr(part, name) for part in parts]) for name in ("query", "key"))
    score, similarity = (np.concatenate([getattr(part, name) for part in parts]) for name in ("score", "similarity"))
    order = np.lexsort((key, -score, query))
    return Found(query[order], key[order], score[order], similarity[order])


def count_before(question: Question, queries: Side, gallery: Side, found: Found, *, piece: int) -> NDArray[np.int64]:
    """Second pass: for each of the matches (of all pieces) the candidates of this piece that stand before it."""
    counts = np.zeros(len(found.query), dtype=np.int64)
    for rows, scores_QG in _scored(question, queries, gallery):
        for place, row in enumerate(rows.tolist()):
            start, stop = np.searchsorted(found.query, [row, row + 1])
            if start == stop:
                continue
            _, is_junk_G = _relations(question, queries, gallery, row)
            kept = np.flatnonzero(~is_junk_G)
            order = kept[np.lexsort((kept, -scores_QG[place, kept]))]
            sorted_score = -scores_QG[place, order]
            for number in range(start, stop):
                low, high = (np.searchsorted(sorted_score, -found.score[number], side) for side in ("left", "right"))
                key, own = int(found.key[number]), (piece << 32)
                earlier_ties = np.count_nonzero(own + order[low:high] < key)
                counts[number] = low + earlier_ties
    return counts


def places_of(question: Question, found: Found, counts: NDArray[np.int64]) -> Iterator[Places]:
    """Each query's places, from the counts summed over all pieces."""
    for row in question.rows.tolist():
        start, stop = np.searchsorted(found.query, [row, row + 1])
        yield Places(counts[start:stop] + 1, found.similarity[start:stop].astype(np.float64))


def similarity_of(question: Question, queries: Side, gallery: Side) -> NDArray[np.float32] | None:
    """(Q, G) cosines of instructions of the question's queries with a gallery's own; None: all are equal."""
    return _similarity(question, queries, gallery, question.rows)


def _scored(
    question: Question, queries: Side, gallery: Side
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Blocks of queries with their scores against the piece."""
    features = queries.features["embedding"]
    gallery_GD = torch.from_numpy(gallery.features[question.feature])
    for start in range(0, len(question.rows), BLOCK_QUERIES):
        rows = question.rows[start : start + BLOCK_QUERIES]
        yield rows, cosine_scores(torch.from_numpy(features[rows]), gallery_GD).numpy()


def _similarity(
    question: Question, queries: Side, gallery: Side, rows: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    if question.own_instruction is None:
        return None
    asked = queries.instructions["instruction_feature"][rows]
    own = gallery.instructions[question.own_instruction]
    # Rounded, so that the order of summation, which depends on the piece's size, cannot move a value across τ.
    return np.round(asked.astype(np.float64) @ own.astype(np.float64).T, 6).astype(np.float32)


def _relations(
    question: Question, queries: Side, gallery: Side, row: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return relations(TASK_RULES[question.task], queries.labels, row, gallery.labels, is_joint=question.is_joint)
