"""`psreid evaluate reid --table N`: trains and scores a table's variants, stores their scores, prints them beside the
paper's.

OUT/trainings/NAME     the trainings (`trainings.py`)
OUT/crops/NAME         the gallery of a benchmark, cut once for all models
OUT/evaluations/NAME   `psreid evaluate reid` of a training, named after it and the settings of the scores

What is scored does not depend on the table, so tables share evaluations as they share trainings.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflows.evaluate.stored_table import (
    RESULTS_VERSION,
    mean_and_spread,
    paper_figures,
    read_stored,
    results_folder,
    table_file,
)
from workflows.evaluate_reid.config import EvaluateReidConfig, ReidScoring, ReidTableConfig, Setting
from workflows.evaluate_reid.tables import TABLES, Column, ReidTable
from workflows.evaluate_reid.trainings import SharedTraining, Training
from workflows.index.inputs import StepInput, open_step
from workflows.ledger import make_shard_id
from workflows.progress import Plan, Progress, Summary
from workflows.storage import JSON, Folder

NAME_WIDTH, CELL_WIDTH = 28, 13
WORKER_SETTINGS = frozenset({"batch", "actors", "cpus_per_actor", "gpus_per_actor", "max_quarantine_share"})
"""Settings that make scoring faster and change nothing in it."""


def run_table(config: ReidTableConfig, progress: Progress) -> Summary:
    """Prints a stored table, after training and scoring its variants where the settings ask for it."""
    table, folder = TABLES[config.table], results_folder(config.results, package="workflows.evaluate_reid")
    name = table_file(table.number)
    if config.run:
        folder.write_json(name, run_variants(table, config, progress))
    command = f"psreid evaluate reid FRAMES --table {table.number} --run --training FILE.yaml --out OUT"
    stored = read_stored(folder, table.number, made_by=command)
    headline = f"Table {table.number}, {table.title}: ours made by `{stored['command']}`: {folder.path(name)}"
    return Summary(headline, folder.path(name), details=list(table_lines(table, stored)), record=stored)


def plan_table(config: ReidTableConfig) -> Plan:
    """How much there is to train and to score, and how much of it is done."""
    table = TABLES[config.table]
    lines: dict[str, int | float | str] = {
        "table": f"{table.number}, {table.title}",
        "variants": ", ".join(variant.name for variant in table.variants),
    }
    if not config.run:
        return Plan(lines | {"trainings": 0, "steps": 0})
    shared, scoring = _open(config)
    trainings = shared.of_table(table, config.seeds)
    left = [training for training in trainings if not training.is_done]
    return Plan(
        lines
        | {
            "seeds": ", ".join(map(str, config.seeds)),
            "trainings": len(trainings),
            "trainings done": len(trainings) - len(left),
            "steps": sum(training.config.steps for training in trainings),
            "steps left": sum(training.config.steps for training in left),
            "evaluations": len(trainings),
            "evaluations done": sum(scoring.folder_of(training).exists("scores.json") for training in trainings),
        }
    )


def run_variants(table: ReidTable, config: ReidTableConfig, progress: Progress) -> dict[str, JSON]:
    """Every variant with every seed, as it is stored. Trains all before it scores any: scoring starts Ray."""
    shared, scoring = _open(config)
    trainings = shared.of_table(table, config.seeds)
    for number, training in enumerate(trainings, start=1):
        progress.say(f"table {table.number}, training {number} of {len(trainings)}: {training.describe()}")
        training.run(progress)
    records = {training.name: scoring.score(training, progress) for training in trainings}
    rows = [row for record in records.values() for row in record["scores"] if _is_shown(table, row)]
    return {
        "version": RESULTS_VERSION,
        "table": table.number,
        "command": command_of(config),
        "seeds": list(config.seeds),
        "tasks": list(shared.tasks),
        "steps": {"together": shared.config.steps, "alone": shared.steps_alone},
        "training": shared.described,
        "training_frames": {"digests": [one.digest for one in shared.frames], "rows": shared.num_frames},
        "benchmark": {
            "digest": scoring.frames.digest, "rows": scoring.frames.manifest.rows,
            "gallery": next(iter(records.values()))["gallery"], "settings": scoring.settings,
            "queries": {row["task"]: row["queries"] for row in rows},
        },
        "variants": [
            {
                "name": variant.name,
                "runs": [
                    {"seed": seed, "scores": _scores_of(table, own, records)}
                    for seed in config.seeds
                    for own in [list(shared.of_variant(variant, table, seed))]
                ],
            }
            for variant in table.variants
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class Scoring:
    """The benchmark that all models are scored on, and how."""

    config: ReidTableConfig
    frames: StepInput

    @property
    def settings(self) -> dict[str, JSON]:
        """The settings that decide the scores."""
        return self.config.model_dump(mode="json", include=set(ReidScoring.model_fields) - WORKER_SETTINGS)

    def folder_of(self, training: Training) -> Folder:
        """Where a training's scores lie."""
        from workflows.evaluate_reid.step import CODE_VERSION

        asked = [self.frames.digest, self.settings, settings_of(training), list(training.config.tasks)]
        return self._folder("evaluations", make_shard_id(training.name, asked, CODE_VERSION))

    def score(self, training: Training, progress: Progress) -> dict[str, Any]:
        """The record of `psreid evaluate reid`: of its tasks, in every setting that the model is for."""
        from workflows.evaluate_reid.step import run_evaluate_reid

        folder = self.folder_of(training)
        if not folder.exists("scores.json"):  # it is written last
            values = self.config.model_dump(include=set(ReidScoring.model_fields)) | {
                "model": training.model, "frames": self.frames.folder.uri, "out": folder.uri,
                "settings": settings_of(training), "tasks": training.config.tasks,
            }  # fmt: skip
            cut = make_shard_id(self.frames.digest, self.config.gap_s, self.config.identities_from)
            run_evaluate_reid(EvaluateReidConfig.model_validate(values), progress, gallery=self._folder("crops", cut))
        record: dict[str, Any] = folder.read_json("scores.json")
        return record

    def _folder(self, kind: str, name: str) -> Folder:
        return Folder(str(self.config.out)).child(kind, name)


def settings_of(training: Training) -> tuple[Setting, ...]:
    """IRM's gallery listens to the task; IRM++'s knows none, and where it learned several they can be joined."""
    if training.config.what == "irm":
        return ("task-specific",)
    return ("task-free",) if len(training.config.tasks) == 1 else ("task-free", "joint")


def command_of(config: ReidTableConfig) -> str:
    """The command line that runs this table; the places of this machine are left out."""
    words = [f"psreid evaluate reid FRAMES --table {config.table} --run --training FILE.yaml --out OUT"]
    for name in sorted({"seeds", *ReidScoring.model_fields} - WORKER_SETTINGS):
        value = getattr(config, name)
        if value != ReidTableConfig.model_fields[name].default:
            words.append(f"--set {name}={json.dumps(value, separators=(',', ':'))}")
    return " ".join(words)


def table_lines(table: ReidTable, stored: Mapping[str, Any]) -> Iterator[str]:
    """The table as text, percent: ours as mean ± spread over seeds, the paper's behind a bar, and the budget."""
    by_name = {variant["name"]: variant["runs"] for variant in stored["variants"]}
    head = "".join(f"{column.head:>{CELL_WIDTH}}" for column in table.columns)
    yield f"{'percent':<{NAME_WIDTH}}{head} | paper"
    for variant in table.variants:
        runs = [run["scores"] for run in by_name.get(variant.name, [])]
        values = [mean_and_spread([value_of(column, run, table) for run in runs]) for column in table.columns]
        cells = "".join(f"{value:>{CELL_WIDTH}}" for value in values)
        yield f"{variant.name:<{NAME_WIDTH}}{cells} | {paper_figures(variant.paper)}"
    for name, figures in table.others.items():
        yield f"{name:<{NAME_WIDTH}}{' ' * CELL_WIDTH * len(table.columns)} | {paper_figures(figures)}"
    yield ""
    yield from budget_lines(table, stored)


def budget_lines(table: ReidTable, stored: Mapping[str, Any]) -> Iterator[str]:
    """What the figures were bought with, the same for all variants."""
    training, steps, bench = stored["training"], stored["steps"], stored["benchmark"]
    sizes = f"{training['identities_per_step']} identities x {training['pictures_per_identity']} pictures"
    yield (
        f"Budget, equal for all variants: {steps['together']} steps (MTL), or {steps['alone']} a task (STL), of {sizes}"
        f"; preset {training['preset']}; seeds {', '.join(map(str, stored['seeds']))}; "
        f"trained on {stored['training_frames']['rows']} frames, tasks {', '.join(stored['tasks'])}."
    )
    queries = ", ".join(f"{task} {bench['queries'][task]}" for task in table.tasks if task in bench["queries"])
    yield (
        f"Ours: queries {queries} on {bench['gallery']} pictures (benchmark "
        f"{bench['digest']}); the paper's: published data sets{'; ' + table.note if table.note else ''}."
    )


def value_of(column: Column, scores: Mapping[str, Mapping[str, float]], table: ReidTable) -> float | None:
    """One figure of one run; the average is over the tasks that the run has."""
    if column.task != "average":
        return scores.get(column.task, {}).get(column.metric)
    values = [scores[task][column.metric] for task in table.tasks if task in scores]
    return statistics.mean(values) if values else None


def _open(config: ReidTableConfig) -> tuple[SharedTraining, Scoring]:
    shared = SharedTraining.read(str(config.training), str(config.out))
    return shared, Scoring(config, open_step(str(config.frames), command="ingest"))


def _scores_of(
    table: ReidTable, trainings: Sequence[Training], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, JSON]:
    """task -> metric -> a fraction of 1, gathered from a variant's models."""
    found = [row for training in trainings for row in records[training.name]["scores"]]
    metrics = {column.metric for column in table.columns}
    return {row["task"]: {metric: row[metric] for metric in sorted(metrics)} for row in found if _is_shown(table, row)}


def _is_shown(table: ReidTable, row: Mapping[str, Any]) -> bool:
    return row["setting"] == table.setting and row["task"] in table.tasks
