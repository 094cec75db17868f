"""`psreid evaluate reid`: six-task benchmark, features, and scores of IRM or IRM++ on an archive.

OUT/crops      the gallery: person crops (a step folder)
OUT/queries    queries.parquet: what is asked
OUT/features   gallery features (a step folder), task-free and, where asked for, task-specific
OUT/asked      query features (a step folder)
OUT/matches    first pass: every match with its score (a step folder)
OUT/counts     second pass: what stands before each match (a step folder)
OUT/scores.json
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from modeling.errors import DataError
from modeling.instruct_reid.encoder import load_irm_encoder
from modeling.instruct_reid.instructions import Task
from modeling.instruct_reid.protocol import TASK_RULES
from modeling.metrics.reid import Places, places_in_gallery
from modeling.metrics.reranking import rerank
from workflows.archive.six_tasks import CutPersons, choose_queries, query_table
from workflows.archive.wardrobe import open_wardrobe
from workflows.evaluate_reid.config import EvaluateReidConfig, Setting
from workflows.evaluate_reid.encode import FREE, EncodeCrops, EncodeQueries
from workflows.evaluate_reid.places import Question, places_of, similarity_of
from workflows.evaluate_reid.questions import score_setting, table_lines
from workflows.evaluate_reid.score import CountBefore, FindMatches, read_found, read_questions, sum_counts
from workflows.evaluate_reid.sides import join_sides, read_side
from workflows.index.inputs import StepInput, open_step
from workflows.index.models import identity_of_model
from workflows.index.workers import pool_size
from workflows.ledger import Ledger, Shard, StepIdentity, make_shard_id
from workflows.progress import Plan, Progress, Summary
from workflows.runner import run_step
from workflows.schema import CROPS, SCHEMA_VERSION
from workflows.stages import Resources, StageSpec
from workflows.storage import Folder

CODE_VERSION = "1"  # raised when the same inputs would give other rows
QUERIES_PER_SHARD = 128
CROPS_PER_ROW_GROUP = 256


def run_evaluate_reid(config: EvaluateReidConfig, progress: Progress, *, gallery: Folder | None = None) -> Summary:
    """Scores a model; continues where an earlier run stopped.

    `gallery` is a folder of crops that runs of several models share; by default OUT/crops.
    """
    started = time.monotonic()
    out, frames = Folder(config.out), open_step(config.frames, command="ingest")
    gallery = gallery or out.child("crops")
    _cut_crops(config, frames, gallery, progress)
    crops = open_step(gallery.uri, command="evaluate reid")
    num_queries = _write_queries(config, frames, crops, out)
    _encode(config, crops, out, num_queries, progress)
    places = _rerank_places(config, out) if config.rerank else _place(config, out, progress)
    rows = [row for setting, own in places.items() for row in score_setting(setting, own, config)]
    record = {
        "model": config.model, "frames": frames.folder.uri, "gallery": crops.manifest.rows, "queries": num_queries,
        "ap": "full ranking" if config.ap_top is None else f"first {config.ap_top} candidates",
        "reranked": config.rerank, "scores": [row.row() for row in rows],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    out.write_json("scores.json", json.loads(json.dumps(record)))
    headline = (
        f"Scored {config.model} with {num_queries} queries on {crops.manifest.rows} pictures: {out.path('scores.json')}"
    )
    return Summary(headline, out.path("scores.json"), details=table_lines(rows), record=record)


def plan_evaluate_reid(config: EvaluateReidConfig) -> Plan:
    """How much there is to score."""
    frames = open_step(config.frames, command="ingest")
    return Plan({"frames": frames.manifest.rows, "parts": len(frames.parts), "settings": ", ".join(config.settings)})


# ---- the benchmark


def _cut_crops(config: EvaluateReidConfig, frames: StepInput, gallery: Folder, progress: Progress) -> None:
    settings = {"gap_s": config.gap_s, "identities_from": config.identities_from}
    run_step(
        folder=gallery,
        identity=_identity("crops", settings, {"frames": frames.digest}),
        shards=[_shard("crops", part.shard_id, {"part": part.name}) for part in frames.parts],
        stages=[
            StageSpec(CutPersons, {"frames_uri": frames.folder.uri, **settings}, Resources(cpus=config.cpus_per_actor))
        ],
        max_quarantine_share=config.max_quarantine_share,
        progress=progress,
        row_group_rows=CROPS_PER_ROW_GROUP,
    )


def _write_queries(config: EvaluateReidConfig, frames: StepInput, crops: StepInput, out: Folder) -> int:
    """Writes OUT/queries/queries.parquet and says how many there are; the same crops and seed give the same queries."""
    labels = [name for name in CROPS.names if name != "image"]
    parts = [crops.folder.read_table(part.name, columns=labels) for part in crops.parts]
    if not parts:
        raise DataError(
            f"{frames.folder.uri} holds no person with an identity that is tall and clear enough"
            + (f" and whose name starts with {config.identities_from!r}" if config.identities_from else "")
            + ". Give frames with truth, or another identities_from."
        )
    Ledger.open(out.child("asked"), _asked_identity(config, crops))  # refuses other settings before anything is written
    table = pa.concat_tables(parts)
    asked = choose_queries(table, per_identity=config.queries_per_identity, seed=config.seed)
    if not asked:
        raise DataError(
            f"none of the six tasks can be asked of {frames.folder.uri}: no identity is seen by two cameras, in two "
            "sets of clothes, or with a text. Give more frames."
        )
    needed = sorted({row for one in asked for row in (one.shown, one.wanted)})
    pictures = _read_pictures(crops, needed)
    queries = query_table(asked, table, pictures, open_wardrobe(frames.folder.uri))
    out.write_table("queries/queries.parquet", queries)
    return len(asked)


def _read_pictures(crops: StepInput, rows: Sequence[int]) -> Mapping[int, bytes]:
    """The JPEG of each of these rows of the whole crops table; one part is in memory at a time."""
    pictures: dict[int, bytes] = {}
    start = 0
    for part in crops.parts:
        own = [row - start for row in rows if start <= row < start + part.rows]
        if own:
            column = crops.folder.read_table(part.name, columns=["image"])["image"]
            pictures |= {start + row: column[row].as_py() for row in own}
        start += part.rows
    return pictures


# ---- features


def _encode(config: EvaluateReidConfig, crops: StepInput, out: Folder, num_queries: int, progress: Progress) -> None:
    model = {"model": identity_of_model(config.model)}
    load = partial(load_irm_encoder, config.model, device="cuda" if config.gpus_per_actor else "cpu")
    is_specific = "task-specific" in config.settings
    specific = [task for task in config.tasks if is_specific]
    queries = out.child("queries")
    run_step(
        folder=out.child("features"),
        identity=_identity("features", {"specific_tasks": specific}, model | {"crops": crops.digest}),
        shards=[_shard("features", part.shard_id, {"part": part.name}) for part in crops.parts],
        stages=[
            _stage(config, EncodeCrops, len(crops.parts), crops_uri=crops.folder.uri, load_encoder=load,
                   batch=config.batch, specific_tasks=specific)
        ],
        max_quarantine_share=config.max_quarantine_share,
        progress=progress,
    )  # fmt: skip
    shards = [
        _shard("asked", str(first), {"first": first, "count": min(QUERIES_PER_SHARD, num_queries - first)})
        for first in range(0, num_queries, QUERIES_PER_SHARD)
    ]
    run_step(
        folder=out.child("asked"),
        identity=_asked_identity(config, crops),
        shards=shards,
        stages=[_stage(config, EncodeQueries, len(shards), queries_uri=queries.uri, load_encoder=load)],
        max_quarantine_share=0.0,
        progress=progress,
    )


def _asked_identity(config: EvaluateReidConfig, crops: StepInput) -> StepIdentity:
    chosen = {"per_identity": config.queries_per_identity, "seed": config.seed}
    return _identity("asked", chosen, {"model": identity_of_model(config.model), "crops": crops.digest})


# ---- places


def _place(
    config: EvaluateReidConfig, out: Folder, progress: Progress
) -> Mapping[Setting, Mapping[Task, Sequence[Places]]]:
    """Both passes over the parts of the gallery."""
    features = open_step(out.path("features"), command="evaluate reid")
    asked_input = open_step(out.path("asked"), command="evaluate reid")
    common = {
        "features_uri": features.folder.uri, "queries_uri": asked_input.folder.uri, "settings": config.settings,
        "tasks": config.tasks,
    }  # fmt: skip
    inputs = {"features": features.digest, "asked": asked_input.digest}
    chosen = {"settings": list(config.settings), "tasks": list(config.tasks)}
    for step, stage, extra in (
        ("matches", FindMatches, {}),
        ("counts", CountBefore, {"matches_uri": out.path("matches")}),
    ):
        run_step(
            folder=out.child(step),
            identity=_identity(step, chosen, inputs),
            shards=[
                _shard(step, part.shard_id, {"part": part.name, "piece": piece})
                for piece, part in enumerate(features.parts)
            ],
            stages=[_stage(config, stage, len(features.parts), **common, **extra)],
            max_quarantine_share=0.0,
            progress=progress,
        )
    _, asked = read_questions(asked_input.folder, config.settings, config.tasks)
    found = read_found(out.child("matches"), asked)
    counts = sum_counts(out.child("counts"), asked)
    return _by_setting({key: list(places_of(asked[key], found[key], counts[key])) for key in asked})


def _rerank_places(config: EvaluateReidConfig, out: Folder) -> Mapping[Setting, Mapping[Task, Sequence[Places]]]:
    """The same with k-reciprocal re-ranking, the whole gallery in memory."""
    features = open_step(out.path("features"), command="evaluate reid")
    queries, asked = read_questions(out.child("asked"), config.settings, config.tasks)
    gallery = join_sides([read_side(features.folder.read_table(part.name)) for part in features.parts])
    places = {}
    for key, question in asked.items():
        distances_QG = rerank(queries.features[FREE][question.rows], gallery.features[question.feature])
        places[key] = list(_in_memory(question, queries, gallery, distances_QG))
    return _by_setting(places)


def _in_memory(question: Question, queries: Any, gallery: Any, distances_QG: Any) -> Any:
    labels = queries.labels
    own = type(labels)(*(getattr(labels, name)[question.rows] for name in labels.__dataclass_fields__))
    return places_in_gallery(
        distances_QG, own, gallery.labels, [TASK_RULES[question.task]] * len(question.rows),
        instruction_similarity_QG=similarity_of(question, queries, gallery), is_joint=question.is_joint,
    )  # fmt: skip


def _by_setting(
    places: Mapping[tuple[Setting, Task], Sequence[Places]],
) -> Mapping[Setting, Mapping[Task, Sequence[Places]]]:
    nested: dict[Setting, dict[Task, Sequence[Places]]] = {}
    for (setting, task), own in places.items():
        nested.setdefault(setting, {})[task] = own
    return nested


def _identity(step: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> StepIdentity:
    return StepIdentity(f"reid-{step}", settings, inputs, CODE_VERSION, SCHEMA_VERSION)


def _shard(step: str, source: str, payload: Mapping[str, Any]) -> Shard:
    return Shard(make_shard_id("evaluate-reid", step, source, payload), payload)


def _stage(config: EvaluateReidConfig, factory: Any, num_shards: int, **kwargs: Any) -> StageSpec:
    return StageSpec(
        factory,
        kwargs,
        Resources(cpus=config.cpus_per_actor, gpus=config.gpus_per_actor),
        pool_size(config.actors, num_shards=num_shards, cpus=config.cpus_per_actor, gpus=config.gpus_per_actor),
    )
