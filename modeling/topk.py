"""Exact top-k frames by cosine, blocked, with ties decided the same way everywhere.

Both sides are unit-length rows of float16. A product of two float16 numbers is a multiple of 2^-48, and a sum of such
products that stays below 2^5 fits the 53 bits of a float64: the dot products below are exact, so neither block size,
number of threads, BLAS nor sharding can change a score, and "exact top-k" is a fact instead of a hope.

Score and tie-break travel together as one int64 key: the float32 score, mapped to an integer that sorts alike, in the
upper 32 bits, and the complement of the item's ordinal in the lower 32. Keys are unique, so `torch.topk`, which
promises nothing about ties, has none to decide; the lower ordinal wins.

Shapes: Q queries, N persons, F frames, K kept per query, D width of an embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ORDINAL_MASK = 0xFFFFFFFF
EMPTY_KEY = torch.iinfo(torch.int64).min
BLOCK_FRAMES = 2048  # frames scored at a time: bounds the (Q, N) block of scores
BLOCK_BYTES = 16 << 20  # of one float64 score block; queries are split to stay below it


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
    block_frames: int = BLOCK_FRAMES,
) -> TopFrames:
    """The k best frames of every query; a frame scores as its best person.

    `frame_of_person_N` holds non-decreasing frame ordinals below `num_frames`; ties go to the lower ordinal, so the
    caller who numbers frames by sorted frame_id gets ties by frame_id. `excluded_frame_Q` is one ordinal a query, or
    -1: never among its own results.
    """
    if excluded_frame_Q is None:
        excluded_frame_Q = torch.full((len(queries_QD),), -1, dtype=torch.int64)
    rows = max(1, BLOCK_BYTES // (8 * max(1, min(len(persons_ND), 4 * block_frames))))
    parts = [
        _top_k_block_of_queries(
            queries_QD[start : start + rows],
            persons_ND,
            frame_of_person_N,
            excluded_frame_Q[start : start + rows],
            num_frames,
            min(k, num_frames),
            block_frames,
        )
        for start in range(0, len(queries_QD), rows)
    ]
    if not parts:
        empty = torch.empty((0, min(k, num_frames)), dtype=torch.int64)
        return TopFrames(empty, empty, empty.float())
    return TopFrames(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _top_k_block_of_queries(
    queries_QD: Tensor,
    persons_ND: Tensor,
    frame_of_person_N: Tensor,
    excluded_frame_Q: Tensor,
    num_frames: int,
    k: int,
    block_frames: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(frames, persons, scores), each (Q, K), for queries that fit one score block."""
    num_queries = len(queries_QD)
    keys_QK = torch.full((num_queries, k), EMPTY_KEY, dtype=torch.int64)
    persons_QK = torch.full((num_queries, k), -1, dtype=torch.int64)
    edges = torch.arange(0, num_frames + block_frames, block_frames)
    cuts = torch.searchsorted(frame_of_person_N.contiguous(), edges).tolist()
    for first_frame, start, stop in zip(edges.tolist(), cuts, cuts[1:], strict=False):
        frames_here = min(block_frames, num_frames - first_frame)
        if start == stop:
            continue
        scores_QN = cosine_scores(queries_QD, persons_ND[start:stop])
        best_QF, person_QF = _best_person_of_frame(scores_QN, frame_of_person_N[start:stop] - first_frame, frames_here)
        frame_F = torch.arange(first_frame, first_frame + frames_here)
        key_QF = torch.where(person_QF >= 0, _keys(best_QF, frame_F), EMPTY_KEY)
        key_QF = torch.where(frame_F == excluded_frame_Q[:, None], EMPTY_KEY, key_QF)
        keys_QK, kept = torch.cat([keys_QK, key_QF], dim=1).topk(k, dim=1)
        persons_QK = torch.cat([persons_QK, person_QF + start], dim=1).gather(1, kept)
    is_empty_QK = keys_QK == EMPTY_KEY
    frames_QK = torch.where(is_empty_QK, -1, _ordinals(keys_QK))
    scores_QK = torch.where(is_empty_QK, -torch.inf, _scores(keys_QK))
    return frames_QK, torch.where(is_empty_QK, -1, persons_QK), scores_QK


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
