"""How many workers a stage with a model gets."""

import os

MOST_WORKERS = 256


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool_size(asked: int | None, *, num_shards: int, cpus: float = 1.0, gpus: float = 0.0) -> tuple[int, int]:
    """(fewest, most) workers: as asked; else at least one for each core here, and more where a cluster has room.

    On GPUs it starts with one, because how many there are only the cluster knows. Never more than there are shards.
    """
    shards = max(1, num_shards)
    if asked is not None:
        return min(asked, shards), min(asked, shards)
    fewest = 1 if gpus else min(shards, max(1, int(num_cores() // cpus)))
    return fewest, max(fewest, min(shards, MOST_WORKERS))
