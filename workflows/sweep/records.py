"""What a sweep knows of each trial, kept in its folder: nothing that a trial reported is lost with the driver.

trials/<trial>.json     its number and point, and when each session of the sweep started it
reports/<trial>.json    what it has reported so far
errors/<trial>.json     what it raised, in words (written by the trial itself)
runs/<trial>/           the training's own output folder: checkpoints, figures, model
part-<trial>.parquet    the finished record, committed through the step's ledger
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

from workflows.ledger import Ledger, Shard
from workflows.storage import JSON, Folder
from workflows.sweep.space import Point

Status = Literal["running", "finished", "stopped", "failed"]
"""`stopped` was ended early by ASHA; `running` includes trials that a killed sweep left behind."""

TRIALS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("number", pa.int64()),
        ("status", pa.string()),
        ("value", pa.float64()),  # of the sweep's metric at the last report that had it; null without one
        ("step", pa.int64()),  # the last one reported
        ("started_s", pa.list_(pa.float64())),  # of each session, seconds since 1970
        ("ended_s", pa.float64()),
        ("error", pa.string()),
        ("point_json", pa.string()),
        ("reports_json", pa.string()),
    ]
)


@dataclass(frozen=True)
class Report:
    """What a trial told at one step."""

    step: int
    time_s: float
    """Since 1970."""
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """One point, and what became of it."""

    trial_id: str
    number: int
    point: Point
    status: Status = "running"
    started_s: tuple[float, ...] = ()
    """When each session of the sweep started or continued it, seconds since 1970."""
    ended_s: float | None = None
    reports: tuple[Report, ...] = ()
    """In order of steps, one a step."""
    error: str = ""

    def value(self, metric: str) -> float | None:
        """The metric at the last report that has a finite one; a trial that failed has none."""
        if self.status == "failed":
            return None
        told = [report.figures[metric] for report in self.reports if metric in report.figures]
        return told[-1] if told and math.isfinite(told[-1]) else None

    def news(self, report: Report) -> Report:
        """The report without figures that were told at its step already."""
        known = next((one.figures for one in self.reports if one.step == report.step), {})
        new = {name: value for name, value in report.figures.items() if known.get(name) != value}
        return replace(report, figures=new)

    @property
    def has_ended(self) -> bool:
        return self.status != "running"

    def reported(self, report: Report) -> "Trial":
        """With one more report; it replaces what was told of its step and of later ones before a restart."""
        kept = tuple(one for one in self.reports if one.step < report.step)
        same = [one for one in self.reports if one.step == report.step]
        figures = {**(same[0].figures if same else {}), **report.figures}
        return replace(self, reports=(*kept, replace(report, figures=figures)))


@dataclass
class TrialStore:
    """The trials of one sweep folder."""

    ledger: Ledger
    trials: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def open(cls, ledger: Ledger) -> "TrialStore":
        """Every trial that any earlier session started, ended or not."""
        folder = ledger.folder
        store = cls(ledger)
        done = ledger.done_ids()
        for name in folder.list_files("trials/"):
            trial_id = name.removeprefix("trials/").removesuffix(".json")
            store.trials[trial_id] = (
                _from_row(folder.read_table(f"part-{trial_id}.parquet").to_pylist()[0])
                if trial_id in done
                else _unfinished(folder, trial_id)
            )
        return store

    @property
    def in_order(self) -> list[Trial]:
        """All trials by number."""
        return sorted(self.trials.values(), key=lambda trial: trial.number)

    def run_folder(self, trial_id: str) -> Folder:
        """The training's output folder of one trial."""
        return self.ledger.folder.child("runs", trial_id)

    def start(self, trial: Trial) -> Trial:
        """A trial begins, or continues, now."""
        started = replace(trial, started_s=(*trial.started_s, time.time()), status="running", error="", ended_s=None)
        self.trials[trial.trial_id] = started
        self._folder.remove(error_file(trial.trial_id))
        stored = {"number": trial.number, "point": trial.point, "started_s": list(started.started_s)}
        self._folder.write_json(f"trials/{trial.trial_id}.json", stored)
        return started

    def report(self, trial_id: str, report: Report) -> Trial:
        """A trial has told figures."""
        trial = self.trials[trial_id] = self.trials[trial_id].reported(report)
        self._folder.write_json(f"reports/{trial_id}.json", _plain_reports(trial), durable=False)
        return trial

    def end(self, trial_id: str, status: Status, *, metric: str, error: str = "") -> Trial:
        """A trial has ended: its record is committed, and no later session runs it again."""
        trial = replace(self.trials[trial_id], status=status, ended_s=time.time(), error=error)
        self.trials[trial_id] = trial
        seconds = max(0.0, (trial.ended_s or 0.0) - (trial.started_s[-1] if trial.started_s else 0.0))
        table = pa.Table.from_pylist([_row(trial, metric)], TRIALS)
        self.ledger.commit(Shard(trial_id, {}), table, drops={}, quarantine=[], seconds=seconds)
        return trial

    def forget(self, trial_id: str) -> None:
        """Makes an ended trial one that is still to be run; what its training has done so far stays."""
        self._folder.remove(f"done/{trial_id}.json")
        self._folder.remove("manifest.json")
        self.trials[trial_id] = replace(self.trials[trial_id], status="running", ended_s=None, error="")

    def told_error(self, trial_id: str) -> str:
        """What the trial itself said it failed of; empty when its process died without a word."""
        name = error_file(trial_id)
        return str(self._folder.read_json(name)["message"]) if self._folder.exists(name) else ""

    @property
    def _folder(self) -> Folder:
        return self.ledger.folder


def error_file(trial_id: str) -> str:
    """Where, in the sweep's folder, a trial says what it failed of."""
    return f"errors/{trial_id}.json"


def _plain_reports(trial: Trial) -> JSON:
    return [{"step": one.step, "time_s": one.time_s, "figures": dict(one.figures)} for one in trial.reports]


def _reports(stored: JSON) -> tuple[Report, ...]:
    return tuple(Report(int(one["step"]), float(one["time_s"]), one["figures"]) for one in stored)


def _row(trial: Trial, metric: str) -> dict[str, JSON]:
    return {
        "trial_id": trial.trial_id,
        "number": trial.number,
        "status": trial.status,
        "value": trial.value(metric),
        "step": trial.reports[-1].step if trial.reports else None,
        "started_s": list(trial.started_s),
        "ended_s": trial.ended_s,
        "error": trial.error,
        "point_json": json.dumps(trial.point),
        "reports_json": json.dumps(_plain_reports(trial)),
    }


def _from_row(row: Mapping[str, JSON]) -> Trial:
    return Trial(
        trial_id=row["trial_id"],
        number=row["number"],
        point=json.loads(row["point_json"]),
        status=row["status"],
        started_s=tuple(row["started_s"]),
        ended_s=row["ended_s"],
        reports=_reports(json.loads(row["reports_json"])),
        error=row["error"],
    )


def _unfinished(folder: Folder, trial_id: str) -> Trial:
    stored = folder.read_json(f"trials/{trial_id}.json")
    told = folder.read_json(f"reports/{trial_id}.json") if folder.exists(f"reports/{trial_id}.json") else []
    started = tuple(stored["started_s"])
    return Trial(trial_id, stored["number"], stored["point"], started_s=started, reports=_reports(told))
