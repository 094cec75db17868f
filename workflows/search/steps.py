"""The chained steps of a search, each with its own ledger, so that a rerun continues in the middle of any of them.

queries -> recall -> shortlist -> judged (judge, segment) -> matches
                           └-> persons (stop after recall)         recall `none`: queries -> judged
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from modeling.errors import DataError
from workflows.index.filter import FrameFilter
from workflows.index.inputs import StepInput, open_step
from workflows.index.models import (
    identity_of_model,
    load_cosine_judge,
    load_judge,
    load_person_encoder,
    load_segmenter,
)
from workflows.index.workers import judging_pools, on_own_cores, pool_size
from workflows.ledger import Ledger, PartInfo, Shard, StepIdentity, make_shard_id
from workflows.progress import Progress
from workflows.runner import run_step
from workflows.schema import SCHEMA_VERSION
from workflows.search.archive import Archive
from workflows.search.config import SearchConfig
from workflows.search.judge import JudgePairs
from workflows.search.pairs import pairs_by_part
from workflows.search.queries import PrepareQueries, query_shards
from workflows.search.rank import RankMatches, RankPersons
from workflows.search.recall import MergeShortlist, RecallFrames, recall_shards, shortlist_shards
from workflows.search.segment import SegmentPairs
from workflows.stages import Resources, StageSpec
from workflows.storage import JSON, Folder

if TYPE_CHECKING:
    from modeling.judging import PairJudge

CODE_VERSION = "4"  # raised when the same inputs would give other rows
SHORTLIST_GROUP_ROWS = 1024  # rows that the judge of one frames part has to read for its own few
JUDGED_PAIRS_LEAST = 12  # of one shard, beside which the cost of a task is small
JUDGED_GROUP_ROWS = 512  # rows that the ranking of one query group has to read for its own few
JUDGE_IMPORTS = ("workflows.search.segment", "modeling.ps_reid.judge", "modeling.ps_reid.segmenter")


@dataclass(frozen=True)
class Search:
    """One search: its settings, its archive, its folders."""

    config: SearchConfig
    archive: Archive
    progress: Progress

    @property
    def out(self) -> Folder:
        return Folder(self.config.out)

    @property
    def shortlist_size(self) -> int:
        return self.config.frames_judged(self.archive.num_frames)

    def run(
        self,
        name: str,
        *,
        config: dict[str, JSON],
        inputs: dict[str, str],
        shards: list[Shard],
        stages: list[StageSpec],
        row_group_rows: int | None = None,
        max_quarantine_share: float | None = None,
        next_imports: Sequence[str] = (),
    ) -> StepInput:
        """Runs one step to its end; the last one, "search", lies in OUT itself."""
        folder = self.out if name == "search" else self.out.child(name)
        share = self.config.max_quarantine_share if max_quarantine_share is None else max_quarantine_share
        run_step(
            folder=folder,
            identity=StepIdentity(name, config, inputs, CODE_VERSION, SCHEMA_VERSION),
            shards=shards,
            stages=stages,
            max_quarantine_share=share,
            progress=self.progress,
            row_group_rows=row_group_rows,
            next_imports=next_imports,
        )
        return open_step(folder.uri, command="search")

    @property
    def frame_filter(self) -> FrameFilter:
        return self.config.frame_filter(str(self.archive.frames.step.config.get("time_zone", "UTC")))

    def searched(self, step: StepInput) -> StepInput:
        """The step with those of its parts that can hold a frame to search; the others are not opened."""
        chosen = self.frame_filter
        return step.restricted({part.shard_id for part in step.parts if chosen.may_hold(part.scope)})

    @property
    def judge_imports(self) -> tuple[str, ...]:
        """Modules that judging takes longest to import, for processes that have nothing else to do before it."""
        judges = self.config.stop_after != "recall" and on_own_cores(self.config)
        return JUDGE_IMPORTS if judges else ()

    @property
    def filters(self) -> dict[str, JSON]:
        return self.frame_filter.described()


def prepare_queries(search: Search) -> StepInput:
    """OUT/queries: the queries that can be used, embedded. DataError when there is none."""
    config, archive = search.config, search.archive
    shards = query_shards(config, archive.frames)
    encoder = None if config.recall == "none" else archive.encoder_model
    device = "cuda" if config.gpus_per_actor else "cpu"
    load_encoder = partial(load_person_encoder, encoder, device=device) if encoder else None
    pool = None if on_own_cores(config) else pool_size(None, num_shards=len(shards), cpus=config.cpus_per_actor)
    queries = search.run(
        "queries",
        config={"source": config.queries or "flags", "encoder": encoder},
        inputs={
            "queries": make_shard_id(*(shard.shard_id for shard in shards)),
            "encoder": archive.index.step.inputs["model"] if encoder else "",
        },
        shards=shards,
        stages=[
            StageSpec(
                PrepareQueries,
                {"load_encoder": load_encoder},
                resources=Resources(config.cpus_per_actor, config.gpus_per_actor if encoder else 0.0),
                pool=pool,
            )
        ],
        max_quarantine_share=1.0,
        next_imports=search.judge_imports,
    )
    if not queries.manifest.rows:
        first = Ledger.read(queries.folder).read_quarantine().slice(0, 1).to_pylist()
        raise DataError(
            f"none of the {queries.manifest.quarantined} queries can be used; the first: {first[0]['detail']}. "
            f"All of them and their reasons are in {queries.folder.path('quarantine')}."
        )
    return queries


def shortlist_frames(search: Search, queries: StepInput) -> StepInput:
    """OUT/recall and OUT/shortlist: the frames to judge for each query."""
    index, size = search.archive.index, search.shortlist_size
    num_groups = len(queries.manifest.parts)
    shards = recall_shards(search.searched(index), queries, num_groups, size)
    recall = search.run(
        "recall",
        config={"shortlist_size": size, "filter": search.filters},
        inputs={"index": index.digest, "queries": queries.digest},
        shards=shards,
        stages=[
            StageSpec(
                RecallFrames,
                {
                    "index_uri": index.folder.uri,
                    "queries_uri": queries.folder.uri,
                    "shortlist_size": size,
                    "frame_filter": search.frame_filter,
                },
            )
        ],
        row_group_rows=SHORTLIST_GROUP_ROWS,
        next_imports=search.judge_imports,
    )
    if not recall.manifest.rows:
        raise DataError(
            f"no frame of the archive is left to search: {_describe_filter(search)}. Widen it, or check what ingest "
            "found."
        )
    return search.run(
        "shortlist",
        config={"shortlist_size": size},
        inputs={"recall": recall.digest},
        shards=shortlist_shards(recall, shards, num_groups),
        stages=[StageSpec(MergeShortlist, {"recall_uri": recall.folder.uri, "shortlist_size": size})],
        row_group_rows=SHORTLIST_GROUP_ROWS,
    )


def rank_persons(search: Search, queries: StepInput, shortlist: StepInput) -> StepInput:
    """OUT, when stopping after recall: every person of the shortlisted frames."""
    index = search.archive.index
    shards = [
        Shard(make_shard_id("persons", part.shard_id, shortlist.digest), {"part": part.name})
        for part in shortlist.manifest.parts
    ]
    stage = StageSpec(
        RankPersons,
        {
            "index_uri": index.folder.uri,
            "queries_uri": queries.folder.uri,
            "shortlist_uri": shortlist.folder.uri,
            "frame_filter": search.frame_filter,
        },
    )
    inputs = {"shortlist": shortlist.digest, "index": index.digest}
    return search.run("search", config=_final_config(search), inputs=inputs, shards=shards, stages=[stage])


def judge_pairs(search: Search, queries: StepInput, shortlist: StepInput | None) -> StepInput:
    """OUT/judged: every pair's score, and the masks of those accepted."""
    config, frames = search.config, search.archive.frames
    model = identity_of_model(config.model)
    shards = judge_shards(search, queries, shortlist, model)
    return search.run(
        "judged",
        config={
            "model": config.model,
            "attention": config.attention,
            "dtype": config.dtype,
            "judge_by": config.judged_by,
            "threshold": config.least_score,
            "keep_rejects": config.keep_rejects,
            "masks": config.stop_after != "judge",
            "recall": config.recall,
            "filter": search.filters,
        },
        inputs={
            "model": model,
            "frames": frames.digest,
            "queries": queries.digest,
            "shortlist": shortlist.digest if shortlist else "",
        },
        shards=shards,
        stages=judge_stages(search, queries, shortlist, len(shards)),
        row_group_rows=JUDGED_GROUP_ROWS,
    )


def judge_shards(search: Search, queries: StepInput, shortlist: StepInput | None, model: str) -> list[Shard]:
    """One shard a frames part that has pairs; of a shortlist, neighbours with few pairs are one shard."""
    parts = search.searched(search.archive.frames).parts
    if shortlist is None:
        return [_judge_shard([part], queries.digest, model) for part in parts if part.rows * queries.manifest.rows]
    num_pairs = pairs_by_part(shortlist.folder.uri)
    runs: list[list[PartInfo]] = []
    waiting = 0
    for part in parts:
        if not num_pairs.get(part.name):
            continue
        if not runs or waiting >= JUDGED_PAIRS_LEAST:
            runs.append([])
            waiting = 0
        runs[-1].append(part)
        waiting += num_pairs[part.name]
    return [_judge_shard(run, shortlist.digest, model) for run in runs]


def _judge_shard(parts: Sequence[PartInfo], digest: str, model: str) -> Shard:
    ids = [part.shard_id for part in parts]
    return Shard(make_shard_id("judge", *ids, digest, model), {"parts": [part.name for part in parts]})


def judge_stages(search: Search, queries: StepInput, shortlist: StepInput | None, num_shards: int) -> list[StageSpec]:
    """The judge, and the segmenter unless the search stops before it."""
    config, frames_uri = search.config, search.archive.frames.folder.uri
    device = "cuda" if config.gpus_per_actor else "cpu"
    resources = Resources(config.cpus_per_actor, config.gpus_per_actor)
    judge_kwargs: dict[str, Any] = {
        "frames_uri": frames_uri,
        "queries_uri": queries.folder.uri,
        "shortlist_uri": shortlist.folder.uri if shortlist else None,
        "load_judge": judge_loader(search),
        "frame_filter": search.frame_filter,
        "threshold": config.least_score,
        "keep_rejects": config.keep_rejects,
        "targets_per_batch": config.targets_per_batch,
        "query_cache_bytes": config.query_cache_mb << 20,
    }
    segment_kwargs = {"frames_uri": frames_uri, "load_segmenter": partial(load_segmenter, config.model, device=device)}
    judges, segmenters = judging_pools(config, num_shards=num_shards)
    stages = [
        StageSpec(JudgePairs, judge_kwargs, resources, judges),
        StageSpec(SegmentPairs, segment_kwargs, resources, segmenters),
    ]
    return stages[:1] if config.stop_after == "judge" else stages


def judge_loader(search: Search) -> Callable[[], "PairJudge"]:
    """Loads whoever decides on the shortlist, in a worker."""
    config = search.config
    device = "cuda" if config.gpus_per_actor else "cpu"
    if config.judged_by == "recall":
        return partial(load_cosine_judge, search.archive.encoder_model, threshold=config.least_score, device=device)
    return partial(
        load_judge, config.model, attention=config.attention, threshold=config.least_score, device=device,
        dtype=config.dtype,
    )  # fmt: skip


def rank_matches(search: Search, queries: StepInput, judged: StepInput) -> StepInput:
    """OUT: the judged pairs of each query, best first."""
    shards = [
        Shard(make_shard_id("rank", group, judged.digest), {"group": group})
        for group in range(len(queries.manifest.parts))
    ]
    return search.run(
        "search",
        config=_final_config(search),
        inputs={"judged": judged.digest},
        shards=shards,
        stages=[StageSpec(RankMatches, {"judged_uri": judged.folder.uri})],
    )


def _final_config(search: Search) -> dict[str, JSON]:
    """What a reader of the matches needs to know, and what makes this search another one."""
    config, archive = search.config, search.archive
    return {
        "index": archive.index.folder.uri,
        "frames": archive.frames.folder.uri,
        "queries": search.out.child("queries").uri,
        "stop_after": config.stop_after,
        "recall": config.recall,
        "shortlist_size": None if config.recall == "none" else search.shortlist_size,
        "model": config.model,
        "attention": config.attention,
        "judge_by": config.judged_by,
        "threshold": config.least_score,
        "filter": search.filters,
    }


def _describe_filter(search: Search) -> str:
    chosen = {name: value for name, value in search.filters.items() if value not in (None, (), [])}
    listed = ", ".join(f"{name} {value}" for name, value in chosen.items())
    return f"the filter is {listed}" if listed else "no indexed frame is left beside the queries' own"
