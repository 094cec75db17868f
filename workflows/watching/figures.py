"""What a running step has come to, counted from the shards it commits. Knows nothing of Ray, storage or clocks.

Every committed shard brings its trail: for each stage the rows that came out, the seconds in it and the seconds that
the shard waited before it. From these follow, without asking any worker, a stage's rate, how many of its workers are
busy (seconds of work per second) and how many shards wait before it (Little's law: seconds waited per second).
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW_S = 120.0  # of the rates
UNITS = {
    "synth": "frames", "ingest": "frames", "index": "persons", "queries": "queries", "recall": "frames",
    "shortlist": "pairs", "judged": "pairs", "search": "matches", "report": "matches",
}  # fmt: skip
"""What a step's rows are, as its first stage reads them."""


@dataclass(frozen=True)
class Capacity:
    """What the step runs on, and what an hour of it costs."""

    cpus: float = 0.0
    gpus: float = 0.0
    price_per_hour: float | None = None
    currency: str = "USD"


@dataclass(frozen=True)
class StageUse:
    """What one worker of a stage occupies."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class StageFigures:
    """One stage, over the shards committed in the window."""

    rows_per_s: float
    busy_workers: float
    queue: float
    """Shards waiting before it, on average."""


@dataclass(frozen=True)
class StepFigures:
    """A step at a moment."""

    step: str
    unit: str
    shards_total: int
    shards_done: int
    rows: int
    """Rows committed by this run."""
    rows_read: int
    """In `unit`; by this run."""
    quarantined: int
    """By this run."""
    quarantine_reasons: Mapping[str, int]
    elapsed_s: float
    """Of this run."""
    per_s: float
    """Rows read per second, over the window."""
    remaining_s: float | None
    """Expected, at the window's pace; None before the first shard."""
    stages: Mapping[str, StageFigures] = field(default_factory=dict)
    cpu_share: float = 0.0
    """Part of the cluster's CPUs that the stages had in use (0 to 1)."""
    gpu_share: float | None = None
    """The same of its GPUs; None where it has none."""
    cost: float | None = None
    """Of all runs of this step so far; None without a price."""
    currency: str = "USD"

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def line(self) -> str:
        """One plain line for a log."""
        parts = [
            f"{self.step}: {self.shards_done:,} of {self.shards_total:,} shards",
            f"{self.rows_read:,} {self.unit} in {duration(self.elapsed_s)}, {self.per_s:.1f} {self.unit}/s",
        ]
        waiting = [f"{name} {stage.queue:.1f}" for name, stage in self.stages.items() if stage.queue >= 0.05]
        parts.append(f"shards waiting: {', '.join(waiting)}" if waiting else "no shard waits")
        parts.append(f"quarantined {self.quarantined:,}{_reasons(self.quarantine_reasons)}")
        gpu = "" if self.gpu_share is None else f", GPU {100 * self.gpu_share:.0f} %"
        parts.append(f"CPU {100 * self.cpu_share:.0f} %{gpu}")
        if self.cost is not None:
            parts.append(f"{self.cost:.2f} {self.currency} so far")
        if self.remaining_s is not None and self.shards_done < self.shards_total:
            parts.append(f"about {duration(self.remaining_s)} left")
        return "; ".join(parts)


@dataclass(frozen=True)
class Committed:
    """A shard that was committed."""

    rows: int
    rows_read: int
    quarantine_reasons: Mapping[str, int]
    trail: Sequence[Sequence[Any]]
    """[stage, rows out, seconds in it, seconds waited before it] of every stage."""


class StepTally:
    """Adds up the committed shards of one run of a step."""

    def __init__(
        self,
        step: str,
        *,
        shards_total: int,
        shards_done: int,
        uses: Mapping[str, StageUse],
        capacity: Capacity,
        now_s: float,
        earlier_s: float = 0.0,
    ) -> None:
        """`now_s` is any clock that only goes forward; `earlier_s` is what earlier runs took, for the cost."""
        self._step, self._total, self._done = step, shards_total, shards_done
        self.unit = UNITS.get(step, "rows")
        self._uses, self._capacity = uses, capacity
        self._started_s, self._earlier_s = now_s, earlier_s
        self._rows = self._rows_read = 0
        self._reasons: Counter[str] = Counter()
        self._window: deque[tuple[float, Committed]] = deque()

    def add(self, shard: Committed, now_s: float) -> None:
        self._done += 1
        self._rows += shard.rows
        self._rows_read += shard.rows_read
        self._reasons.update(shard.quarantine_reasons)
        self._window.append((now_s, shard))

    def figures(self, now_s: float) -> StepFigures:
        """The step at this moment."""
        while self._window and self._window[0][0] < now_s - WINDOW_S:
            self._window.popleft()
        elapsed_s = now_s - self._started_s
        span_s = max(min(elapsed_s, WINDOW_S), 1e-6)
        shards = [shard for _, shard in self._window]
        stages = self._stages(shards, span_s)
        pace = len(shards) / span_s
        price = self._capacity.price_per_hour
        return StepFigures(
            step=self._step,
            unit=self.unit,
            shards_total=self._total,
            shards_done=self._done,
            rows=self._rows,
            rows_read=self._rows_read,
            quarantined=self._reasons.total(),
            quarantine_reasons=dict(self._reasons.most_common()),
            elapsed_s=elapsed_s,
            per_s=sum(shard.rows_read for shard in shards) / span_s,
            remaining_s=(self._total - self._done) / pace if pace else None,
            stages=stages,
            cpu_share=self._share(stages, "cpus", self._capacity.cpus) or 0.0,
            gpu_share=self._share(stages, "gpus", self._capacity.gpus),
            cost=None if price is None else price * (self._earlier_s + elapsed_s) / 3600,
            currency=self._capacity.currency,
        )

    def _stages(self, shards: Sequence[Committed], span_s: float) -> dict[str, StageFigures]:
        sums: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in self._uses}
        for shard in shards:
            for name, rows, seconds, waited_s in shard.trail:
                total = sums.setdefault(name, [0.0, 0.0, 0.0])
                for place, value in enumerate((rows, seconds, waited_s)):
                    total[place] += value
        return {name: StageFigures(*(value / span_s for value in values)) for name, values in sums.items()}

    def _share(self, stages: Mapping[str, StageFigures], resource: str, available: float) -> float | None:
        """How much of a resource the busy workers hold; None where there is none of it."""
        if not available:
            return None
        used = sum(
            stages[name].busy_workers * float(getattr(use, resource))
            for name, use in self._uses.items()
            if name in stages
        )
        return min(1.0, used / available)


def duration(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _reasons(reasons: Mapping[str, int]) -> str:
    named = ", ".join(f"{reason} {count}" for reason, count in list(reasons.items())[:3])
    return f" ({named})" if named else ""
