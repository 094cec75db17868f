"""The Ray that a step runs on: the cluster of RAY_ADDRESS, or a quiet local one sized for this machine.

Environment: `RAY_ADDRESS` names a running cluster; `PSREID_DEBUG` shows the logs of Ray and its workers;
`PSREID_RAY_DASHBOARD` starts the dashboard with a local Ray.
"""

import importlib
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import psutil

from modeling.errors import ConfigError, JobError
from workflows.stages import StageSpec

OBJECT_STORE_SHARE = 0.15  # of the machine's memory
OBJECT_STORE_MOST_BYTES = 8 << 30
OBJECT_STORE_LEAST_BYTES = 256 << 20
SMALLEST_CPUS = 0.01
MOST_WARMED = 15  # processes of some 300 MB

logger = logging.getLogger(__name__)

process_is_command = False
"""Whether this process runs one command and then ends."""


def ensure_ray(num_cpus: int | None = None) -> None:
    """Connects to the cluster of RAY_ADDRESS, or starts a local Ray that is quiet and leaves most memory to others.

    Does nothing if Ray runs in this process already. `num_cpus` limits a local Ray; None takes every core.
    """
    debug = bool(os.environ.get("PSREID_DEBUG"))
    _set_environment(quiet=not debug)
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    shared = {"logging_level": logging.INFO if debug else logging.ERROR, "log_to_driver": debug}
    try:
        with _stderr_closed() if not debug else nullcontext():
            if address:
                ray.init(address=address, runtime_env=_runtime_env(), **shared)
                return
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=_object_store_bytes(),
                include_dashboard=bool(os.environ.get("PSREID_RAY_DASHBOARD")),
                **shared,
            )
    except Exception as error:
        where = f"no cluster answers at RAY_ADDRESS={address}" if address else "a local Ray did not start"
        raise JobError(f"{where}: {type(error).__name__}: {error}. `psreid doctor` looks for the cause.") from error


def stop_ray() -> None:
    """Stops the local Ray of a command that goes on without it, in a thread, which takes two seconds otherwise.

    Does nothing on a cluster, and where this process is not a command's own (`process_is_command`).
    """
    if process_is_command and not os.environ.get("RAY_ADDRESS") and (ray := sys.modules.get("ray")):
        threading.Thread(target=ray.shutdown, name="stop-ray").start()


def warm_workers(modules: Sequence[str]) -> None:
    """Lets idle processes of a local Ray import what the tasks of later steps need, while this step runs.

    Every core does, at once, because the step's own tasks wait for Ray Data to start its helpers first. On a cluster,
    where workers are others' too, nothing happens. Ray gives a process that has run a task to the next task, which then
    starts at once; an actor always gets a new one.
    """
    if os.environ.get("RAY_ADDRESS") or not modules:
        return
    import ray

    task = ray.remote(num_cpus=1, max_retries=0)(_import_modules)
    for _ in range(min(MOST_WARMED, int(ray.cluster_resources().get("CPU", 1)))):
        task.remote(("ray.data", *modules))


def _import_modules(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)


def fit_to_cluster(
    stages: Sequence[StageSpec], resources: Mapping[str, float], *, can_grow: bool = False
) -> list[StageSpec]:
    """The stages with logical CPUs shrunk in proportion, where all of them at once would not fit the cluster.

    Every stage of a pipeline must hold a worker at the same time, or the pipeline stands still. Shrinking changes what
    Ray reserves, not the threads of a worker. `resources` is what Ray reports; a cluster that `can_grow` may report
    less than it will have, so there its pools keep their maximum, and none is not refused.
    """
    cluster_cpus, cluster_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = sum(spec.resources.gpus * _fewest(spec) for spec in stages)
    if gpus > cluster_gpus and not can_grow:
        names = ", ".join(spec.name for spec in stages if spec.resources.gpus)
        raise ConfigError(
            f"{names}: {gpus:g} GPU(s) are needed at once, and Ray sees {cluster_gpus:g} on this machine. "
            "Use --set device=cpu, or set RAY_ADDRESS to a cluster that has them."
        )
    cpus = sum(spec.resources.cpus * _fewest(spec) for spec in _held_at_once(stages))
    if cpus <= cluster_cpus or (can_grow and not cluster_cpus):
        return list(stages)
    scale = cluster_cpus / cpus
    logger.info("%.2f CPUs are wanted at once, Ray has %g: reserving %.0f %% of each", cpus, cluster_cpus, 100 * scale)
    return [_shrunk(spec, scale, can_grow=can_grow) for spec in stages]


def _runtime_env() -> dict[str, dict[str, str]] | None:
    """What workers of a cluster need of this process's environment: where registered models come from. No secrets."""
    found = {name: os.environ[name] for name in ("MLFLOW_TRACKING_URI",) if os.environ.get(name)}
    return {"env_vars": found} if found else None


def _shrunk(spec: StageSpec, scale: float, *, can_grow: bool) -> StageSpec:
    cpus = max(SMALLEST_CPUS, math.floor(spec.resources.cpus * scale * 100) / 100)
    pool = (spec.pool[0], spec.pool[1] if can_grow else spec.pool[0]) if spec.pool else None
    return replace(spec, resources=replace(spec.resources, cpus=cpus), pool=pool)


def _held_at_once(stages: Sequence[StageSpec]) -> Iterator[StageSpec]:
    """The stages less those that Ray fuses with the one before: short tasks that ask for the same."""
    for before, spec in zip((None, *stages), stages, strict=False):
        if before is None or before.pool or spec.pool or before.resources != spec.resources:
            yield spec


def _fewest(spec: StageSpec) -> int:
    return spec.pool[0] if spec.pool else 1


def _set_environment(*, quiet: bool) -> None:
    """Settings that Ray reads from the environment when it is imported; a person's own values win."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's own 15 starves a step wherever anything else runs
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray Data lets a fast stage run ahead until half its memory budget is used. This bounds it from the first
        # shard on, so that memory does not grow with the archive.
        "RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD": "0",
    }
    if quiet:
        # Ray reports each worker that died, and that trials start many, on our stdout; attempts and quarantine are the
        # report here.
        settings["RAY_DEDUP_LOGS_SKIP_REGEX"] = (
            "infinite retries remaining|A worker died or was killed|worker processes have been started"
        )
        settings["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Hides what Ray's C++ core writes while it starts; its failures come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _object_store_bytes() -> int:
    """Bytes of shared memory for a local Ray: a share of the machine's memory, and no more than /dev/shm has."""
    share = int(psutil.virtual_memory().total * OBJECT_STORE_SHARE)
    shared_memory = Path("/dev/shm")
    if shared_memory.is_dir():
        share = min(share, int(psutil.disk_usage(str(shared_memory)).free * 0.9))
    return max(OBJECT_STORE_LEAST_BYTES, min(share, OBJECT_STORE_MOST_BYTES))
