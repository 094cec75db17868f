"""`psreid train irm` and `psreid train irmpp`: on Ray Train with DeepSpeed, or in this process alone."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.instruct_reid.config import named_preset
from modeling.ps_reid.folder import model_identity
from workflows.index.inputs import open_step
from workflows.ledger import Ledger, StepIdentity, make_shard_id
from workflows.lock import hold_lock
from workflows.progress import Plan, Progress, Summary
from workflows.ray_cluster import ensure_ray
from workflows.schema import SCHEMA_VERSION
from workflows.storage import Folder
from workflows.train.irm_config import IrmTrainConfig
from workflows.train.listener import RunFinish, RunStart, TrainingListener

if TYPE_CHECKING:
    from workflows.train.irm_samples import ReidSamples

CODE_VERSION = "5"  # raised when the same settings would give another curve
RECORD_FILE, MODEL_FOLDER, FIGURES_FILE = "run.json", "model", "figures.jsonl"
RUNTIME_KEYS = frozenset({
    "out", "gpus_per_worker", "cpus_per_worker", "zero_stage", "checkpoint_every", "max_failures", "checkpoint_s",
    "log_every", "threads", "evaluate_every", "report_every",
})  # fmt: skip
"""Settings that do not change what is learned."""
NAMES = {"irm": "IRM", "irmpp": "IRM++"}


def run_irm(
    config: IrmTrainConfig,
    progress: Progress,
    *,
    listeners: Sequence[TrainingListener] = (),
    callbacks: Sequence[Any] = (),
) -> Summary:
    """Trains, or continues, and leaves the model at OUT/model.

    `listeners` hear of every step in this process; `callbacks` are Ray Train's. With `workers` 0 there are neither.
    """
    return _run_here(config, progress) if not config.workers else _run_on_ray(config, progress, listeners, callbacks)


def run_identity(config: IrmTrainConfig) -> StepIdentity:
    """What makes two runs the same: the settings that decide what is learned, the frames and the start model."""
    inputs = {uri: open_step(uri, command="synth").digest for uri in config.frames}
    if config.start_from is not None:
        inputs["start model"] = model_identity(config.start_from)
    if config.instructions_from is not None:
        inputs["instruction encoder"] = model_identity(config.instructions_from)
    settings = config.model_dump(mode="json", exclude=set(RUNTIME_KEYS))
    # Losses within a batch are within a worker's share, so the number of workers is part of what is learned.
    return StepIdentity(f"train {config.what}", settings, inputs, CODE_VERSION, SCHEMA_VERSION)


def _run_on_ray(
    config: IrmTrainConfig, progress: Progress, listeners: Sequence[TrainingListener], callbacks: Sequence[Any]
) -> Summary:
    from workflows.train.finish import join_figures
    from workflows.train.mailbox import Audience

    started, out = time.monotonic(), Folder(config.out)
    config = config.model_copy(update={"out": out.uri})
    heard = LastEvaluation()
    identity, audience = run_identity(config), Audience([heard, *listeners])
    digest = make_shard_id(identity.config, identity.inputs, identity.code_version)[:10]
    with hold_lock(out):
        Ledger.open(out, identity)
        if not out.exists(RECORD_FILE):
            try:
                _fit(config, f"{config.what}-{digest}", progress, audience, callbacks)
            except BaseException as error:
                message = str(error)
                audience.tell(lambda listener: listener.on_failure(message))
                raise
            rows = join_figures(out)
            out.write_json(RECORD_FILE, {"last_step": rows[-1] if rows else {}, "metrics": heard.metrics})
    record, model = out.read_json(RECORD_FILE), out.path(MODEL_FOLDER)
    finish = RunFinish(model, out.path(FIGURES_FILE), [], record["metrics"])
    audience.tell(lambda listener: listener.on_finish(finish))
    loss = record["last_step"].get("loss", float("nan"))
    headline = (
        f"Trained {NAMES[config.what]} for {config.steps} steps, the last loss is {loss:.4f}; the model is at {model}"
    )
    figures = {"steps": config.steps, "seconds": round(time.monotonic() - started, 1), "loss": loss}
    return Summary(headline, model, figures | record["metrics"])


class LastEvaluation(TrainingListener):
    """Remembers the figures of a run's last evaluation."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.metrics = dict(metrics)


def _fit(config: IrmTrainConfig, name: str, progress: Progress, audience: Any, callbacks: Sequence[Any]) -> None:
    """One Ray Train run, from the newest checkpoint on."""
    from workflows.train.irm_worker import STAGE, IrmTask, train_irm_worker
    from workflows.train.mailbox import Collector, open_mailbox
    from workflows.train.psreid import HEALTH_CHECK_S, Seen, check_cluster, fit
    from workflows.train.state import StateStore

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_S)
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    ensure_ray()
    check_cluster(config.workers, cpus=config.cpus_per_worker, gpus=config.gpus_per_worker)
    saved = StateStore(Folder(config.out)).newest(STAGE)
    done = saved.step if saved else 0
    start = RunStart(name, config.model_dump(mode="json"), config.out, done, config.steps)
    progress.start("train", total=config.steps, done=done, unit="step")
    mailbox = open_mailbox()
    collector = Collector(mailbox, audience, on_step=Seen(done, progress).at, say=progress.say)
    with collector.running(lambda: audience.tell(lambda listener: listener.on_start(start))):
        fit(train_irm_worker, IrmTask(config, mailbox), name, collector, callbacks)
    progress.finish()


def _run_here(config: IrmTrainConfig, progress: Progress) -> Summary:
    from workflows.train.irm_heldout import evaluate_held_out, split_held_out
    from workflows.train.irm_run import IrmRun

    started = time.monotonic()
    named_preset(config.preset, "irm" if config.what == "irm" else "irm++")
    digests = tuple(open_step(uri, command="synth").digest for uri in config.frames)
    samples, held_out = split_held_out(
        _loaded(tuple(config.frames), digests, config.gap_s), config.held_out_share, config.seed, config.tasks
    )
    run = IrmRun(config, samples, on_step=progress.advance)
    progress.start("train", total=config.steps, done=run.step, unit="step")
    irm = run.run()
    progress.finish()
    found = evaluate_held_out(irm, held_out, config.tasks, seed=config.seed) if held_out is not None else {}
    model = Path(config.out).expanduser().resolve() / MODEL_FOLDER
    headline = (
        f"Trained {NAMES[config.what]} for {config.steps} steps on {len(samples.crops)} pictures of "
        f"{samples.num_identities} identities, tasks {', '.join(run.tasks)}; the model is at {model}"
    )
    figures = {"steps": config.steps, "seconds": round(time.monotonic() - started, 1)}
    return Summary(headline, str(model), figures | found)


@lru_cache(maxsize=1)
def _loaded(frames: tuple[str, ...], digests: tuple[str, ...], gap_s: float) -> "ReidSamples":
    """The samples of frames with these digests, kept for the next run: a table trains many models on the same ones."""
    from workflows.train.irm_samples import load_reid_samples

    return load_reid_samples(frames, gap_s=gap_s)


def plan_irm(config: IrmTrainConfig) -> Plan:
    """How much there is to train on."""
    rows = sum(part.rows for uri in config.frames for part in Ledger.read(Folder(uri)).parts())
    return Plan({"frames": rows, "steps": config.steps, "tasks": ", ".join(config.tasks)}, None)
