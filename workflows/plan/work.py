"""How long measured work takes on a machine: a small model of a Ray Data pipeline.

A step starts (Ray plans it, workers come up and load their models), then its stages run side by side. Its pace is set
by whichever is scarcest: the cores, the GPUs, or the workers of one stage, whose shards cannot be divided.

What Ray itself takes matters for small archives only. It is counted in starts: the time that a fresh Python takes here
and now to import Ray Data, which a plan measures. So a slow or a busy machine is told from a fast and idle one.
"""

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from workflows.index.workers import num_cores
from workflows.plan.shapes import Shape

RAY_STARTS = 6.3  # of a command that starts and ends a local Ray, its own imports included
STEP_STARTS = 0.5  # of planning, starting and ending one pipeline
SHARD_STARTS = 0.05  # of core time for a shard's way through one stage
WORKER_STARTS = 0.9  # of core time until a long-lived worker runs, before it loads anything; tasks find one running


@cache
def start_s() -> float:
    """Seconds of a fresh Python that imports Ray Data, one on every core at once; measured once a process."""
    began = time.monotonic()
    command = [sys.executable, "-c", "import ray.data"]
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(num_cores())
    ]
    for process in started:
        process.wait()
    return time.monotonic() - began


@dataclass(frozen=True)
class StageWork:
    """What a stage has to do, measured on a sample."""

    name: str
    worker_s: float
    """Seconds of one worker for everything."""
    cpus: float = 1.0
    """Cores that a worker keeps busy."""
    gpus: float = 0.0
    workers: tuple[int, int] | None = None
    """(fewest, most) long-lived workers; None for short tasks, as many as there are cores."""
    load_s: float = 0.0
    """Seconds until a new worker has loaded what it needs."""

    def times(self, factor: float) -> "StageWork":
        """The same stage with so many times the work."""
        return replace(self, worker_s=self.worker_s * factor)


@dataclass(frozen=True)
class StepWork:
    """What a step has to do."""

    name: str
    shards: int
    stages: tuple[StageWork, ...]
    on_ray: bool = True
    """Whether its stages run in workers of a Ray pipeline, and not in the command's own process."""


def seconds_on(steps: Sequence[StepWork], shape: Shape) -> float | None:
    """Seconds that the steps take one after another; None where a stage needs GPUs that the shape does not have."""
    at_work = [step for step in steps if step.shards]
    if not at_work:
        return 0.0
    if not shape.gpus and any(stage.gpus for step in at_work for stage in step.stages):
        return None
    ray_s = RAY_STARTS * start_s() if any(step.on_ray for step in at_work) else 0.0
    return ray_s + sum(_step_seconds(step, shape) for step in at_work)


def workers_on(stage: StageWork, shards: int, shape: Shape) -> int:
    """How many workers of a stage the shape has room for."""
    room = shape.cpus / stage.cpus if stage.cpus else math.inf
    if stage.gpus:
        room = min(room, shape.gpus / stage.gpus)
    most = stage.workers[1] if stage.workers else shards
    fewest = stage.workers[0] if stage.workers else 1
    return max(1, min(shards, max(fewest, min(most, int(room)))))


def _step_seconds(step: StepWork, shape: Shape) -> float:
    cpu_s = sum(stage.worker_s * min(stage.cpus, shape.cpus) for stage in step.stages) / shape.core_speed
    if step.on_ray:
        cpu_s += SHARD_STARTS * start_s() * step.shards * len(step.stages)
    gpu_s = sum(stage.worker_s * stage.gpus for stage in step.stages)
    longest_s = 0.0
    for stage in step.stages:
        rounds = math.ceil(step.shards / workers_on(stage, step.shards, shape))
        longest_s = max(longest_s, stage.worker_s / step.shards * rounds / (1.0 if stage.gpus else shape.core_speed))
    bound_s = max(cpu_s / shape.cpus, gpu_s / shape.gpus if shape.gpus else 0.0, longest_s)
    begin_s = STEP_STARTS * start_s() if step.on_ray else 0.0
    return begin_s + _load_seconds(step, shape) + bound_s


def _load_seconds(step: StepWork, shape: Shape) -> float:
    """Until every worker of the step has loaded what it needs: all of them load at once, on all cores."""
    core_s = longest_s = 0.0
    for stage in step.stages:
        workers = workers_on(stage, step.shards, shape)
        spawn_s = WORKER_STARTS * start_s() if step.on_ray and stage.workers else 0.0
        core_s += workers * (spawn_s + stage.load_s)
        longest_s = max(longest_s, spawn_s + stage.load_s)
    return max(core_s / shape.cpus, longest_s) / shape.core_speed
