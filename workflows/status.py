"""How far a step is, read from its folder alone: while it runs, after it was killed, when it is done; local and S3.

The count of shards comes from the ledger and is exact; rates, cost and the expected end are those that the driver wrote
last (`progress.json`). A search is a chain of steps in folders of their own: each is told separately.
"""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from modeling.errors import DataError
from workflows.ledger import Ledger, Manifest
from workflows.lock import LockHolder, lock_holder
from workflows.storage import Folder
from workflows.watching.figures import duration
from workflows.watching.watch import read_progress

STEPS_BELOW = ("tables/frames", "queries", "recall", "shortlist", "judged")
"""Folders below OUT that hold steps of the same command, in the order in which they run; then comes OUT's own step."""
REPORT = "report"
MOST_MARKERS_READ = 5000  # for the rows of a step whose driver left no figures

State = Literal["done", "running", "stopped"]


@dataclass(frozen=True)
class StepStatus:
    """One step."""

    name: str
    uri: str
    state: State
    shards_done: int
    shards_total: int | None
    """None where no driver has said it yet."""
    rows: int | None
    quarantined: int
    quarantine_reasons: Mapping[str, int] = field(default_factory=dict)
    unit: str = "rows"
    per_s: float | None = None
    """Rows read per second, when the driver was heard of last."""
    remaining_s: float | None = None
    expected_end: str | None = None
    """ISO 8601 in UTC; None unless it runs."""
    cost: float | None = None
    currency: str = "USD"
    last_activity: str | None = None
    """When the driver was heard of last, ISO 8601 in UTC."""
    holder: str | None = None
    """The process that holds the lock, in words; None where nobody does."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The step in a few plain lines."""
        total = "an unknown number of" if self.shards_total is None else f"{self.shards_total:,}"
        parts = [f"{self.shards_done:,} of {total} shards"]
        if self.rows is not None:
            parts.append(f"{self.rows:,} rows")
        if self.state == "running" and self.per_s:
            parts.append(f"{self.per_s:.1f} {self.unit}/s")
        if self.expected_end is not None and self.remaining_s is not None:
            parts.append(f"about {duration(self.remaining_s)} left, until {self.expected_end}")
        if self.cost is not None:
            parts.append(f"{self.cost:.2f} {self.currency} so far")
        lines = [f"{self.name:<10} {self.state:<8} {', '.join(parts)}"]
        if self.quarantined:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.quarantine_reasons.items())
            lines.append(f"{'':<19} {self.quarantined:,} set aside: {reasons} ({self.uri}/quarantine)")
        if self.state != "done":
            heard = f"last heard of {self.last_activity}" if self.last_activity else "never heard of"
            lines.append(f"{'':<19} {self.holder or 'no process holds it'}; {heard}")
        return lines


def read_status(uri: str) -> list[StepStatus]:
    """Every step of an output folder, in the order in which they run. DataError where there is none."""
    out = Folder(uri)
    below = [out.child(*name.split("/")) for name in STEPS_BELOW]
    found = [folder for folder in (*below, out, out.child(REPORT)) if folder.exists("step.json")]
    if not found:
        raise DataError(
            f"{out.uri} holds no step: neither it nor a folder of a search below it has a step.json. "
            "Give the output folder of a psreid command; a command that has just begun writes it after planning."
        )
    return [_status_of(folder) for folder in found]


def _status_of(folder: Folder) -> StepStatus:
    ledger = Ledger.read(folder)
    told, holder = read_progress(folder), lock_holder(folder)
    done, manifest = ledger.done_ids(), ledger.manifest
    total = _total(told, manifest)
    is_running = holder is not None and holder.is_alive
    is_done = manifest is not None and len(done) >= manifest.shards >= (total or 0)
    state: State = "running" if is_running else "done" if is_done else "stopped"
    remaining_s = told.get("remaining_s") if is_running else None
    reasons = _reasons(ledger, done)
    return StepStatus(
        name=ledger.identity.step,
        uri=folder.uri,
        state=state,
        shards_done=len(done),
        shards_total=total,
        rows=_rows(ledger, done, manifest),
        quarantined=reasons.total(),
        quarantine_reasons=dict(reasons.most_common()),
        unit=str(told.get("unit", "rows")),
        per_s=told.get("per_s"),
        remaining_s=remaining_s,
        expected_end=_later(told.get("updated_at"), remaining_s),
        cost=told.get("cost"),
        currency=str(told.get("currency", "USD")),
        last_activity=told.get("updated_at"),
        holder=_describe(holder),
    )


def _total(told: Mapping[str, Any], manifest: Manifest | None) -> int | None:
    totals = [int(told["shards_total"])] if "shards_total" in told else []
    totals += [manifest.shards] if manifest is not None else []
    return max(totals, default=None)


def _rows(ledger: Ledger, done: set[str], manifest: Manifest | None) -> int | None:
    """Rows of the committed shards: those of the manifest, and of the markers that came after it."""
    known = manifest.shard_ids if manifest is not None else frozenset[str]()
    new = sorted(done - known)
    if len(new) > MOST_MARKERS_READ:
        return None
    return (manifest.rows if manifest else 0) + sum(marker["rows"] for marker in ledger.markers(new))


def _reasons(ledger: Ledger, done: set[str]) -> Counter[str]:
    """Rows set aside by reason, from the markers of the shards that set any aside."""
    names = ledger.folder.list_files("quarantine/")
    ids = {name.removeprefix("quarantine/").removesuffix(".parquet") for name in names} & done
    reasons: Counter[str] = Counter()
    for marker in ledger.markers(sorted(ids)):
        reasons.update(marker["quarantine_reasons"])
    return reasons


def _later(moment: str | None, seconds: float | None) -> str | None:
    if moment is None or seconds is None:
        return None
    end = datetime.datetime.fromisoformat(moment) + datetime.timedelta(seconds=seconds)
    return end.isoformat(timespec="seconds")


def _describe(holder: LockHolder | None) -> str | None:
    if holder is None:
        return None
    fate = "" if holder.is_alive else ", which is gone: run the same command again to continue"
    return f"held by process {holder.pid} on {holder.host}{fate}"


def summarize(steps: Sequence[StepStatus]) -> str:
    """One plain sentence on all of them."""
    if all(step.state == "done" for step in steps):
        return f"Done: {', '.join(step.name for step in steps)}."
    current = next(step for step in steps if step.state != "done")
    if current.state == "running":
        return f"Running: {current.name}."
    return f"Stopped in {current.name}: run the same command again to continue."
