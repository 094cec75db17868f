"""What a sweep leaves: the table of its trials, the best settings as a file, and the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import yaml

from workflows.storage import Folder
from workflows.sweep.config import SweepConfig
from workflows.sweep.page import render_page
from workflows.sweep.records import Trial, TrialStore
from workflows.sweep.trainings import Training

TABLE_FILE, BEST_FILE, PAGE_FILE = "trials.parquet", "best.yaml", "sweep.html"
MOST_ROWS_PRINTED = 20


@dataclass(frozen=True)
class SweepResults:
    """Where everything lies."""

    folder: str
    best: Trial | None

    @property
    def table(self) -> str:
        return f"{self.folder}/{TABLE_FILE}"

    @property
    def best_config(self) -> str:
        return f"{self.folder}/{BEST_FILE}"

    @property
    def page(self) -> str:
        return f"{self.folder}/{PAGE_FILE}"

    @property
    def files(self) -> list[str]:
        return [TABLE_FILE, PAGE_FILE, *([BEST_FILE] if self.best else [])]


def write_results(config: SweepConfig, training: Training, store: TrialStore, folder: Folder) -> SweepResults:
    """Writes table, best settings and page."""
    ranked = rank(config, store.in_order)
    best = ranked[0] if ranked and ranked[0].value(config.metric) is not None else None
    folder.write_table(TABLE_FILE, trials_table(config, ranked))
    if best is not None:
        folder.write_bytes(BEST_FILE, best_settings(config, training, best, folder).encode())
    folder.write_bytes(PAGE_FILE, render_page(config, store.in_order, best))
    return SweepResults(folder.uri, best)


def rank(config: SweepConfig, trials: Sequence[Trial]) -> list[Trial]:
    """Best first: whole runs and stopped ones by value, then those without one."""
    sign = -1.0 if config.mode == "max" else 1.0

    def order(trial: Trial) -> tuple[bool, bool, float, int]:
        value = trial.value(config.metric)
        return value is None, trial.status == "stopped", sign * (value or 0.0), trial.number

    return sorted(trials, key=order)


def trials_table(config: SweepConfig, ranked: Sequence[Trial]) -> pa.Table:
    """One row a trial, best first, with a column for each varied setting."""
    columns: dict[str, list] = {"rank": [], "trial": [], "trial_id": [], **{name: [] for name in config.space}}
    columns |= {name: [] for name in ("status", config.metric, "step", "started_s", "ended_s", "error", "run")}
    for place, trial in enumerate(ranked, start=1):
        row = {
            "rank": place,
            "trial": trial.number,
            "trial_id": trial.trial_id,
            **trial.point,
            "status": trial.status,
            config.metric: trial.value(config.metric),
            "step": trial.reports[-1].step if trial.reports else None,
            "started_s": trial.started_s[0] if trial.started_s else None,
            "ended_s": trial.ended_s,
            "error": trial.error,
            "run": f"runs/{trial.trial_id}",
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.table({name: _column(values) for name, values in columns.items()})


def best_settings(config: SweepConfig, training: Training, best: Trial, folder: Folder) -> str:
    """YAML that `psreid train --config` takes: every setting of the best trial, its output beside the sweep."""
    chosen = training.configure(config.settings, best.point, out=folder.child("best").uri)
    values = chosen.model_dump(mode="json", exclude_none=True)
    value = best.value(config.metric)
    lines = [
        f"# The best of a sweep over {', '.join(config.space)}: {config.metric} {value:.6g}, trial {best.number}.",
        f"# psreid train {config.train} --config {BEST_FILE}",
    ]
    return "\n".join(lines) + "\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def print_table(config: SweepConfig, trials: Sequence[Trial]) -> list[str]:
    """The table for a terminal, best first."""
    names = ["rank", "trial", *config.space, config.metric, "step", "status"]
    rows = [names]
    for place, trial in enumerate(rank(config, trials)[:MOST_ROWS_PRINTED], start=1):
        value = trial.value(config.metric)
        step = str(trial.reports[-1].step) if trial.reports else "-"
        point = [_short(trial.point[name]) for name in config.space]
        rows.append(
            [str(place), str(trial.number), *point, "-" if value is None else f"{value:.4f}", step, trial.status]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    more = len(trials) - MOST_ROWS_PRINTED
    return [*lines, f"and {more} more in {TABLE_FILE}"] if more > 0 else lines


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column(values: list) -> pa.Array:
    """A column of one type; a setting that takes values of several kinds becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pa.array([float(value) if float in kinds and value is not None else value for value in values])
    return pa.array(values) if len(kinds) <= 1 else pa.array([None if v is None else str(v) for v in values])
