"""What an evaluation would do: counts that are exact, and a time measured on a few of its own pairs in this process."""

import time
from collections.abc import Callable
from typing import TypeVar

from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.steps import Evaluation
from workflows.evaluate.tables import TABLES
from workflows.index.frames import decode_image, person_boxes, read_frames
from workflows.index.models import load_judge, load_segmenter
from workflows.index.workers import pool_size
from workflows.progress import Plan
from workflows.search.queries import query_input
from workflows.worker import limit_threads

SAMPLE_FRAMES = 4
SAMPLE_QUERIES = 8
Result = TypeVar("Result")


def plan_evaluation(evaluation: Evaluation) -> Plan:
    """Frames, queries, pairs and shards of an evaluation, and how long its judging should take."""
    benchmark, config = evaluation.benchmark, evaluation.config
    frames_of = benchmark.frames_of
    num_pairs = sum(len(frames_of[question.query_id]) for question in evaluation.questions)
    lines: dict[str, int | float | str] = {
        "galleries": ", ".join(benchmark.galleries),
        "frames": len(benchmark.part_of),
        "queries": len(evaluation.questions),
        "pairs": num_pairs,
        "shards": len(set(benchmark.part_of.values())),
        "out": evaluation.out.uri,
    }
    if config.ranking != "judge" or not num_pairs:
        return Plan(lines)
    fewest, _ = pool_size(config.judge_actors, num_shards=int(lines["shards"]), cpus=config.cpus_per_actor)
    per_pair, per_frame = _measure_costs(evaluation)
    return Plan(lines, expected_s=(num_pairs * per_pair + len(benchmark.part_of) * per_frame) / fewest)


def plan_table(config: EvaluateConfig) -> Plan:
    """The variants of a table; running them is not measured."""
    assert config.table is not None, "only for a table"
    table = TABLES[config.table]
    runs = len(config.seeds if table.is_trained else config.models)
    return Plan(
        {
            "table": f"{table.number}, {table.title}",
            "variants": ", ".join(variant.name for variant in table.variants),
            "galleries": ", ".join(config.gallery or table.galleries),
            "trainings": runs * len(table.variants) if table.is_trained and config.run else 0,
            "evaluations": runs * len(table.variants) if config.run else 0,
        }
    )


def _measure_costs(evaluation: Evaluation) -> tuple[float, float]:
    """(seconds a pair, seconds a frame for its masks), from some frames with some queries."""
    from modeling.types import TargetInput

    config, benchmark = evaluation.config, evaluation.benchmark
    limit_threads(config.cpus_per_actor)
    judge = load_judge(
        config.model, attention=config.attention, threshold=config.threshold, device="cpu", dtype=config.dtype
    )
    limit_threads(config.cpus_per_actor)  # again: torch is imported by now
    rows = [benchmark.queries[question.query_id] for question in evaluation.questions[:SAMPLE_QUERIES]]
    queries = {query.query_id: query for query in judge.encode_queries([query_input(dict(row)) for row in rows])}
    part = next(iter(benchmark.part_of.values()))
    (table, *_) = read_frames(benchmark.shown.folder, part)
    targets = [
        TargetInput(row["frame_id"], decode_image(row["image"], what=row["frame_id"]), person_boxes(row["persons"]))
        for row in table.slice(0, SAMPLE_FRAMES).to_pylist()
    ]
    pairs = [(query_id, number) for number in range(len(targets)) for query_id in queries]
    decisions, judge_s = _timed(lambda: judge.judge(queries, targets, pairs))
    segmenter = load_segmenter(config.model, device="cpu")
    _, mask_s = _timed(lambda: segmenter.masks(targets[0].image, [decisions[0].prompt]))
    return judge_s / len(pairs), mask_s


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a second call, which finds all ready, and its seconds."""
    call()
    started = time.monotonic()
    result = call()
    return result, time.monotonic() - started
