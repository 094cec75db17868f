"""`psreid evaluate`: how well a model finds and outlines the queried persons of a benchmark.

OUT/asked.parquet queries/ pairs/ measured/   the steps on the way, resumable (`steps.py`)
OUT/per_query.parquet                         one row a question and gallery
OUT/scores.json                               what `--json` prints
OUT/worst.html                                the queries that went worst, in the largest gallery
"""

import numpy as np

from modeling.errors import DataError
from workflows.evaluate.benchmark import open_benchmark
from workflows.evaluate.calibration import new_folder, write_calibrated
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.measure import Key, Measurement, measure
from workflows.evaluate.outcomes import Outcome, QueryPairs, outcomes_table, read_pairs
from workflows.evaluate.scores import GalleryScores
from workflows.evaluate.steps import Evaluation
from workflows.evaluate.worst import WorstQuery, worst_page
from workflows.index.models import identity_of_model
from workflows.ledger import make_shard_id
from workflows.progress import Plan, Progress, Summary
from workflows.storage import JSON, Folder

RESULT_SETTINGS = ("models", "gallery", "ranking", "modality", "detections", "attention", "threshold", "dtype")
"""Settings that name the default OUT; the others only score the same pairs anew, or make the work faster."""


def run_evaluate(config: EvaluateConfig, progress: Progress) -> Summary:
    """Measures a model, or prints or runs a table; continues where an earlier run stopped."""
    if config.table is not None:
        from workflows.evaluate.table import run_table

        return run_table(config, progress)
    if config.calibrated is not None:
        new_folder(config.calibrated)  # refused now, not after the judging
    measurement = measure(open_evaluation(config, progress))
    record = record_of(measurement)
    write_results(measurement, record)
    return _summary(measurement, record, _calibrate(measurement))


def _calibrate(measurement: Measurement) -> list[str]:
    """Writes the calibrated model where one is asked for; a line that says so."""
    config, best = measurement.evaluation.config, next(iter(measurement.thresholds.values()), None)
    if config.calibrated is None:
        return []
    if best is None:
        raise DataError("no queried person has a mask in the gallery, so no threshold is better than another")
    model = write_calibrated(config.model, best.threshold, config.calibrated)
    return [f"{model} is {config.model} with {best.threshold:.2f} taken off every score"]


def plan_evaluate(config: EvaluateConfig) -> Plan:
    """What an evaluation would do; the time is measured on a few of its own pairs."""
    from workflows.evaluate.plan import plan_evaluation, plan_table

    if config.table is not None:
        return plan_table(config)
    return plan_evaluation(open_evaluation(config, Progress()))


def open_evaluation(config: EvaluateConfig, progress: Progress) -> Evaluation:
    """The evaluation with its benchmark open and its folder named. A histogram is asked by images alone."""
    if config.ranking == "histogram":
        config = config.model_copy(update={"modality": ("image",), "models": ("colour histogram",)})
    out = Folder(config.out) if config.out else _default_out(config)
    return Evaluation(config, open_benchmark(config), out, progress)


def record_of(measurement: Measurement) -> dict[str, JSON]:
    """Scores by gallery; where several modalities were asked, by modality first."""
    records: dict[str, dict[str, JSON]] = {}
    for (modality, gallery), scores in measurement.scores.items():
        record = scores.record()
        if measurement.frame_scores:
            record["frames"] = measurement.frame_scores[modality, gallery].record()
        if (best := measurement.thresholds.get((modality, gallery))) is not None:
            record["best_threshold"] = best.record()
        records.setdefault(modality, {})[gallery] = record
    return dict(records) if len(records) > 1 else next(iter(records.values()), {})


def write_results(measurement: Measurement, record: dict[str, JSON]) -> None:
    """The files that are made of finished steps; all are rewritten, so that no run leaves a mix."""
    evaluation, out = measurement.evaluation, measurement.evaluation.out
    out.write_table(
        "per_query.parquet", outcomes_table([one for rows in measurement.outcomes.values() for one in rows])
    )
    out.write_json("scores.json", record)
    if evaluation.config.worst and measurement.measured is not None:
        out.write_bytes("worst.html", _page(measurement))


def _page(measurement: Measurement) -> bytes:
    """The worst queries of the largest gallery, as they are asked first."""
    evaluation, measured = measurement.evaluation, measurement.measured
    assert measured is not None, "only a judged evaluation has a page"
    benchmark = evaluation.benchmark
    key: Key = max(
        measurement.outcomes, key=lambda key: (key[0] == evaluation.config.modality[0], _size(measurement, key))
    )
    found = dict(read_pairs(measurement.pairs, measured))
    asked = {(question.query_id, question.modality): question.question_id for question in evaluation.questions}
    queries = []
    for outcome in _worst(measurement, key, evaluation.config.worst):
        question_id, frame_ids = asked[outcome.query_id, key[0]], benchmark.galleries[key[1]][outcome.query_id]
        pairs: QueryPairs = found[question_id].among(frame_ids)
        queries.append(WorstQuery(outcome, question_id, benchmark.queries[outcome.query_id], pairs))
    return worst_page(
        queries,
        title=f"Where {evaluation.config.model} fails",
        subtitle=f"{key[1]}, the {len(queries)} of {len(measurement.outcomes[key])} queries with the lowest AP; "
        f"{describe(measurement.scores[key])}",
        shown=benchmark.shown,
        pairs=measurement.pairs,
        measured=measured,
        part_of=benchmark.part_of,
    )


def _worst(measurement: Measurement, key: Key, count: int) -> list[Outcome]:
    scored = [outcome for outcome in measurement.outcomes[key] if outcome.is_scored]
    return sorted(scored, key=lambda outcome: (outcome.average_precision, outcome.query_id))[:count]


def _size(measurement: Measurement, key: Key) -> int:
    return sum(outcome.num_frames for outcome in measurement.outcomes[key])


def describe(scores: GalleryScores) -> str:
    """The scores of one gallery in a line, in percent with half the width of the 95 % interval."""
    words = []
    for name, score in scores.scores.items():
        if score.value is None or score.interval is None:
            words.append(f"{name} -")
        else:
            half = (score.interval.high - score.interval.low) / 2
            words.append(f"{name} {100 * score.value:.1f}" + (f" ±{100 * half:.1f}" if np.isfinite(half) else ""))
    rule = "" if scores.rule is None else f" (rule {scores.rule.value})"
    return ", ".join(words) + rule


def _summary(measurement: Measurement, record: dict[str, JSON], notes: list[str]) -> Summary:
    evaluation = measurement.evaluation
    several = len(evaluation.config.modality) > 1
    details = []
    for (modality, gallery), scores in measurement.scores.items():
        name = f"{gallery} by {modality}" if several else gallery
        details.append(f"{name}: {describe(scores)}")
        if (best := measurement.thresholds.get((modality, gallery))) is not None:
            details.append(f"{name}: threshold {best.threshold:.2f} would give the best giou, {100 * best.giou:.1f}")
        if measurement.frame_scores:
            details.append(
                f"{name}, frames by their best person: {describe(measurement.frame_scores[modality, gallery])}"
            )
    num_pairs = measurement.pairs.manifest.rows
    ranked = {"judge": "Judged", "recall": "Ranked by the recall stage", "histogram": "Ranked by colour histograms"}
    headline = (
        f"{ranked[evaluation.config.ranking]} {num_pairs} pairs of {len(evaluation.questions)} queries with "
        f"{evaluation.config.model}: {evaluation.out.uri}"
    )
    return Summary(headline, evaluation.out.uri, {"pairs": num_pairs}, details=details + notes, record=record)


def _default_out(config: EvaluateConfig) -> Folder:
    """A folder of DATA/evaluations that changes with whatever changes the pairs or their scores."""
    settings = config.model_dump(mode="json", include=set(RESULT_SETTINGS))
    weights = "" if config.ranking == "histogram" else identity_of_model(config.model)
    name = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in config.model.rstrip("/").split("/")[-1])
    return Folder(str(config.data)).child("evaluations", f"{name}-{make_shard_id(settings, weights)[:8]}")
