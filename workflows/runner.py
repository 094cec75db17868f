"""Runs a step on Ray Data: shards stream through stages, the last one commits, the driver sees only counts.

One shard is one Ray Data row in a block of its own from the plan to the commit, so Ray Data can neither split, merge
nor reorder it, and a task that is retried repeats one shard. How far stages run ahead of each other is bounded by what
the next stage has in work, not by the size of the archive. Resume and quarantine are the ledger's business.
"""

import json
import logging
import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from modeling import errors
from modeling.errors import JobError
from workflows.attempts import clear_attempts
from workflows.ledger import Ledger, Manifest, Shard, StepIdentity
from workflows.lock import hold_lock
from workflows.progress import Plan, Progress, Summary
from workflows.ray_cluster import ensure_ray, fit_to_cluster, warm_workers
from workflows.stages import StageSpec, check_columns
from workflows.storage import Folder
from workflows.watching.watch import StepWatch
from workflows.worker import Notes, StageCall, StageWorker, encode_row, run_stage_task

__all__ = ["Plan", "QuarantineLimit", "Summary", "check_quarantine", "ensure_ray", "fit_to_cluster", "run_step"]

TASKS_IN_FLIGHT_PER_ACTOR = 2  # one in work, one ready
ACTOR_START_DEATHS_ALLOWED = 3  # in a row; a stage that cannot start says so by itself, so these are chance
# Of one Ray Data execution, which costs the driver 5 KB and 2 ms a shard before it starts, and a start of the workers.
SHARDS_PER_WAVE = 10_000
NO_PROGRESS_S = 4 * 3600.0  # after which Ray gives the run up; one slow shard of a large model must not look stuck
UNFUSED_CPUS = 0.0001  # Ray counts CPUs in steps of this
POLL_S = 0.02  # how often Ray Data looks for tasks that are through, on a machine alone

logger = logging.getLogger(__name__)


def run_step(
    *,
    folder: Folder,
    identity: StepIdentity,
    shards: Sequence[Shard],
    stages: Sequence[StageSpec],
    max_quarantine_share: float,
    progress: Progress,
    row_group_rows: int | None = None,
    next_imports: Sequence[str] = (),
) -> Manifest:
    """Runs the shards that are not done yet and returns the totals of all.

    A finished step returns at once, without starting Ray. Killed at any moment, the same call continues. With more
    shards than the last time it adds those, and the manifest of before stands until they are done. Raises JobError when
    more than `max_quarantine_share` (a fraction of the rows read) was set aside. `next_imports` are modules of the
    steps to come, which idle workers import meanwhile.
    """
    check_columns(stages)
    ledger = Ledger.open(folder, identity)
    manifest = ledger.manifest
    if manifest is not None and not ledger.remaining(shards) and _covers(manifest, shards):
        progress.say(f"{identity.step}: already complete, {manifest.rows} rows in {folder.uri}")
        return manifest
    with hold_lock(folder):
        clear_attempts(folder)  # of drivers that were killed, also after their last shard
        base = ledger.manifest
        remaining = ledger.remaining(shards)
        if base is not None and not _can_build_on(base, shards, remaining):
            base = None
        if base is not None:
            progress.say(f"{identity.step}: {base.shards} shards are there, {len(shards) - base.shards} are new")
        if remaining:
            progress.start(identity.step, total=len(shards), done=len(shards) - len(remaining))
            try:
                ensure_ray()
                warm_workers(next_imports)
                _run_shards(ledger, shards, remaining, stages, max_quarantine_share, progress, row_group_rows)
            finally:
                progress.finish()
        totals = ledger.totals(shards, base=base)
        check_quarantine(totals, folder, max_quarantine_share)
        ledger.write_manifest(totals)
        return totals


def _covers(manifest: Manifest, shards: Sequence[Shard]) -> bool:
    """Whether the totals are of all these shards; a driver with a newer plan may have added more."""
    return manifest.shards >= len(shards) and manifest.shard_ids >= {shard.shard_id for shard in shards}


def _can_build_on(manifest: Manifest, shards: Sequence[Shard], remaining: Sequence[Shard]) -> bool:
    """Whether the totals are of shards that are all in the plan and all still done."""
    ids = manifest.shard_ids
    is_complete = len(ids) == manifest.shards  # no, where an older psreid wrote it
    return is_complete and ids <= {shard.shard_id for shard in shards} - {shard.shard_id for shard in remaining}


def check_quarantine(totals: Manifest, folder: Folder, max_share: float) -> None:
    """JobError if more than `max_share` of the rows read was set aside."""
    if totals.quarantined <= max_share * max(totals.rows_read, 1):
        return
    reasons = ", ".join(f"{reason} ({count})" for reason, count in list(totals.quarantine_reasons.items())[:5])
    raise JobError(
        f"{totals.quarantined} of {totals.rows_read} rows were quarantined, more than max_quarantine_share "
        f"{max_share:g} allows. Reasons: {reasons}. The rows and what happened to each are in "
        f"{folder.path('quarantine')}/. Mend the input and use another output folder, or accept the loss with "
        "--set max_quarantine_share=... and run the same command again: what is done is kept."
    )


class QuarantineLimit:
    """Tells as early as possible that the quarantined share cannot come out within the limit."""

    def __init__(self, shards: Sequence[Shard], max_share: float) -> None:
        rows = [shard.rows_expected for shard in shards]
        self._rows_expected = None if None in rows else sum(row for row in rows if row is not None)
        self._max_share, self._quarantined = max_share, 0

    def add(self, quarantined: int) -> bool:
        """Counts rows; True once the limit is lost, even if every row to come were good."""
        self._quarantined += quarantined
        return self._rows_expected is not None and self._quarantined > self._max_share * self._rows_expected


def _run_shards(
    ledger: Ledger,
    shards: Sequence[Shard],
    remaining: Sequence[Shard],
    stages: Sequence[StageSpec],
    max_share: float,
    progress: Progress,
    row_group_rows: int | None,
) -> None:
    """Streams the remaining shards through Ray Data until all are committed, or raises what stopped them."""
    limit = QuarantineLimit(shards, max_share)
    waiting = {shard.shard_id for shard in remaining}
    done = [shard.shard_id for shard in shards if shard.shard_id not in waiting]
    limit.add(ledger.count_quarantined(done))
    watch = StepWatch(ledger.folder, ledger.identity.step, shards, remaining, stages, progress)
    try:
        with watch, closing(_stream(ledger.folder, remaining, stages, row_group_rows)) as stream:
            for committed in stream:
                if committed["failure"]:
                    _raise_failure(json.loads(committed["failure"]))
                progress.advance(rows=committed["rows"])
                watch.add({**committed, **json.loads(committed["watched"])})
                waiting.discard(committed["shard_id"])
                if limit.add(committed["quarantined"]):
                    so_far = [shard for shard in shards if shard.shard_id not in waiting]
                    check_quarantine(ledger.totals(so_far), ledger.folder, max_share)
    finally:
        clear_attempts(ledger.folder)
    if waiting:
        raise JobError(
            f"{len(waiting)} of {len(shards)} shards of {ledger.folder.uri} were not done (first: {min(waiting)}). "
            "Run the same command again to continue."
        )


def _stream(
    folder: Folder, shards: Sequence[Shard], stages: Sequence[StageSpec], row_group_rows: int | None
) -> Generator[dict[str, Any], None, None]:
    """One small row of counts for each shard as it is committed."""
    ensure_ray()
    import ray
    from ray.data.exceptions import ExecutionTimeoutError, SystemException
    from ray.exceptions import RayError

    _set_up_ray_data()
    run_id = uuid.uuid4().hex[:12]
    fitted = fit_to_cluster(stages, ray.cluster_resources(), can_grow="RAY_ADDRESS" in os.environ)
    calls = [
        StageCall(
            spec.name,
            position,
            cpus=stages[position].resources.cpus,
            spec_pickle=pickle_spec(spec),
            folder=folder,
            run_id=run_id,
            commits=position == len(stages) - 1,
            row_group_rows=row_group_rows,
        )
        for position, spec in enumerate(fitted)
    ]
    try:
        for start in range(0, len(shards), SHARDS_PER_WAVE):
            yield from _stream_wave(shards[start : start + SHARDS_PER_WAVE], fitted, calls)
    except (RayError, SystemException, ExecutionTimeoutError) as error:
        raise JobError(
            f"Ray stopped the step: {_first_line(error)}. Run the same command again to continue."
        ) from error


def _stream_wave(
    shards: Sequence[Shard], stages: Sequence[StageSpec], calls: Sequence[StageCall]
) -> Generator[dict[str, Any], None, None]:
    """One Ray Data execution over some shards, a block for each."""
    import ray.data

    # Plain rows, because from_arrow would start a task for each block.
    rows = [encode_row(shard, pa.table({}), Notes()).to_pylist()[0] for shard in shards]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    for spec, call in zip(stages, calls, strict=True):
        dataset = dataset.map_batches(**_stage_arguments(spec, call, num_shards=len(shards)))
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _stage_arguments(spec: StageSpec, call: StageCall, *, num_shards: int) -> dict[str, Any]:
    """How Ray Data runs one stage."""
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    arguments: dict[str, Any] = {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "num_cpus": spec.resources.cpus,
    }
    if spec.resources.gpus:
        arguments["num_gpus"] = spec.resources.gpus
    if spec.resources.memory_bytes:
        arguments["memory"] = spec.resources.memory_bytes
    if spec.pool is None:
        # Ray fuses a task into the next operator when both ask for the same resources, which would bind it to the
        # few workers of a pool. Asking for slightly less prevents that (slightly more would idle the last core).
        arguments["num_cpus"] -= UNFUSED_CPUS
        return arguments | {"fn": run_stage_task, "fn_kwargs": {"call": call}, "compute": TaskPoolStrategy()}
    fewest, most = (min(size, num_shards) for size in spec.pool)
    strategy = ActorPoolStrategy(
        min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=TASKS_IN_FLIGHT_PER_ACTOR
    )
    return arguments | {"fn": StageWorker, "fn_constructor_args": (call,), "compute": strategy}


def pickle_spec(spec: StageSpec) -> bytes:
    """The spec as bytes; cloudpickle, because a factory may be a function made on the fly."""
    from ray import cloudpickle

    return bytes(cloudpickle.dumps(spec))


def quieten_ray_data() -> None:
    """Silences Ray Data's own progress: ours counts what is committed."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not os.environ.get("PSREID_DEBUG"):
        logging.getLogger("ray.data").setLevel(logging.ERROR)


def _set_up_ray_data() -> None:
    """Sets what Ray Data tolerates and how soon it looks, and silences it."""
    from ray.data import DataContext
    from ray.data._internal.execution import streaming_executor_state

    quieten_ray_data()
    context = DataContext.get_current()
    context.max_consecutive_actor_init_deaths = ACTOR_START_DEATHS_ALLOWED
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.execution_options.preserve_order = False
    if not os.environ.get("RAY_ADDRESS"):
        # Ray Data gives cores new tasks when it sees that others are through, every 0.1 s: a fifth of a short step.
        streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = POLL_S


def _raise_failure(failure: Sequence[str]) -> None:
    """Raises in the driver what stopped a worker, in its own class and words."""
    kind, message, trace = failure
    logger.debug("in the worker:\n%s", trace)
    error_class = getattr(errors, kind, JobError)
    raise error_class(message)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
