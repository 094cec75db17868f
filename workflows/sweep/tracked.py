"""A sweep in MLflow: one parent run, one child run a trial, each once, however often the sweep was killed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from workflows.sweep.config import SweepConfig
from workflows.sweep.records import Report, Trial, TrialStore
from workflows.sweep.results import SweepResults
from workflows.tracking.config import TRACKING_SETTINGS, flat_settings
from workflows.tracking.identity import code_identity
from workflows.tracking.tracking import TrackedRun, Tracking
from workflows.tracking.training import registration

TOLD_FILE = "tracking-told.json"
"""Trials that MLflow has whole; what a killed session had not sent is told again by the next."""
MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class TrackedSweep:
    """Tells MLflow of a sweep; does nothing where tracking is off."""

    def __init__(
        self, tracking: Tracking, config: SweepConfig, store: TrialStore, data: Sequence[Mapping[str, str]]
    ) -> None:
        self._tracking, self._config, self._store, self._data = tracking, config, store, data
        self._runs: dict[str, TrackedRun] = {}
        if not tracking.is_on:
            return
        folder = store.ledger.folder
        name = folder.uri.rstrip("/").rpartition("/")[2]
        self._parent = tracking.run(f"sweep {name}", tags=code_identity("sweep"))
        self._parent.parameters(flat_settings(config.model_dump(exclude=set(TRACKING_SETTINGS))))
        self._parent.data(data)
        told = set(folder.read_json(TOLD_FILE)) if folder.exists(TOLD_FILE) else set()
        for trial in store.in_order:
            if trial.has_ended and trial.trial_id not in told:
                self.start(trial)
                self.end(trial)

    def start(self, trial: Trial) -> None:
        """A trial begins or continues; what it told in earlier sessions is told again, at its old times."""
        if not self._tracking.is_on:
            return
        run = self._tracking.run(
            f"trial {trial.number}",
            key=f"{self._parent.key}-{trial.trial_id}",
            parent=self._parent,
            tags={**code_identity(f"train {self._config.train}"), "psreid.trial": trial.trial_id},
        )
        self._runs[trial.trial_id] = run
        run.parameters(flat_settings(self._config.settings) | {key: str(value) for key, value in trial.point.items()})
        run.data(self._data)
        for report in trial.reports:
            self.report(trial, report)

    def report(self, trial: Trial, report: Report) -> None:
        """A trial has told figures."""
        if self._tracking.is_on:
            self._runs[trial.trial_id].figures(report.step, report.figures, time_ms=int(report.time_s * 1000))

    def end(self, trial: Trial) -> None:
        """A trial has ended."""
        if self._tracking.is_on:
            run = self._runs[trial.trial_id]
            run.tags({"psreid.status": trial.status, "psreid.error": trial.error[:500]})
            run.end(MLFLOW_STATUS[trial.status])

    def finish(self, results: SweepResults) -> None:
        """The page, the table and the best settings with the parent run; the best model into the registry."""
        if not self._tracking.is_on:
            return
        folder = self._store.ledger.folder
        for name in results.files:
            self._parent.file(name, folder.read_bytes(name))
        best = results.best
        if best is not None:
            value = best.value(self._config.metric)
            assert value is not None, "the best trial has a value"
            self._parent.figures(0, {f"best_{self._config.metric}": value})
            self._parent.tags({"psreid.best_trial": best.trial_id})
            self._register(best, value)
        if self._tracking.flush():
            folder.write_json(TOLD_FILE, [trial.trial_id for trial in self._store.in_order if trial.has_ended])

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Ends the parent run with the block."""
        if not self._tracking.is_on:
            yield
            return
        with self._parent.ending():
            yield

    def _register(self, best: Trial, value: float) -> None:
        folder = self._store.run_folder(best.trial_id).child("model")
        if self._config.register_as is None or folder.is_remote or not (Path(folder.uri) / "config.json").exists():
            return
        run = self._tracking.run(f"trial {best.number}", key=f"{self._parent.key}-{best.trial_id}", parent=self._parent)
        self._tracking.put(
            registration(
                run, folder.uri, self._config.register_as, self._config.metric, value,
                higher_is_better=self._config.mode == "max", data=self._data,
            )
        )  # fmt: skip
        run.end()
