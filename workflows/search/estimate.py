"""What a search would cost: counts that are exact, and times measured on a few of its own queries, frames and pairs."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from workflows.index.estimate import bytes_per_frame
from workflows.index.models import load_segmenter
from workflows.index.workers import judging_pools, on_own_cores
from workflows.ledger import Shard
from workflows.plan.sample import timed
from workflows.plan.shapes import this_machine
from workflows.plan.words import describe_bytes, describe_workers
from workflows.plan.work import StageWork, StepWork, seconds_on
from workflows.progress import Plan
from workflows.search.queries import GROUP_QUERIES, query_input, query_shards, read_query_rows
from workflows.search.sample import read_targets, sample_pairs
from workflows.search.steps import JUDGED_PAIRS_LEAST, Search, judge_loader
from workflows.worker import limit_threads

if TYPE_CHECKING:
    from modeling.types import PairDecision, TargetInput

SAMPLE_QUERIES = 6
SMALL_STEP_S = 0.05  # of a merge or a ranking of one group of queries
QUERY_S = 0.01  # of preparing and embedding a query
RECALL_S = 2e-6  # of one person's share in the recall of a group of queries
PICTURES_PER_MATCH = 3  # decoded or encoded by a report

Result = TypeVar("Result")


@dataclass(frozen=True)
class PairCosts:
    """Seconds of one worker."""

    torch_s: float
    """Importing torch, which every worker with tensors pays first."""
    load_judge_s: float
    load_segmenter_s: float
    per_query_s: float
    per_frame_s: float
    """Reading and decoding a frame, and what the judge does once for it."""
    per_pair_s: float
    per_masked_frame_s: float
    decode_s: float
    """Decoding one frame's picture."""
    accepted_share: float
    """Of the sampled pairs."""


@dataclass(frozen=True)
class PairCounts:
    """What there is to judge."""

    queries: int
    groups: int
    per_query: int
    frames: int
    """In parts that can hold a frame to search."""
    shards: int
    """Of the judge; at most, where there is a shortlist."""

    @property
    def pairs(self) -> int:
        return self.queries * self.per_query

    @property
    def frames_judged(self) -> float:
        """Distinct frames, as if each query's were drawn at random: N (1 - (1 - K/N)^Q)."""
        if not self.frames:
            return 0.0
        share = min(1.0, self.per_query / self.frames)
        return self.frames * (1.0 - (1.0 - share) ** self.queries)


def estimate_search(search: Search) -> Plan:
    """Frames, persons, queries, pairs and shards of a search, and how long its steps should take."""
    config, archive = search.config, search.archive
    shards = query_shards(config, archive.frames)
    counts = _count(search, shards)
    judges = config.stop_after != "recall"
    lines: dict[str, int | float | str] = {
        "frames": archive.num_frames,
        "persons": archive.num_persons,
        "queries": counts.queries,
        "frames judged per query": counts.per_query if judges else 0,
        "pairs": counts.pairs if judges else 0,
        "shards": counts.shards,
        "parts of the index to read": f"{len(search.searched(archive.index).parts)} of {len(archive.index.parts)}",
    }
    limit_threads(config.cpus_per_actor)
    _, torch_s = timed(lambda: importlib.import_module("torch"))
    limit_threads(config.cpus_per_actor)  # again: torch is imported by now
    work = _recall_work(search, counts, torch_s)
    if judges:
        work += _judge_work(search, counts, measure_costs(search, shards[0], torch_s))
        lines["bytes to read"] = describe_bytes(counts.frames_judged * bytes_per_frame(archive.frames))
    lines["workers"] = describe_workers(work, this_machine())
    return Plan(lines, seconds_on(work, this_machine()), work=work)


def _count(search: Search, shards: list[Shard]) -> PairCounts:
    frames = search.searched(search.archive.frames)
    queries = sum(shard.rows_expected or 0 for shard in shards)
    per_query = frames.manifest.rows if search.config.recall == "none" else search.shortlist_size
    per_query = min(per_query, frames.manifest.rows)
    num_shards = len(frames.parts)
    if search.config.recall != "none":
        num_shards = min(num_shards, -(-queries * per_query // JUDGED_PAIRS_LEAST))
    return PairCounts(queries, -(-queries // GROUP_QUERIES), per_query, frames.manifest.rows, num_shards)


def _recall_work(search: Search, counts: PairCounts, torch_s: float) -> list[StepWork]:
    """Queries, recall and shortlist; small beside judging, so their work is not sampled."""
    prepare = StageWork("PrepareQueries", QUERY_S * counts.queries, workers=(1, 1), load_s=2 * torch_s)  # and the model
    steps = [StepWork("queries", counts.groups, (prepare,))]
    if search.config.recall == "top":
        recall = StageWork("RecallFrames", RECALL_S * search.archive.num_persons * counts.groups, load_s=torch_s)
        steps += [StepWork("recall", counts.groups, (recall,)), _small_step("shortlist", counts.groups)]
    return steps if search.config.stop_after != "recall" else [*steps, _small_step("persons", counts.groups)]


def _judge_work(search: Search, counts: PairCounts, costs: PairCosts) -> list[StepWork]:
    config, frames = search.config, counts.frames_judged
    judges, segmenters = judging_pools(config, num_shards=counts.shards)
    judge_s = frames * costs.per_frame_s + counts.pairs * costs.per_pair_s
    load_s = costs.torch_s + costs.load_judge_s + counts.queries * costs.per_query_s  # each worker encodes each query
    cpus, gpus = config.cpus_per_actor, config.gpus_per_actor
    stages = [StageWork("JudgePairs", judge_s, cpus, gpus, judges, load_s)]
    matches = counts.pairs * costs.accepted_share
    if config.stop_after is None:
        mask_s = min(matches, frames) * (costs.per_masked_frame_s + costs.decode_s)
        load_s = costs.load_segmenter_s + (0.0 if on_own_cores(config) else costs.torch_s)
        stages.append(StageWork("SegmentPairs", mask_s, cpus, gpus, segmenters, load_s))
    steps = [StepWork("judged", counts.shards, tuple(stages)), _small_step("search", counts.groups)]
    if config.report:
        render_s = matches * PICTURES_PER_MATCH * costs.decode_s
        steps.append(StepWork("report", 1, (StageWork("RenderMatches", render_s, workers=(1, 1)),), on_ray=False))
    return steps


def _small_step(name: str, shards: int) -> StepWork:
    return StepWork(name, shards, (StageWork(name, SMALL_STEP_S * shards),))


def measure_costs(search: Search, shard: Shard, torch_s: float) -> PairCosts:
    """Judges some frames of the archive with a few queries; second calls are timed, which find all ready."""
    config = search.config
    judge, load_judge_s = timed(judge_loader(search))
    asked = list(read_query_rows(shard))
    rows = asked[:: max(1, len(asked) // SAMPLE_QUERIES)][:SAMPLE_QUERIES]
    wanted = sample_pairs(search, rows)
    targets, decode_s = read_targets(search, wanted)
    inputs = [query_input(row) for row in rows]
    encoded, encode_s = _second(lambda: {query.query_id: judge.encode_query(query) for query in inputs})
    one = next(iter(encoded))
    _, single_s = _second(lambda: judge.judge(encoded, targets, [(one, number) for number in range(len(targets))]))
    pairs = [(query_id, number) for number in range(len(targets)) for query_id in encoded]
    decisions, all_s = _second(lambda: judge.judge(encoded, targets, pairs))
    per_pair_s = max(0.0, all_s - single_s) / max(len(pairs) - len(targets), 1)
    judged = [
        decision.is_match
        for (query_id, number), decision in zip(pairs, decisions, strict=True)
        if wanted.has(query_id, targets[number].frame_id)
    ]
    load_s, mask_s = (0.0, 0.0) if config.stop_after == "judge" else _mask_costs(search, targets[0], decisions[0])
    return PairCosts(
        torch_s=torch_s,
        load_judge_s=load_judge_s,
        load_segmenter_s=load_s,
        per_query_s=encode_s / len(rows),
        per_frame_s=max(0.0, single_s / len(targets) - per_pair_s) + decode_s,
        per_pair_s=per_pair_s if len(rows) > 1 else single_s / len(targets),
        per_masked_frame_s=mask_s,
        decode_s=decode_s,
        accepted_share=sum(judged) / max(1, len(judged)),
    )


def _mask_costs(search: Search, target: "TargetInput", decision: "PairDecision") -> tuple[float, float]:
    """Seconds of loading the segmenter, and of one frame with one mask."""
    device = "cuda" if search.config.gpus_per_actor else "cpu"
    segmenter, load_s = timed(lambda: load_segmenter(search.config.model, device=device))
    _, mask_s = _second(lambda: segmenter.masks(target.image, [decision.prompt]))
    return load_s, mask_s


def _second(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a second call, and its seconds."""
    call()
    return timed(call)
