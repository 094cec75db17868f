"""How a plan says its numbers."""

from collections.abc import Sequence

from workflows.plan.shapes import Shape
from workflows.plan.work import StepWork, workers_on

UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")


def describe_bytes(count: float) -> str:
    """A number of bytes for people, "about 1.2 GB"."""
    power = 0
    while count >= 1000 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"about {count:.3g} {UNITS[power]}"


def describe_workers(steps: Sequence[StepWork], shape: Shape) -> str:
    """How many workers each stage would have: "JudgePairs 2, SegmentPairs 1"."""
    counts = [
        f"{stage.name} {workers_on(stage, step.shards, shape)}"
        for step in steps
        if step.shards
        for stage in step.stages
    ]
    return ", ".join(counts) or "none"
