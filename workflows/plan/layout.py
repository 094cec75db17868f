"""A plan as people and machines read it: counts, expected time here and on a cluster shape, and what that costs."""

from dataclasses import dataclass
from typing import Any

from workflows.plan.shapes import ClusterConfig, Shape, find_shape, read_shapes
from workflows.plan.work import seconds_on, workers_on
from workflows.progress import Plan
from workflows.watching.figures import duration


@dataclass(frozen=True)
class PlanReport:
    """A plan, and where asked for, the same work on a cluster."""

    plan: Plan
    shape_name: str | None = None
    shape: Shape | None = None
    currency: str = "USD"
    price_per_hour: float | None = None

    @property
    def cluster_s(self) -> float | None:
        """Expected seconds on the shape; None where it cannot be told."""
        return None if self.shape is None or not self.plan.work else seconds_on(self.plan.work, self.shape)

    @property
    def workers(self) -> dict[str, int]:
        """Stage -> workers on the shape."""
        if self.shape is None:
            return {}
        return {
            f"{step.name}.{stage.name}": workers_on(stage, step.shards, self.shape)
            for step in self.plan.work
            if step.shards
            for stage in step.stages
        }

    def lines(self) -> list[str]:
        """What `--dry-run` prints."""
        lines = [f"{name}: {value}" for name, value in self.plan.lines.items()]
        expected = "not measured" if self.plan.expected_s is None else f"about {duration(self.plan.expected_s)}"
        price = self.price_per_hour
        if price is not None and self.plan.expected_s is not None and self.shape is None:
            expected += f", {price * self.plan.expected_s / 3600:.2f} {self.currency}"
        if self.shape is not None:
            lines.append(f"on {self.shape_name}: {self._on_cluster()}")
        return [*lines, f"expected time: {expected}. Nothing was run (--dry-run)."]

    def plain(self) -> dict[str, Any]:
        """What `--dry-run --json` prints."""
        record: dict[str, Any] = {"plan": dict(self.plan.lines), "expected_s": self.plan.expected_s}
        if self.shape is not None:
            record["cluster"] = {
                "shape": self.shape_name,
                "cpus": self.shape.cpus,
                "gpus": self.shape.gpus,
                "price_per_hour": self.price_per_hour,
                "currency": self.currency,
                "expected_s": self.cluster_s,
                "cost": self._cost(),
                "workers": self.workers,
            }
        return record

    def _cost(self) -> float | None:
        if self.cluster_s is None or self.price_per_hour is None:
            return None
        return round(self.cluster_s / 3600 * self.price_per_hour, 4)

    def _on_cluster(self) -> str:
        assert self.shape is not None
        has = f"{self.shape.cpus:g} cores, {self.shape.gpus:g} GPUs"
        if self.cluster_s is None:
            return f"{has}: not measured, or it needs GPUs that the shape does not have"
        workers = ", ".join(f"{name} {count}" for name, count in self.workers.items())
        cost = f", {self._cost():.2f} {self.currency}" if self._cost() is not None else ""
        return f"about {self.cluster_s / 3600:.2f} h{cost} ({has}; workers: {workers})"


def lay_out(plan: Plan, cluster: ClusterConfig) -> PlanReport:
    """The plan on the machines that the settings name."""
    price = cluster.price()
    currency = price.currency if price else "USD"
    per_hour = price.per_hour if price else None
    if cluster.shape is None:
        return PlanReport(plan, currency=currency, price_per_hour=per_hour)
    shape = find_shape(read_shapes(cluster.shapes), cluster.shape)
    return PlanReport(plan, cluster.shape, shape, currency, per_hour)
