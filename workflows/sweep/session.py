"""One session of a sweep on Ray Tune: hands out points, watches trials, stops poor ones. Resume lies in the records.

Every trial is a function that starts a real Ray Train run (Ray 2.60's way of training inside Tune). Tune's own
snapshots are not used: they lag behind, and are pickles. What a killed session left is told to the search and to ASHA
before a new one begins.
"""

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal, Protocol

from ray.tune import Callback
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from modeling.errors import PsreidError
from workflows.lock import wait_until_free
from workflows.progress import Summary
from workflows.storage import Folder
from workflows.sweep.config import SweepConfig
from workflows.sweep.records import Report, Trial, TrialStore, error_file
from workflows.sweep.space import PointSource, trial_id
from workflows.sweep.trainings import Training

STEP = "step"
OLD_SESSION_GONE_S = 60.0  # within which the processes of a killed session have ended
# Of the function that starts a Ray Train run: its workers take the CPUs, and with a share of one here, two trials would
# not fit two cores. Tune refuses a request for nothing, so it is a little memory.
DRIVER_RESOURCES = {"CPU": 0, "memory": 1 << 20}

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Hears of trials, in the driver."""

    def on_start(self, trial: Trial) -> None:
        """It begins or continues."""

    def on_report(self, trial: Trial, report: Report) -> None:
        """It has told figures."""

    def on_end(self, trial: Trial) -> None:
        """It has finished, failed, or was stopped."""


class TrialSearch(Searcher):  # type: ignore[misc]
    """Gives Tune one trial after the other: those an earlier session left unfinished, then new points."""

    def __init__(self, config: SweepConfig, store: TrialStore, source: PointSource) -> None:
        super().__init__(metric=config.metric, mode=config.mode)
        self._config, self._store, self._source = config, store, source
        self._left = [trial for trial in store.in_order if not trial.has_ended][::-1]
        self._by_tune_id: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | Literal["FINISHED"] | None:
        """The next trial's id and point; `trial_id` is Tune's own."""
        trial = self._left.pop() if self._left else self._new_trial()
        if trial is None:
            return "FINISHED"
        self._by_tune_id[trial_id] = trial.trial_id
        self._store.trials.setdefault(trial.trial_id, trial)
        return {"trial_id": trial.trial_id, "point": trial.point}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the source what the point came to."""
        trial = self._store.trials[self._by_tune_id[trial_id]]
        self._source.tell(trial.point, None if error else trial.value(self._config.metric))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune packs its parts into a snapshot that is never read

    def _new_trial(self) -> Trial | None:
        if len(self._store.trials) >= self._config.num_trials:
            return None
        point = self._source.next()
        if point is None:
            return None
        return Trial(trial_id(self._config.train, self._config.settings, point), len(self._store.trials), point)


class Recorder(Callback):  # type: ignore[misc]
    """Writes down what Tune learns of trials, and passes it on."""

    def __init__(self, config: SweepConfig, store: TrialStore, watcher: Watcher) -> None:
        self._config, self._store, self._watcher = config, store, watcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watcher.on_start(self._store.start(self._store.trials[_own_id(trial)]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        told = read_report(result)
        report = self._store.trials[_own_id(trial)].news(told) if told is not None else None
        if report is not None and report.figures:
            self._watcher.on_report(self._store.report(_own_id(trial), report), report)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        own = self._store.trials[_own_id(trial)]
        if own.value(self._config.metric) is None:
            told = f"the training never reported a finite {self._config.metric}"
            self._end(own, "failed", told)
        else:
            self._end(own, "stopped" if self._was_stopped(own) else "finished")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        own = self._store.trials[_own_id(trial)]
        error = trial.get_error()
        told = self._store.told_error(own.trial_id) or (_last_line(error) if error else "its process died")
        self._end(own, "failed", told)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _end(self, trial: Trial, status: Any, error: str = "") -> None:
        self._watcher.on_end(self._store.end(trial.trial_id, status, metric=self._config.metric, error=error))

    def _was_stopped(self, trial: Trial) -> bool:
        asha = self._config.asha
        return asha is not None and trial.reports[-1].step < asha.most_steps and not self._is_whole(trial)

    def _is_whole(self, trial: Trial) -> bool:
        """Whether the training itself came to its end: then its model is there."""
        return self._store.run_folder(trial.trial_id).exists("model/config.json")


class ResumedAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that knows the reports of earlier sessions, so that rungs keep their cutoffs."""

    def __init__(self, config: SweepConfig, history: Sequence[Trial]) -> None:
        assert config.asha is not None, "made only where the config asks for it"
        super().__init__(
            time_attr=STEP,
            metric=config.metric,
            mode=config.mode,
            max_t=config.asha.most_steps,
            grace_period=config.asha.grace_steps,
            reduction_factor=config.asha.reduction_factor,
            stop_last_trials=False,  # a trial that reaches the end writes its model
        )
        for trial in history:
            self._replay(trial, config.metric)

    def _replay(self, trial: Trial, metric: str) -> None:
        known = SimpleNamespace(trial_id=f"earlier-{trial.trial_id}")
        self.on_trial_add(None, known)
        for report in trial.reports:
            if metric in report.figures:
                self.on_trial_result(None, known, {STEP: report.step, metric: report.figures[metric]})


def run_session(
    config: SweepConfig,
    training: Training,
    store: TrialStore,
    source: PointSource,
    watcher: Watcher,
    *,
    concurrent: int,
) -> None:
    """Runs every trial that has not ended. Ray must run already. A trial that fails does not stop the others."""
    import ray.tune

    ended = [trial for trial in store.in_order if trial.has_ended]
    left = config.num_trials - len(ended)
    if left <= 0:
        return
    folder = store.ledger.folder
    with tempfile.TemporaryDirectory(prefix="psreid-tune-") as scratch:
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(
                ray.tune.with_parameters(run_trial, training=training, settings=config.settings, folder_uri=folder.uri),
                DRIVER_RESOURCES,
            ),
            tune_config=ray.tune.TuneConfig(
                search_alg=TrialSearch(config, store, source),
                scheduler=ResumedAsha(config, ended) if config.asha else None,
                num_samples=left,
                max_concurrent_trials=concurrent,
                reuse_actors=False,
            ),
            run_config=ray.tune.RunConfig(
                name="session",
                storage_path=scratch,
                callbacks=[Recorder(config, store, watcher)],
                failure_config=ray.tune.FailureConfig(max_failures=0, fail_fast=False),
                verbose=0,
            ),
        )
        tuner.fit()


def run_trial(given: Mapping[str, Any], *, training: Training, settings: Mapping[str, Any], folder_uri: str) -> None:
    """One trial, inside Tune: starts the Ray Train run of its point, and says in words what it fails of."""
    from ray.tune.integration.ray_train import TuneReportCallback

    folder = Folder(folder_uri)
    try:
        config = training.configure(settings, given["point"], out=folder.child("runs", given["trial_id"]).uri)
        wait_until_free(folder.child("runs", given["trial_id"]), wait_s=OLD_SESSION_GONE_S)
        summary = training.run(config, [TuneReportCallback()])
        _report_end(summary)
    except Exception as error:
        message = str(error) if isinstance(error, PsreidError) else _last_line(error)
        folder.write_json(error_file(given["trial_id"]), {"kind": type(error).__name__, "message": message})
        raise


def _report_end(summary: Summary) -> None:
    """Tells the last figures once more: a training that an earlier session had finished reports none by itself."""
    import ray.tune

    figures = {name: value for name, value in summary.figures.items() if not isinstance(value, str)}
    steps = figures.pop("steps", None)
    if steps is not None:
        ray.tune.report({STEP: int(steps), **figures})


def read_report(result: Mapping[str, Any]) -> Report | None:
    """The training's own figures among what Tune adds; None for a result without a step."""
    from ray.tune.result import AUTO_RESULT_KEYS

    if not isinstance(result.get(STEP), int):
        return None
    figures = {
        name: float(value)
        for name, value in result.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in (*AUTO_RESULT_KEYS, STEP)
    }
    return Report(result[STEP], time.time(), figures)


def set_up_tune() -> None:
    """What Tune reads from the environment: none of its own log files, and no snapshots worth the name."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which prints even when asked to be silent
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a training reports some figures now and then
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the sweep, which the next run continues
    if not os.environ.get("PSREID_DEBUG"):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _own_id(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _last_line(error: Exception) -> str:
    """What the innermost cause said: Ray puts it at the end of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
