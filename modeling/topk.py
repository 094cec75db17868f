"""Exact top-k frames by cosine, blocked, with ties decided the same way everywhere.

Both sides are unit-length rows of float16. A product of two float16 numbers is a multiple of 2^-48, and a sum of such
products that stays below 2^5 fits the 53 bits of a float64: the dot products below are exact, so neither block size,
number of threads, BLAS nor sharding can change a score, and "exact top-k" is a fact instead of a hope.

Score and tie-break travel together as one int64 key: the float32 score, mapped to an integer that sorts alike, in the
upper 32 bits, and the complement of the item's ordinal in the lower 32. Keys are unique, so `torch.topk`, which
promises nothing about ties, has none to decide; the lower ordinal wins.

Scoring everything in float64 is slow. Once a query has its K frames, a block goes through `modeling/topk_filter.py`
first, and only what may still enter a top-k is scored exactly; the result is the same to the last bit.

Shapes: Q queries, N persons, F frames, K kept per query, S pairs that passed the filter, D width of an embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from modeling.topk_filter import MOST_VECTOR_QUERIES, RowFilter, Survivors

ORDINAL_MASK = 0xFFFFFFFF
EMPTY_KEY = torch.iinfo(torch.int64).min
BLOCK_FRAMES = 2048  # frames scored at a time: bounds the (Q, N) block of scores, and stays in the cache when converted
VECTOR_BLOCK_FRAMES = 16_384  # with few queries, which convert nothing: fewer, longer calls
BLOCK_BYTES = 16 << 20  # of one float64 score block; queries are split to stay below it
BLOCK_PAIRS = 4096  # rescored at a time: 16 MB at width 512
LEAST_WAITING = 256  # pairs that are scored together, unless it is the end
MOST_SURVIVORS = 1 / 16  # of a block's pairs; beyond it, scoring all of them is faster


@dataclass(frozen=True)
class TopFrames:
    """The best frames of each query, best first. Slots beyond a query's candidates have frame -1 and score -inf."""

    frames_QK: Tensor
    """int64 ordinals of frames."""
    persons_QK: Tensor
    """int64 ordinals of the frame's best person for this query; the lower ordinal of two equals."""
    scores_QK: Tensor
    """float32 cosine of that person."""


def cosine_scores(queries_QD: Tensor, persons_ND: Tensor) -> Tensor:
    """Float32 cosines (Q, N) of float16 unit rows: the exact dot product, rounded once."""
    return (queries_QD.half().double() @ persons_ND.half().double().T).float()


def top_k_frames(
    queries_QD: Tensor,
    persons_ND: Tensor,
    frame_of_person_N: Tensor,
    *,
    num_frames: int,
    k: int,
    excluded_frame_Q: Tensor | None = None,
    block_frames: int | None = None,
) -> TopFrames:
    """The k best frames of every query; a frame scores as its best person.

    `frame_of_person_N` holds non-decreasing frame ordinals below `num_frames`; ties go to the lower ordinal, so the
    caller who numbers frames by sorted frame_id gets ties by frame_id. `excluded_frame_Q` is one ordinal a query, or
    -1: never among its own results. `block_frames` changes the speed, never the result.
    """
    if excluded_frame_Q is None:
        excluded_frame_Q = torch.full((len(queries_QD),), -1, dtype=torch.int64)
    if block_frames is None:
        block_frames = VECTOR_BLOCK_FRAMES if len(queries_QD) <= MOST_VECTOR_QUERIES else BLOCK_FRAMES
    rows = max(1, BLOCK_BYTES // (8 * max(1, min(len(persons_ND), 4 * block_frames))))
    k = min(k, num_frames)
    parts = []
    for start in range(0, len(queries_QD), rows):
        chosen = slice(start, start + rows)
        best = _Best(queries_QD[chosen], excluded_frame_Q[chosen], persons_ND, frame_of_person_N, k)
        for block in _blocks(persons_ND, frame_of_person_N, num_frames, k, block_frames):
            best.add(block)
        parts.append(best.result())
    if not parts:
        empty = torch.empty((0, k), dtype=torch.int64)
        return TopFrames(empty, empty, empty.float())
    return TopFrames(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def merge_top_frames(parts: Sequence[TopFrames]) -> TopFrames:
    """The best frames of all parts, as many as the fullest part has.

    No frame is in two parts, and all parts number frames alike.
    """
    frames_QC, persons_QC, scores_QC = (
        torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("frames_QK", "persons_QK", "scores_QK")
    )
    keys_QC = torch.where(frames_QC >= 0, _keys(scores_QC, frames_QC), EMPTY_KEY)
    kept_QK = keys_QC.topk(max(part.frames_QK.shape[1] for part in parts), dim=1).indices
    return TopFrames(*(columns.gather(1, kept_QK) for columns in (frames_QC, persons_QC, scores_QC)))


@dataclass(frozen=True)
class _Block:
    """Neighbouring frames with all their persons."""

    persons_ND: Tensor
    frame_N: Tensor
    """Ordinals from `first_frame` on."""
    first_frame: int
    num_frames: int
    first_person: int


def _blocks(
    persons_ND: Tensor, frame_of_person_N: Tensor, num_frames: int, k: int, block_frames: int
) -> Iterator[_Block]:
    """Every frame that has a person; the first block is small, but large enough to fill a top-k."""
    first = min(block_frames, max(k, BLOCK_FRAMES))
    edges = [0, *range(first, num_frames, block_frames), num_frames]
    cuts = torch.searchsorted(frame_of_person_N.contiguous(), torch.tensor(edges)).tolist()
    for (first_frame, last_frame), (start, stop) in zip(pairwise(edges), pairwise(cuts), strict=True):
        if start < stop:
            frame_N = frame_of_person_N[start:stop]
            yield _Block(persons_ND[start:stop], frame_N, first_frame, last_frame - first_frame, start)


class _Best:
    """The best frames of some queries so far.

    Pairs that passed the filter wait until there are enough of them: scoring and merging a few costs as much as many,
    and a threshold that is a little old lets only a few more pairs through.
    """

    def __init__(
        self, queries_QD: Tensor, excluded_frame_Q: Tensor, persons_ND: Tensor, frame_of_person_N: Tensor, k: int
    ) -> None:
        self._queries_QD, self._excluded_frame_Q = queries_QD, excluded_frame_Q
        self._persons_ND, self._frame_of_person_N = persons_ND, frame_of_person_N
        self._exact_queries_QD = queries_QD.half().double()
        self._filter = RowFilter(queries_QD.half())
        self._waiting: list[Survivors] = []
        self._num_waiting = 0
        self._most_waiting = max(LEAST_WAITING, len(queries_QD) * k // 2)
        self._keys_QK = torch.full((len(queries_QD), k), EMPTY_KEY, dtype=torch.int64)
        self._persons_QK = torch.full((len(queries_QD), k), -1, dtype=torch.int64)

    def add(self, block: _Block) -> None:
        """Takes in frames that are in no other block."""
        last_key_Q = self._keys_QK[:, -1]
        if bool((last_key_Q != EMPTY_KEY).all()):
            found = self._filter.survivors(block.persons_ND, _scores(last_key_Q))
            if len(found.rows) <= MOST_SURVIVORS * len(last_key_Q) * len(block.persons_ND):
                self._wait(Survivors(found.queries, found.rows + block.first_person))
                return
        self._merge(*self._score_all(block))

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """(frames, persons, scores), each (Q, K)."""
        self._score_waiting()
        is_empty_QK = self._keys_QK == EMPTY_KEY
        frames_QK = torch.where(is_empty_QK, -1, _ordinals(self._keys_QK))
        scores_QK = torch.where(is_empty_QK, -torch.inf, _scores(self._keys_QK))
        return frames_QK, torch.where(is_empty_QK, -1, self._persons_QK), scores_QK

    def _wait(self, found: Survivors) -> None:
        if len(found.rows):
            self._waiting.append(found)
            self._num_waiting += len(found.rows)
        if self._num_waiting >= self._most_waiting:
            self._score_waiting()

    def _score_waiting(self) -> None:
        if not self._waiting:
            return
        queries_S, rows_S = (torch.cat([getattr(one, name) for one in self._waiting]) for name in ("queries", "rows"))
        self._waiting, self._num_waiting = [], 0
        order_S = queries_S.argsort(stable=True)  # rows rise within a block, and from block to block
        found = Survivors(queries_S[order_S], rows_S[order_S])
        found = self._filter.check_again(self._persons_ND, found, _scores(self._keys_QK[:, -1]))
        if len(found.rows):
            self._merge(*self._score_pairs(found))

    def _score_all(self, block: _Block) -> tuple[Tensor, Tensor]:
        """Keys and best persons, (Q, F) each, of every frame of a block."""
        scores_QN = cosine_scores(self._queries_QD, block.persons_ND)
        best_QF, person_QF = _best_person_of_frame(scores_QN, block.frame_N - block.first_frame, block.num_frames)
        frame_F = torch.arange(block.first_frame, block.first_frame + block.num_frames)
        key_QF = torch.where(person_QF >= 0, _keys(best_QF, frame_F), EMPTY_KEY)
        key_QF = torch.where(frame_F == self._excluded_frame_Q[:, None], EMPTY_KEY, key_QF)
        return key_QF, person_QF + block.first_person

    def _score_pairs(self, found: Survivors) -> tuple[Tensor, Tensor]:
        """The same for pairs sorted by query, then row; as many columns as one query has frames among them."""
        frame_S = self._frame_of_person_N[found.rows]
        is_new_S = torch.ones(len(found.rows), dtype=torch.bool)
        is_new_S[1:] = (frame_S[1:] != frame_S[:-1]) | (found.queries[1:] != found.queries[:-1])
        group_S = is_new_S.cumsum(0) - 1  # one group per query and frame
        person_key_S = _keys(_pair_scores(self._exact_queries_QD, self._persons_ND, found), found.rows)
        best_G = torch.full((int(group_S[-1]) + 1,), EMPTY_KEY, dtype=torch.int64)
        best_G.scatter_reduce_(0, group_S, person_key_S, "amax")
        query_G, frame_G = found.queries[is_new_S], frame_S[is_new_S]
        is_excluded_G = frame_G == self._excluded_frame_Q[query_G]
        column_G = torch.arange(len(query_G)) - torch.searchsorted(query_G, query_G)
        shape = (len(self._queries_QD), int(column_G.max()) + 1)
        keys_QC = torch.full(shape, EMPTY_KEY, dtype=torch.int64)
        persons_QC = torch.full(shape, -1, dtype=torch.int64)
        keys_QC[query_G, column_G] = torch.where(is_excluded_G, EMPTY_KEY, _keys(_scores(best_G), frame_G))
        persons_QC[query_G, column_G] = _ordinals(best_G)
        return keys_QC, persons_QC

    def _merge(self, keys_QC: Tensor, persons_QC: Tensor) -> None:
        k = self._keys_QK.shape[1]
        self._keys_QK, kept_QK = torch.cat([self._keys_QK, keys_QC], dim=1).topk(k, dim=1)
        self._persons_QK = torch.cat([self._persons_QK, persons_QC], dim=1).gather(1, kept_QK)


def _pair_scores(queries_QD: Tensor, persons_ND: Tensor, found: Survivors) -> Tensor:
    """Float32 cosines (S,) of pairs, exact before they are rounded; `queries_QD` are float64."""
    scores = [
        persons_ND[rows].half().double().mul_(queries_QD[queries]).sum(dim=1).float()
        for queries, rows in zip(found.queries.split(BLOCK_PAIRS), found.rows.split(BLOCK_PAIRS), strict=True)
    ]
    return torch.cat(scores)


def _best_person_of_frame(scores_QN: Tensor, frame_N: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Score and ordinal (in N) of each frame's best person, (Q, F) each; ordinal -1 where a frame has no person."""
    keys_QN = _keys(scores_QN, torch.arange(scores_QN.shape[1]))
    best_QF = torch.full((len(scores_QN), num_frames), EMPTY_KEY, dtype=torch.int64)
    best_QF.scatter_reduce_(1, frame_N.expand(len(scores_QN), -1), keys_QN, "amax")
    is_empty_QF = best_QF == EMPTY_KEY
    return torch.where(is_empty_QF, -torch.inf, _scores(best_QF)), torch.where(is_empty_QF, -1, _ordinals(best_QF))


def _keys(scores: Tensor, ordinals: Tensor) -> Tensor:
    """int64 keys that sort by (score ascending, ordinal descending)."""
    bits = (scores + 0.0).contiguous().view(torch.int32).long()  # + 0.0 makes -0.0 equal to 0.0
    monotonic = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (monotonic << 32) | (ORDINAL_MASK - ordinals)


def _scores(keys: Tensor) -> Tensor:
    """The float32 score of each key."""
    monotonic = keys >> 32
    bits = torch.where(monotonic < 0, monotonic ^ 0x7FFFFFFF, monotonic)
    return bits.int().view(torch.float32)


def _ordinals(keys: Tensor) -> Tensor:
    """The ordinal of each key."""
    return ORDINAL_MASK - (keys & ORDINAL_MASK)
