"""`psreid sweep`: many trainings of one kind, the best of them, and a page that shows what mattered."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from modeling.errors import ConfigError, JobError
from workflows.config import StepConfig
from workflows.ledger import Ledger, Shard, StepIdentity
from workflows.lock import hold_lock
from workflows.progress import Plan, Progress, Summary
from workflows.ray_cluster import ensure_ray
from workflows.schema import SCHEMA_VERSION
from workflows.storage import Folder
from workflows.sweep.config import SweepConfig
from workflows.sweep.records import Report, Trial, TrialStore
from workflows.sweep.results import SweepResults, print_table, write_results
from workflows.sweep.space import describe_point, point_source
from workflows.sweep.tracked import TrackedSweep
from workflows.sweep.trainings import Training, check_points, find_training
from workflows.tracking.config import tracking_uri
from workflows.tracking.identity import data_identity
from workflows.tracking.tracking import Tracking

CODE_VERSION = "1"  # raised when the same settings would give other trials
CHANGEABLE = frozenset({"out", "trials", "concurrent", "retry_failed", "register_as", "tracking_uri", "experiment"})
"""Settings that a sweep may be continued with other values of: a drawn sweep can be made longer."""


def run_sweep(config: SweepConfig, progress: Progress, *, training: Training | None = None) -> Summary:
    """Runs, or continues, a sweep; no trial that has ended runs again. JobError when no trial came to a value."""
    training = training or find_training(config.train)
    first = check_points(config, training)
    folder, data = Folder(config.out), data_identity(first)
    ledger = Ledger.open(folder, sweep_identity(config, {one["source"]: one["digest"] for one in data}))
    with ExitStack() as stack:
        stack.enter_context(hold_lock(folder))
        store = _open_store(ledger, retry_failed=config.retry_failed)
        tracking = Tracking.open(tracking_uri(config), experiment=config.experiment, folder=folder)
        told: list[str] = []
        stack.callback(lambda: told.extend(tracking.close()))
        tracked = TrackedSweep(tracking, config, store, data)
        with tracked.ending():
            watch = _Watch(progress, tracked)
            _run_trials(config, training, first, store, watch)
            results = write_results(config, training, store, folder)
            tracked.finish(results)
            summary = _summary(config, store, results, num_started=watch.num_started)
        ledger.write_manifest(ledger.totals([Shard(one.trial_id, {}) for one in store.in_order]))
    return replace(summary, details=[*summary.details, *told])


def plan_sweep(config: SweepConfig, *, training: Training | None = None) -> Plan:
    """What a sweep would run."""
    training = training or find_training(config.train)
    cpus, gpus = training.resources(check_points(config, training))
    folder = Folder(config.out)
    return Plan(
        {
            "training": training.name,
            "varied": ", ".join(config.space),
            "trials": config.num_trials,
            "trials that have ended": len(Ledger.read(folder).done_ids()) if folder.exists("step.json") else 0,
            "CPUs of a trial": cpus,
            "GPUs of a trial": gpus,
            "trials at once": config.concurrent or "as many as the cluster holds",
        }
    )


def sweep_identity(config: SweepConfig, inputs: Mapping[str, str]) -> StepIdentity:
    """What makes two runs the same sweep."""
    return StepIdentity("sweep", config.model_dump(exclude=set(CHANGEABLE)), dict(inputs), CODE_VERSION, SCHEMA_VERSION)


@dataclass
class _Watch:
    """Passes what happens on to the person and to MLflow, and counts."""

    progress: Progress
    tracked: TrackedSweep
    num_started: int = field(default=0)

    def on_start(self, trial: Trial) -> None:
        self.num_started += 1
        self.tracked.start(trial)

    def on_report(self, trial: Trial, report: Report) -> None:
        self.tracked.report(trial, report)

    def on_end(self, trial: Trial) -> None:
        self.tracked.end(trial)
        if trial.status == "failed":
            self.progress.say(f"trial {trial.number} ({describe_point(trial.point)}) failed: {trial.error}")
        self.progress.advance()


def _open_store(ledger: Ledger, *, retry_failed: bool) -> TrialStore:
    store = TrialStore.open(ledger)
    if retry_failed:
        for trial in [trial for trial in store.in_order if trial.status == "failed"]:
            store.forget(trial.trial_id)
    return store


def _run_trials(config: SweepConfig, training: Training, first: StepConfig, store: TrialStore, watch: _Watch) -> None:
    """Runs what has not ended; starts no Ray where everything has."""
    known = [(trial.point, trial.value(config.metric), trial.has_ended) for trial in store.in_order]
    num_ended = sum(trial.has_ended for trial in store.in_order)
    if num_ended >= config.num_trials:
        watch.progress.say(f"sweep: already complete, {num_ended} trials in {config.out}")
        return
    from workflows.sweep.session import run_session, set_up_tune  # imports Ray Tune

    set_up_tune()
    ensure_ray()
    concurrent = config.concurrent or _most_at_once(training.resources(first))
    watch.progress.start("sweep", total=config.num_trials, done=num_ended, unit="trial")
    try:
        run_session(config, training, store, point_source(config, known), watch, concurrent=concurrent)
    finally:
        watch.progress.finish()
    left = [trial.number for trial in store.in_order if not trial.has_ended]
    if left:
        raise JobError(f"trial {left[0]} has not ended ({len(left)} in all). Run the same command again to continue.")


def _most_at_once(resources: tuple[float, float]) -> int:
    """Trials that the cluster's CPUs and GPUs hold. ConfigError when not even one fits."""
    import ray

    found = ray.cluster_resources()
    counts = [found.get(name, 0.0) // need for name, need in zip(("CPU", "GPU"), resources, strict=True) if need]
    most = int(min(counts, default=1.0))
    if most < 1:
        raise ConfigError(
            f"one trial needs {resources[0]:g} CPUs and {resources[1]:g} GPUs, and the cluster has "
            f"{found.get('CPU', 0):g} and {found.get('GPU', 0):g}. Lower workers, cpus_per_worker or gpus_per_worker "
            "in the sweep's settings, or set RAY_ADDRESS to a larger cluster."
        )
    return most


def _summary(config: SweepConfig, store: TrialStore, results: SweepResults, *, num_started: int) -> Summary:
    """What came out; JobError when no trial came to a value."""
    trials, best = store.in_order, results.best
    counts = {word: sum(trial.status == word for trial in trials) for word in ("finished", "stopped", "failed")}
    value = best.value(config.metric) if best else None
    if best is None or value is None:
        first = next((trial.error for trial in trials if trial.error), "nothing it told")
        raise JobError(
            f"none of the {len(trials)} trials came to a {config.metric}; the first failed of: {first}. All are in "
            f"{results.table}. Mend the cause and run the same command with --retry-failed."
        )
    early = f", {counts['stopped']} stopped early" if counts["stopped"] else ""
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    headline = (
        f"Best of {len(trials)} trials{early}{failed}: {config.metric} {value:.4g} with {describe_point(best.point)}; "
        f"its settings are {results.best_config}, the page is {results.page}"
    )
    figures = {**counts, "trials": len(trials), "trials_started_now": num_started, "best": value}
    return Summary(headline, results.folder, figures, details=print_table(config, trials))
