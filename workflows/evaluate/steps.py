"""The chained steps of an evaluation, each with its own ledger, so that a rerun continues in the middle of any.

asked (a file) -> queries -> pairs (the galleries with their truth) -> measured (judge, segment, measure)
                                      └-> persons (every person of the galleries' frames embedded), for other rankings
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from workflows.evaluate.benchmark import Benchmark
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.judge import JudgeGalleries, MeasurePairs
from workflows.evaluate.pairs import pairs_table
from workflows.evaluate.questions import Question, questions_of, questions_table
from workflows.index.encode import EncodePersons
from workflows.index.frames import FrameFilter
from workflows.index.inputs import StepInput, open_step
from workflows.index.models import identity_of_model, load_judge, load_segmenter
from workflows.index.workers import judging_pools, pool_size
from workflows.ledger import Ledger, Shard, StepIdentity, make_shard_id
from workflows.lock import hold_lock
from workflows.progress import Progress
from workflows.runner import run_step
from workflows.schema import SCHEMA_VERSION
from workflows.search.queries import PrepareQueries, table_shards
from workflows.search.segment import SegmentPairs
from workflows.stages import Resources, StageSpec
from workflows.storage import JSON, Folder

if TYPE_CHECKING:
    from modeling.ps_reid.person_encoder import PersonEncoder

CODE_VERSION = "3"  # raised when the same inputs would give other rows
PAIR_GROUP_ROWS = 1024  # rows that the judge of one frames part has to read for its own few
ASKED = "asked.parquet"
BATCH_PERSONS = 64  # embedded in one forward pass, at least


@dataclass(frozen=True)
class Encoder:
    """A person encoder by name, loaded where it is used."""

    name: str
    identity: str
    """Changes with its weights."""
    load: "Callable[[], PersonEncoder]"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its settings, its benchmark, its folder."""

    config: EvaluateConfig
    benchmark: Benchmark
    out: Folder
    progress: Progress

    @property
    def questions(self) -> list[Question]:
        return questions_of(self.benchmark, self.config.modality)

    @property
    def resources(self) -> Resources:
        return Resources(self.config.cpus_per_actor, self.config.gpus_per_actor)

    @property
    def device(self) -> str:
        return "cuda" if self.config.gpus_per_actor else "cpu"

    def run(
        self,
        name: str,
        *,
        config: dict[str, JSON],
        inputs: dict[str, str],
        shards: Sequence[Shard],
        stages: Sequence[StageSpec],
        max_quarantine_share: float | None = None,
    ) -> StepInput:
        """Runs one step to its end, in a folder of its name."""
        share = self.config.max_quarantine_share if max_quarantine_share is None else max_quarantine_share
        run_step(
            folder=self.out.child(name),
            identity=StepIdentity(f"evaluate {name}", config, inputs, CODE_VERSION, SCHEMA_VERSION),
            shards=shards,
            stages=stages,
            max_quarantine_share=share,
            progress=self.progress,
        )
        return open_step(self.out.child(name).uri, command="evaluate")


def prepare_queries(evaluation: Evaluation, encoder: Encoder | None = None) -> StepInput:
    """OUT/queries: the questions that can be used, embedded where an encoder is given."""
    _write_once(evaluation.out, ASKED, questions_table(evaluation.benchmark, evaluation.questions))
    shards = table_shards(evaluation.out.path(ASKED))
    shards = [replace(shard, shard_id=make_shard_id(shard.payload, evaluation.benchmark.digest)) for shard in shards]
    return evaluation.run(
        "queries",
        config={"modality": list(evaluation.config.modality), "encoder": encoder.name if encoder else None},
        inputs={"benchmark": evaluation.benchmark.digest, "encoder": encoder.identity if encoder else ""},
        shards=shards,
        stages=[StageSpec(PrepareQueries, {"load_encoder": encoder.load if encoder else None}, evaluation.resources)],
        max_quarantine_share=1.0,
    )


def list_pairs(evaluation: Evaluation) -> StepInput:
    """OUT/pairs: every pair of the galleries with its truth. Made in this process: no picture is read."""
    benchmark, folder = evaluation.benchmark, evaluation.out.child("pairs")
    inputs = {"frames": benchmark.truth.digest, "shown": benchmark.shown.digest, "benchmark": benchmark.digest}
    config = {"galleries": list(benchmark.galleries), "modality": list(evaluation.config.modality)}
    ledger = Ledger.open(folder, StepIdentity("evaluate pairs", config, inputs, CODE_VERSION, SCHEMA_VERSION))
    shard = Shard(make_shard_id("pairs", config, inputs), {})
    if ledger.manifest is None:
        with hold_lock(folder):
            started = time.monotonic()
            table = pairs_table(benchmark, evaluation.questions)
            ledger.commit(
                shard,
                table,
                drops={},
                quarantine=[],
                seconds=time.monotonic() - started,
                row_group_rows=PAIR_GROUP_ROWS,
            )
            ledger.finish([shard])
    return open_step(folder.uri, command="evaluate")


def measure_pairs(evaluation: Evaluation, queries: StepInput, pairs: StepInput) -> StepInput:
    """OUT/measured: each pair's score, decision, and pixels against the truth; one shard a frames part with pairs."""
    config, shown = evaluation.config, evaluation.benchmark.shown
    model = identity_of_model(config.model)
    filled = set(evaluation.benchmark.part_of.values())
    shards = [
        Shard(make_shard_id("measure", part.shard_id, pairs.digest, queries.digest, model), {"parts": [part.name]})
        for part in shown.parts
        if part.name in filled
    ]
    return evaluation.run(
        "measured",
        config={"attention": config.attention, "dtype": config.dtype, "threshold": config.threshold},
        inputs={"model": model, "frames": shown.digest, "queries": queries.digest, "pairs": pairs.digest},
        shards=shards,
        stages=measure_stages(evaluation, queries, pairs, num_shards=len(shards)),
    )


def measure_stages(evaluation: Evaluation, queries: StepInput, pairs: StepInput, *, num_shards: int) -> list[StageSpec]:
    """Judge, segmenter, and the comparison with the truth."""
    config, frames_uri = evaluation.config, evaluation.benchmark.shown.folder.uri
    judge = partial(
        load_judge,
        config.model,
        attention=config.attention,
        threshold=config.threshold,
        device=evaluation.device,
        dtype=config.dtype,
    )
    judge_kwargs: dict[str, Any] = {
        "frames_uri": frames_uri,
        "queries_uri": queries.folder.uri,
        "pairs_uri": pairs.folder.uri,
        "load_judge": judge,
        "frame_filter": FrameFilter(),
        "threshold": config.threshold,
        "targets_per_batch": config.targets_per_batch,
        "query_cache_bytes": config.query_cache_mb << 20,
    }
    load = partial(load_segmenter, config.model, device=evaluation.device)
    judges, segmenters = judging_pools(config, num_shards=num_shards)
    return [
        StageSpec(JudgeGalleries, judge_kwargs, evaluation.resources, judges),
        StageSpec(SegmentPairs, {"frames_uri": frames_uri, "load_segmenter": load}, evaluation.resources, segmenters),
        StageSpec(MeasurePairs, {"pairs_uri": pairs.folder.uri}),
    ]


def embed_persons(evaluation: Evaluation, encoder: Encoder) -> StepInput:
    """OUT/persons: index rows of every person shown in the galleries' frames, by the given encoder."""
    benchmark = evaluation.benchmark
    frames_of_part: dict[str, list[str]] = {}
    for frame_id, part in sorted(benchmark.part_of.items()):
        frames_of_part.setdefault(part, []).append(frame_id)
    shards = [
        Shard(make_shard_id("persons", part, frame_ids, encoder.identity), {"part": part, "frame_ids": frame_ids})
        for part, frame_ids in sorted(frames_of_part.items())
    ]
    kwargs = {
        "frames_uri": benchmark.shown.folder.uri,
        "load_encoder": encoder.load,
        "batch_persons": BATCH_PERSONS,
    }
    pool = pool_size(None, num_shards=len(shards), cpus=evaluation.config.cpus_per_actor)
    return evaluation.run(
        "persons",
        config={"encoder": encoder.name},
        inputs={"encoder": encoder.identity, "frames": benchmark.shown.digest, "benchmark": benchmark.digest},
        shards=shards,
        stages=[StageSpec(EncodePersons, kwargs, evaluation.resources, pool)],
    )


def _write_once(folder: Folder, name: str, table: pa.Table) -> None:
    """Writes a table unless it is there: a rerun must find the file that its shards were named after."""
    if not folder.exists(name) or not folder.read_table(name).equals(table):
        folder.write_table(name, table)
