"""`psreid evaluate --table N`: runs a table's variants, stores their scores, prints them beside the paper's.

A stored table is one small JSON file: the command that made it, the benchmark's digest and settings, and for every
variant one record a seed. Variants that are measured are resumed by their own ledgers; a variant that is trained is
trained once for each seed in a folder named after its settings, so tables share a training that both have.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeling.errors import ConfigError
from workflows.config import StepConfig, load_config
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.measure import Measurement, measure
from workflows.evaluate.stored_table import (
    RESULTS_VERSION,
    mean_and_spread,
    paper_figures,
    put_setting,
    read_stored,
    results_folder,
    table_file,
)
from workflows.evaluate.tables import METRICS, TABLES, PaperTable, Variant
from workflows.index.inputs import open_step
from workflows.ledger import make_shard_id
from workflows.progress import Progress, Summary
from workflows.storage import JSON, Folder

NAME_WIDTH, CELL_WIDTH = 44, 13
BEST_GIOU = "best giou"
"""gIoU at the threshold that is best in the gallery: a training of other parts leaves scores with another zero."""


@dataclass(frozen=True)
class SeededModel:
    """One model of a variant; where nothing is trained, the number of a given model stands for its seed."""

    seed: int
    model: str


def run_table(config: EvaluateConfig, progress: Progress) -> Summary:
    """Prints a stored table, after running its variants where the settings ask for it."""
    assert config.table is not None, "only for a table"
    table, folder = TABLES[config.table], results_folder(config.results, package="workflows.evaluate")
    name = table_file(table.number)
    if config.run:
        folder.write_json(name, run_variants(table, config, progress))
    stored = read_stored(folder, table.number, made_by=f"psreid evaluate DATA --table {table.number} --run")
    headline = f"Table {table.number}, {table.title}: ours made by `{stored['command']}`: {folder.path(name)}"
    return Summary(headline, folder.path(name), details=list(table_lines(table, stored)), record=stored)


def run_variants(table: PaperTable, config: EvaluateConfig, progress: Progress) -> dict[str, JSON]:
    """Every variant with every seed, as it is stored."""
    galleries = list(config.gallery or table.galleries)
    variants: dict[str, list[JSON]] = {variant.name: [] for variant in table.variants}
    settings: dict[str, JSON] = {}
    for group in _measured_together(table.variants):
        for seeded in models_of(table, group[0], config, progress):
            changes = {**group[0].evaluation, "gallery": galleries, "modality": [one.modality for one in group]}
            measurement = _measure(config, seeded.model, changes, progress)
            settings["benchmark"] = measurement.evaluation.benchmark.digest
            for variant in group:
                scores = _scores_of(measurement, variant, galleries)
                variants[variant.name].append({"seed": seeded.seed, "scores": scores})
    if table.is_trained:
        settings |= _described(_shared_training(config))
    return {
        "version": RESULTS_VERSION,
        "table": table.number,
        "command": command_of(config),
        "settings": {**settings, "rule": config.rule.value, "threshold": config.threshold},
        "galleries": galleries,
        "variants": [{"name": name, "runs": runs} for name, runs in variants.items()],
    }


def models_of(table: PaperTable, variant: Variant, config: EvaluateConfig, progress: Progress) -> Iterator[SeededModel]:
    """The models of a variant: trained here, one a seed, or those given; a histogram needs none."""
    if table.is_trained:
        for seed in config.seeds:
            yield SeededModel(seed, train_variant(variant, seed, config, progress))
    elif variant.evaluation.get("ranking") == "histogram":
        yield SeededModel(0, "colour histogram")
    else:
        yield from (SeededModel(number, model) for number, model in enumerate(config.models))


def train_variant(variant: Variant, seed: int, config: EvaluateConfig, progress: Progress) -> str:
    """Trains a variant with one seed, or finds it trained, and returns the model's folder."""
    settings, out = variant_training(variant, seed, config)
    progress.say(f"table {config.table}: {variant.name}, seed {seed}: {out.uri}")
    load_training().run(settings, progress)
    return out.child("model").uri


def variant_training(variant: Variant, seed: int, config: EvaluateConfig) -> tuple[StepConfig, Folder]:
    """The training settings of one variant and seed, the shared ones with its own put over them, and their OUT."""
    shared = _shared_training(config)
    values = _plain(shared) | {"seed": seed}
    for key, value in variant.training.items():
        put_setting(values, key, value)
    out = Folder(config.out or str(config.data)).child("training", make_shard_id(values))
    return type(shared).model_validate(values | {"out": out.uri}), out


@dataclass(frozen=True)
class Training:
    """How `psreid train psreid` is configured and run."""

    config_class: type[StepConfig]
    run: Callable[[Any, Progress], Summary]


def load_training() -> Training:
    """Imported late: only trained tables need it, and it brings Ray Train and DeepSpeed along."""
    settings, step = (importlib.import_module(f"workflows.train.{name}") for name in ("config", "psreid"))
    return Training(settings.PsReidTrainConfig, step.run_psreid)


def command_of(config: EvaluateConfig) -> str:
    """The command line that runs this table; machine paths are left out, names of models kept."""
    words = ["psreid evaluate DATA", f"--table {config.table} --run"]
    if config.models != ("tiny",):
        words.append("--model " + " ".join(model.rstrip("/").rpartition("/")[2] for model in config.models))
    if config.gallery:
        words.append("--gallery " + " ".join(config.gallery))
    defaults = EvaluateConfig(data="DATA")
    if config.training:
        words.append("--training TRAINING.yaml")
        if config.seeds != defaults.seeds:
            words.append(f"--set 'seeds={list(config.seeds)}'")
    for name in ("threshold", "min_mask_px", "dtype"):
        if getattr(config, name) != getattr(defaults, name):
            words.append(f"--set {name}={getattr(config, name)}")
    if config.rule != defaults.rule:
        words.append(f"--rule {config.rule.value}")
    return " ".join(words)


def table_lines(table: PaperTable, stored: Mapping[str, Any]) -> Iterator[str]:
    """The table as text, a block a gallery: ours as mean ± spread over seeds, the paper's behind a bar; percent."""
    by_name = {variant["name"]: variant["runs"] for variant in stored["variants"]}
    for gallery in stored["galleries"]:
        head = "".join(f"{name:>{CELL_WIDTH}}" for name in (*METRICS, BEST_GIOU))
        yield f"{gallery + ', percent':<{NAME_WIDTH}}{head} |{' paper':<{CELL_WIDTH}}"
        for variant in table.variants:
            runs = [run["scores"].get(gallery, {}) for run in by_name.get(variant.name, [])]
            values = [mean_and_spread([run.get(metric) for run in runs]) for metric in (*METRICS, BEST_GIOU)]
            cells = "".join(f"{value:>{CELL_WIDTH}}" for value in values)
            yield f"{variant.name:<{NAME_WIDTH}}{cells} | {paper_figures(variant.paper.get(gallery))}"
        for name, figures in table.others.items():
            blank = " " * (CELL_WIDTH * (len(METRICS) + 1))
            yield f"{name:<{NAME_WIDTH}}{blank} | {paper_figures(figures.get(gallery))}"
        yield ""
    yield from budget_lines(stored)


def budget_lines(stored: Mapping[str, Any]) -> Iterator[str]:
    """What a trained table's variants were trained on and for how long, the same for all."""
    settings = stored.get("settings", {})
    training = settings.get("training")
    if training is None:
        return
    seeds = sorted({run["seed"] for variant in stored["variants"] for run in variant["runs"]})
    stages = " + ".join(str(training[stage]["steps"]) for stage in ("stage1", "stage2"))
    yield (
        f"Budget, equal for all variants: {stages} steps of {training['identities_per_step']} identities x "
        f"{1 + training['targets_per_identity']} frames, from {training['start_from'] or training['preset']}; seeds "
        f"{', '.join(map(str, seeds))}; trained on {settings['frames_trained_on']} frames, measured on benchmark "
        f"{settings['benchmark']}."
    )


def _measured_together(variants: Sequence[Variant]) -> list[list[Variant]]:
    """Variants that differ in modality alone share one pass over the frames."""
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(make_shard_id(dict(variant.training), dict(variant.evaluation)), []).append(variant)
    return list(groups.values())


def _measure(config: EvaluateConfig, model: str, changes: Mapping[str, JSON], progress: Progress) -> Measurement:
    from workflows.evaluate.step import open_evaluation, record_of, write_results

    settings = config.model_dump(mode="json") | {"table": None, "run": False, "models": [model]} | dict(changes)
    if config.out is not None:
        settings["out"] = Folder(config.out).child("evaluations", make_shard_id(model, dict(changes))).uri
    evaluation = open_evaluation(EvaluateConfig.model_validate(settings), progress)
    measurement = measure(evaluation)
    write_results(measurement, record_of(measurement))
    return measurement


def _scores_of(measurement: Measurement, variant: Variant, galleries: Sequence[str]) -> dict[str, JSON]:
    """gallery -> metric -> a fraction of 1, of frames in every case; null where a ranking has no masks."""
    found = measurement.frame_scores or measurement.scores
    modality = variant.modality if (variant.modality, galleries[0]) in found else next(iter(found))[0]
    scores: dict[str, JSON] = {}
    for gallery in galleries:
        best = measurement.thresholds.get((modality, gallery))
        record = found[modality, gallery].record() | {BEST_GIOU: best.giou if best else None}
        scores[gallery] = {name: record.get(name) for name in (*METRICS, BEST_GIOU)}
    return scores


def _shared_training(config: EvaluateConfig) -> StepConfig:
    """The settings that all variants share; ConfigError when none are given."""
    if config.training is None:
        raise ConfigError(
            f"table {config.table} trains its variants: give the settings they share with --training FILE.yaml "
            "(frames, steps and so on, as for `psreid train psreid --config`)"
        )
    return load_config(load_training().config_class, config.training, {"out": "set for each variant"})


def _described(shared: StepConfig) -> dict[str, JSON]:
    """What the trainings share, as it is stored: data by digest, models by name, without this machine's places."""
    values = shared.model_dump(mode="json", exclude={"out", "tracking_uri"})
    frames = [open_step(uri, command="synth") for uri in values.pop("frames", ())]
    if values.get("start_from"):
        values["start_from"] = values["start_from"].rstrip("/").rpartition("/")[2]
    return {
        "training": values,
        "training_frames": [one.digest for one in frames],
        "frames_trained_on": sum(one.manifest.rows for one in frames),
    }


def _plain(config: StepConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"out"})
