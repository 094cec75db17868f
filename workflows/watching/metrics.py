"""A step's figures as Ray metrics, which every node of a Ray cluster exports in Prometheus form.

Ray puts `ray_` before each name. The dashboard `cluster/grafana/psreid.json` names these metrics and no other.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workflows.watching.figures import Committed, StepFigures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """A metric's name and meaning."""

    name: str
    kind: Literal["gauge", "counter"]
    description: str
    tags: tuple[str, ...] = ()
    """Besides `step` and `output`, which all have."""


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psreid_shards", "gauge", "Shards of the step."),
        Metric("psreid_shards_done", "gauge", "Shards of the step that are committed."),
        Metric("psreid_rows", "counter", "Rows read by the first stage: frames, persons, pairs.", ("unit",)),
        Metric("psreid_rows_per_second", "gauge", "Rows read per second, lately.", ("unit",)),
        Metric("psreid_quarantined_rows", "counter", "Rows set aside.", ("reason",)),
        Metric("psreid_stage_rows", "counter", "Rows that came out of a stage.", ("stage",)),
        Metric("psreid_stage_seconds", "counter", "Seconds that workers spent in a stage.", ("stage",)),
        Metric("psreid_stage_queue", "gauge", "Shards waiting before a stage, on average lately.", ("stage",)),
        Metric("psreid_stage_workers_busy", "gauge", "Workers of a stage at work, on average lately.", ("stage",)),
        Metric("psreid_cpu_share", "gauge", "Part of the cluster's CPUs that the stages have in use, 0 to 1."),
        Metric("psreid_gpu_share", "gauge", "Part of the cluster's GPUs that the stages have in use, 0 to 1."),
        Metric("psreid_cost", "gauge", "Cost of the step so far, by the price of the cluster shape.", ("currency",)),
        Metric("psreid_remaining_seconds", "gauge", "Time that the step should still take."),
    )
}


class RayMetrics:
    """Publishes one step's figures; Ray must be running. Trouble with metrics is logged and never stops a step."""

    def __init__(self, step: str, output: str) -> None:
        from ray.util import metrics

        kinds = {"gauge": metrics.Gauge, "counter": metrics.Counter}
        self._tags = {"step": step, "output": output}
        self._metrics: dict[str, Any] = {
            name: kinds[metric.kind](name, description=metric.description, tag_keys=("step", "output", *metric.tags))
            for name, metric in METRICS.items()
        }

    def add(self, shard: Committed, unit: str) -> None:
        """Counts a committed shard."""
        self._count("psreid_rows", shard.rows_read, {"unit": unit})
        for reason, rows in shard.quarantine_reasons.items():
            self._count("psreid_quarantined_rows", rows, {"reason": reason})
        for stage, rows, seconds, _ in shard.trail:
            self._count("psreid_stage_rows", rows, {"stage": stage})
            self._count("psreid_stage_seconds", seconds, {"stage": stage})

    def publish(self, figures: StepFigures) -> None:
        """Sets the gauges."""
        self._set("psreid_shards", figures.shards_total)
        self._set("psreid_shards_done", figures.shards_done)
        self._set("psreid_rows_per_second", figures.per_s, {"unit": figures.unit})
        for stage, numbers in figures.stages.items():
            self._set("psreid_stage_queue", numbers.queue, {"stage": stage})
            self._set("psreid_stage_workers_busy", numbers.busy_workers, {"stage": stage})
        self._set("psreid_cpu_share", figures.cpu_share)
        self._set("psreid_gpu_share", figures.gpu_share)
        self._set("psreid_cost", figures.cost, {"currency": figures.currency})
        self._set("psreid_remaining_seconds", figures.remaining_s)

    def _set(self, name: str, value: float | None, tags: Mapping[str, str] | None = None) -> None:
        if value is not None:
            self._metrics[name].set(value, {**self._tags, **(tags or {})})

    def _count(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        if value > 0:
            self._metrics[name].inc(value, {**self._tags, **tags})
