"""How many workers a stage with a model gets."""

import os
from typing import Protocol

Pool = tuple[int, int]
"""(fewest, most) workers."""
MOST_WORKERS = 256


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool_size(asked: int | None, *, num_shards: int, cpus: float = 1.0, gpus: float = 0.0) -> Pool:
    """(fewest, most) workers: as asked; else at least one for each core here, and more where a cluster has room.

    On GPUs it starts with one, because how many there are only the cluster knows. Never more than there are shards.
    """
    shards = max(1, num_shards)
    if asked is not None:
        return min(asked, shards), min(asked, shards)
    fewest = 1 if gpus else min(shards, max(1, int(num_cores() // cpus)))
    return fewest, max(fewest, min(shards, MOST_WORKERS))


class JudgingWorkers(Protocol):
    """Settings of those who judge and draw masks."""

    judge_actors: int | None
    segment_actors: int | None
    cpus_per_actor: float
    gpus_per_actor: float


def on_own_cores(settings: JudgingWorkers) -> bool:
    """Whether work is done on this machine's cores, in processes that serve one step after the other.

    Workers of a pool start anew in every step and import all they need, some five seconds of a core each, which is most
    of a short search. On a cluster, on GPUs, and where numbers of workers are asked for, there are pools.
    """
    asks = settings.judge_actors or settings.segment_actors or settings.gpus_per_actor
    return not asks and not os.environ.get("RAY_ADDRESS")


def judging_pools(settings: JudgingWorkers, *, num_shards: int) -> tuple[Pool | None, Pool | None]:
    """Pools of judges and of segmenters; None where the cores do both in turn."""
    if on_own_cores(settings):
        return None, None
    cpus, gpus = settings.cpus_per_actor, settings.gpus_per_actor
    judges = pool_size(settings.judge_actors, num_shards=num_shards, cpus=cpus, gpus=gpus)
    segmenters = pool_size(settings.segment_actors, num_shards=num_shards, cpus=cpus, gpus=gpus)
    if settings.segment_actors is None:
        segmenters = (max(1, judges[0] // 2), segmenters[1])  # most pairs are rejects
    return judges, segmenters
