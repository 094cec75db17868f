"""`psreid train psreid`: PS-ReID's two stages on Ray Train with DeepSpeed (§V-A.4).

Each stage is one run of a Ray Train TorchTrainer, for its set of trained parameters is its own. Batches are shared by
targets (`modeling/ps_reid/shares.py`), so the loss curve does not depend on the number of workers or the ZeRO stage:
both may even change between a run and its continuation.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from modeling.errors import ConfigError, JobError
from modeling.ps_reid.folder import SHIPPED_FOLDER, model_identity
from workflows.index.inputs import open_step
from workflows.ledger import Ledger, StepIdentity
from workflows.lock import hold_lock
from workflows.progress import Plan, Progress, Summary
from workflows.ray_cluster import ensure_ray
from workflows.schema import SCHEMA_VERSION
from workflows.storage import Folder
from workflows.tracking.registry import local_model
from workflows.train.config import PsReidTrainConfig
from workflows.train.listener import RunFinish, RunStart, TrainingListener

CODE_VERSION = "1"  # raised when the same settings would give another curve
RUNTIME_KEYS = frozenset({
    "what", "out", "workers", "gpus_per_worker", "cpus_per_worker", "zero_stage", "recompute_activations",
    "checkpoint_every", "report_every", "max_failures", "evaluate_every", "tracking_uri", "experiment", "register_as",
})  # fmt: skip
"""Settings that do not change what is learned."""
COLLECTIVE_TIMEOUT_S = 7200  # one worker exports and evaluates while the others wait
HEALTH_CHECK_S = "0.5"
GPU_COUNTS = (1, 2, 4, 8)  # of a printed memory plan
RECORD_FILE, MODEL_FOLDER, FIGURES_FILE = "run.json", "model", "figures.jsonl"


def run_psreid(
    config: PsReidTrainConfig,
    progress: Progress,
    *,
    listeners: Sequence[TrainingListener] = (),
    callbacks: Sequence[Any] = (),
) -> Summary:
    """Trains, or continues, and leaves the model at OUT/model.

    `listeners` hear of every step in this process. `callbacks` are Ray Train's (`ray.train.UserCallback`): they run in
    Ray Train's controller and get what workers report every `report_every` steps and after each evaluation; inside a
    Ray Tune trial give `[TuneReportCallback()]`. A finished run is not run again: listeners hear of its end alone.

    Raises ConfigError when OUT holds a run with other settings, DataError when there is too little to train on.
    """
    from workflows.train.mailbox import Audience

    started, out = time.monotonic(), Folder(config.out)
    config = config.model_copy(update={"out": out.uri})
    identity = run_identity(config)
    audience = Audience(listeners)
    with hold_lock(out):
        Ledger.open(out, identity)
        if not out.exists(RECORD_FILE):
            try:
                _train(config, run_name(identity), progress, audience, callbacks)
            except BaseException as error:
                message = str(error)
                audience.tell(lambda listener: listener.on_failure(message))
                raise
    record = out.read_json(RECORD_FILE)
    finish = RunFinish(
        model=out.path(MODEL_FOLDER),
        figures_file=out.path(FIGURES_FILE),
        sample_files=[out.path(name) for name in record["samples"]],
        metrics=record["metrics"],
    )
    audience.tell(lambda listener: listener.on_finish(finish))
    return _summary(config, record, time.monotonic() - started)


def plan_psreid(config: PsReidTrainConfig) -> Plan:
    """Frames and steps, and the memory that each ZeRO stage takes on 1, 2, 4 and 8 GPUs; the model is not loaded."""
    from modeling.ps_reid.build import named_preset
    from modeling.ps_reid.checkpoint import read_model_config
    from workflows.train.memory import plan_lines

    model = read_model_config(config.start_from) if config.start_from else named_preset(config.preset)
    if config.attention is not None:
        model = model.model_copy(update={"attention": config.attention})
    frames = sum(open_step(uri, command="synth").manifest.rows for uri in config.frames)
    steps = config.stage1.steps + config.stage2.steps
    lines: dict[str, str | int | float] = {"frames": frames, "steps": steps}
    counts = sorted({*GPU_COUNTS, config.workers})
    return Plan(lines | dict(plan_lines(config, model, counts)))


def run_identity(config: PsReidTrainConfig) -> StepIdentity:
    """What makes two runs the same: the settings that decide what is learned, the frames and the start model."""
    inputs = {uri: open_step(uri, command="synth").digest for uri in config.frames}
    start = config.start_from or config.preset
    if config.start_from is not None or (SHIPPED_FOLDER / config.preset).is_dir():
        inputs["start model"] = model_identity(local_model(start))
    return StepIdentity(
        step="train psreid",
        config=config.model_dump(mode="json", exclude=set(RUNTIME_KEYS)),
        inputs=inputs,
        code_version=CODE_VERSION,
        schema_version=SCHEMA_VERSION,
    )


def run_name(identity: StepIdentity) -> str:
    """ "psreid-" and ten digits that change with the identity."""
    text = json.dumps([identity.config, identity.inputs, identity.code_version], sort_keys=True)
    return "psreid-" + hashlib.sha256(text.encode()).hexdigest()[:10]


def _train(config: PsReidTrainConfig, name: str, progress: Progress, audience: Any, callbacks: Sequence[Any]) -> None:
    """The stages that are left, one Ray Train run each."""
    from workflows.train.catalogue import read_frames
    from workflows.train.draws import PairSampler, held_out_identities
    from workflows.train.mailbox import Collector, open_mailbox
    from workflows.train.state import StateStore
    from workflows.train.worker import Task, draw_plan, train_worker

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_S)
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    ensure_ray()
    check_cluster(config.workers, cpus=config.cpus_per_worker, gpus=config.gpus_per_worker)
    store, total = StateStore(Folder(config.out)), config.stage1.steps + config.stage2.steps
    tables = read_frames(config.frames)
    held_out = held_out_identities(tables.catalogue, config.held_out_share, config.seed)
    PairSampler(tables.catalogue, draw_plan(config), held_out)  # raises here, in a process with a person before it
    done = _steps_done(config, store)
    start = RunStart(name, config.model_dump(mode="json"), config.out, done, total)
    progress.start("train", total=total, done=done, unit="step")
    seen = Seen(done, progress)
    mailbox = open_mailbox()
    collector = Collector(mailbox, audience, on_step=seen.at, say=progress.say)
    with collector.running(lambda: audience.tell(lambda listener: listener.on_start(start))):
        for stage in _stages_left(config, store):
            fit(train_worker, Task(config, stage, tables, mailbox), f"{name}-stage{stage}", collector, callbacks)
    progress.finish()


def fit(loop: Any, task: Any, name: str, collector: Any, callbacks: Sequence[Any]) -> None:
    """One Ray Train run of a worker's loop; its own records are of no use afterwards, for the state is ours."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config = task.config
    resources = {"CPU": config.cpus_per_worker} | ({"GPU": 1} if config.gpus_per_worker else {})
    with tempfile.TemporaryDirectory(prefix="psreid-train-") as records:
        trainer = TorchTrainer(
            loop,
            train_loop_config={"task": task},
            torch_config=TorchConfig(
                backend="nccl" if config.gpus_per_worker else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S
            ),
            scaling_config=ScalingConfig(
                num_workers=config.workers, use_gpu=bool(config.gpus_per_worker), resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=name,
                storage_path=records,
                failure_config=FailureConfig(max_failures=config.max_failures),
                callbacks=list(callbacks),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            if (failure := collector.look_for_failure()) is not None:
                raise failure from error
            raise JobError(
                f"training stopped: {_root_cause(error)}. The same command continues from the last checkpoint."
            ) from error
    failure = collector.look_for_failure()
    if failure is not None:
        raise failure


def _root_cause(error: BaseException) -> str:
    """The last line that says something of a failure in a worker."""
    failures = getattr(error, "worker_failures", None)
    inner = next(iter(failures.values())) if failures else error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(inner).__name__


class Seen:
    """Steps counted once, however often they are told."""

    def __init__(self, done: int, progress: Progress) -> None:
        self._done, self._progress = done, progress

    def at(self, step: int) -> None:
        if step > self._done:
            self._progress.advance(step - self._done)
            self._done = step


def _steps_done(config: PsReidTrainConfig, store: Any) -> int:
    saved = [store.newest(stage) for stage in (1, 2)]
    before = config.stage1.steps if saved[1] is not None else 0
    newest = saved[1] or saved[0]
    return before + (newest.step if newest else 0)


def _stages_left(config: PsReidTrainConfig, store: Any) -> list[int]:
    """Stages that have steps to do; the last one also exports, so it is left while the record is missing."""
    wanted = [stage for stage, settings in ((1, config.stage1), (2, config.stage2)) if settings.steps]
    left = []
    for stage in wanted:
        saved, steps = store.newest(stage), (config.stage1 if stage == 1 else config.stage2).steps
        if stage == wanted[-1] or saved is None or saved.step < steps:
            left.append(stage)
    return left


def check_cluster(workers: int, *, cpus: float, gpus: int) -> None:
    """Raises ConfigError when Ray cannot hold this many workers, with so much each, at once."""
    import ray

    have = ray.cluster_resources()
    wanted = {"GPU": float(workers * gpus), "CPU": workers * cpus}
    for kind, amount in wanted.items():
        if amount > have.get(kind, 0.0):
            raise ConfigError(
                f"{workers} workers need {amount:g} {kind}s at once, and Ray sees {have.get(kind, 0.0):g}. "
                "Lower workers or cpus_per_worker, or set RAY_ADDRESS to a cluster that has them."
            )


def _summary(config: PsReidTrainConfig, record: dict[str, Any], seconds: float) -> Summary:
    metrics, last = record["metrics"], record["last_step"]
    steps = config.stage1.steps + config.stage2.steps
    shown = ""
    if metrics:
        shown = (
            f"; on {metrics['eval_queries']:.0f} held-out identities top-1 {metrics['eval_top1']:.3f}, "
            f"mAP {metrics['eval_mAP']:.3f}"
        )
    model = Folder(config.out).path(MODEL_FOLDER)
    headline = (
        f"Trained {steps} steps, the last loss is {last.get('loss', float('nan')):.4f}{shown}; the model is at {model}"
    )
    figures = {"steps": steps, "seconds": round(seconds, 1), "loss": last.get("loss", float("nan")), **metrics}
    return Summary(headline, model, figures)
