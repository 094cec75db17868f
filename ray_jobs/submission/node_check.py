"""A look at every node of the cluster before a job starts: its packages, and the shared disks it should have.

The check runs on each node as a small task that reserves nothing. A node that is too busy to answer in time is not
held against the job.
"""

import os
from collections.abc import Mapping, Sequence

from ray_jobs.submission.versions import differences

ANSWER_WITHIN_S = 15.0


def check_nodes(wanted: Mapping[str, str], requirements: Sequence[str], paths: Sequence[str]) -> list[str]:
    """What is wrong on any node, one phrase each. Needs a connected Ray."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(look_around)
    answers = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            dict(wanted), list(requirements), list(paths), f"on node {node['NodeManagerAddress']}"
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    ready, late = ray.wait(answers, num_returns=len(answers), timeout=ANSWER_WITHIN_S)
    for answer in late:
        ray.cancel(answer, force=True)
    problems: list[str] = []
    for answer in ready:
        try:
            problems += ray.get(answer)
        except ray.exceptions.RayError:  # the node went away while it was asked
            continue
    return problems


def look_around(wanted: Mapping[str, str], requirements: Sequence[str], paths: Sequence[str], where: str) -> list[str]:
    """The problems of this node."""
    missing = [f"there is no {path} {where}" for path in paths if not os.path.exists(path)]  # noqa: PTH110
    return differences(wanted, requirements, where=where) + missing


def nearest_existing(path: str) -> str:
    """The path itself, or the nearest folder above it that exists: an output need not be there yet."""
    while not os.path.exists(path) and os.path.dirname(path) != path:  # noqa: PTH110, PTH120
        path = os.path.dirname(path)  # noqa: PTH120
    return path
