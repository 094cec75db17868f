"""What a search would cost: counts that are exact, and a time measured on a few of its own pairs in this process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from workflows.index.frames import decode_image, person_boxes, read_frames
from workflows.index.models import load_judge, load_segmenter
from workflows.index.workers import pool_size
from workflows.ledger import Shard
from workflows.progress import Plan
from workflows.search.queries import query_input, query_shards, read_query_rows
from workflows.search.steps import Search

if TYPE_CHECKING:
    from modeling.types import PairDecision, TargetInput

SAMPLE_FRAMES = 4
SAMPLE_QUERIES = 4
Result = TypeVar("Result")


@dataclass(frozen=True)
class PairCosts:
    """Seconds of one worker."""

    per_query_s: float
    per_pair_s: float
    per_mask_s: float
    accepted_share: float
    """Of the sampled pairs."""


def estimate_search(search: Search) -> Plan:
    """Frames, persons, queries, pairs and shards of a search, and how long its judging should take."""
    config, archive = search.config, search.archive
    shards = query_shards(config, archive.frames)
    num_queries = sum(shard.rows_expected or 0 for shard in shards)
    per_query = archive.num_frames if config.recall == "none" else search.shortlist_size
    num_pairs = num_queries * per_query
    lines = {
        "frames": archive.num_frames,
        "persons": archive.num_persons,
        "queries": num_queries,
        "frames judged per query": per_query if config.stop_after != "recall" else 0,
        "pairs": num_pairs if config.stop_after != "recall" else 0,
        "shards": len(archive.frames.parts),
    }
    if config.stop_after == "recall":
        return Plan(lines)
    costs = measure_costs(search, shards[0], queries_per_frame=num_pairs / archive.num_frames)
    fewest, _ = pool_size(config.judge_actors, num_shards=len(archive.frames.parts), cpus=config.cpus_per_actor)
    work_s = num_pairs * costs.per_pair_s
    if config.stop_after is None:
        work_s += num_pairs * costs.accepted_share * costs.per_mask_s
    return Plan(lines, expected_s=num_queries * costs.per_query_s + work_s / fewest)


def measure_costs(search: Search, shard: Shard, *, queries_per_frame: float) -> PairCosts:
    """Judges some frames of the archive with the first queries; the second call is timed, which finds all ready."""
    config = search.config
    judge = load_judge(
        config.model, attention=config.attention, threshold=config.threshold, device="cpu", dtype=config.dtype
    )
    rows = [row for row, _ in zip(read_query_rows(shard), range(SAMPLE_QUERIES), strict=False)]
    rows = rows[: max(1, round(queries_per_frame))]
    targets = _sample_targets(search)
    inputs = [query_input(row) for row in rows]
    encoded, encode_s = _timed(lambda: {query.query_id: judge.encode_query(query) for query in inputs})
    pairs = [(query_id, number) for number in range(len(targets)) for query_id in encoded]
    decisions, judge_s = _timed(lambda: judge.judge(encoded, targets, pairs))
    accepted = sum(decision.is_match for decision in decisions) / len(pairs)
    mask_s = 0.0 if config.stop_after == "judge" else _seconds_per_mask(search, targets[0], decisions[0])
    return PairCosts(encode_s / len(rows), judge_s / len(pairs), mask_s, accepted)


def _seconds_per_mask(search: Search, target: "TargetInput", decision: "PairDecision") -> float:
    segmenter = load_segmenter(search.config.model, device="cpu")
    _, seconds = _timed(lambda: segmenter.masks(target.image, [decision.prompt]))
    return seconds


def _sample_targets(search: Search) -> "list[TargetInput]":
    from modeling.types import TargetInput

    frames = search.archive.frames
    targets = []
    for table in read_frames(frames.folder, frames.parts[0].name):
        for frame in table.slice(0, SAMPLE_FRAMES).to_pylist():
            image = decode_image(frame["image"], what=f"frame {frame['frame_id']!r}")
            targets.append(TargetInput(frame["frame_id"], image, person_boxes(frame["persons"])))
        break
    return targets


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a second call, and its seconds."""
    call()
    started = time.monotonic()
    result = call()
    return result, time.monotonic() - started
