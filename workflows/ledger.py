"""What a step has done so far, kept beside its output: resume, exactly-once, nothing lost.

Files of a step folder, in the order in which they appear:

    step.json                  what this folder is the output of; another config or input is refused
    part-<shard>.parquet       the rows of one shard, written whole
    quarantine/<shard>.parquet the rows set aside, each with its reason (only where there are any)
    done/<shard>.json          the marker, written last: rows, drops by reason, seconds, checksum of the rows
    manifest.json              totals and the list of parts, when every shard is done

A part without a marker does not exist for readers and is overwritten by the next run. Shard ids come from content and
config, never from a run, so a rerun is the plan minus `done/`. A step whose inputs grow gets more shards; its manifest
stays as it was until the new ones are done, so readers always see a whole archive. Knows nothing of Ray or of stages.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from modeling.errors import ConfigError, DataError, JobError
from workflows.scope import Scope, scope_of
from workflows.storage import JSON, Folder

LEDGER_VERSION = 1
MARKER_READERS = 16  # threads; a marker is a small file, so reading them is latency only
QUARANTINE = pa.schema(
    [
        ("shard_id", pa.string()),
        ("row_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("row_json", pa.string()),
    ]
)


@dataclass(frozen=True)
class Shard:
    """The unit of work that is committed whole."""

    shard_id: str
    payload: Mapping[str, JSON]
    """What to read; small, because it travels with the shard."""
    rows_expected: int | None = None


@dataclass(frozen=True)
class QuarantineRow:
    """A row that was set aside, and why."""

    row_id: str
    reason: str
    detail: str
    row_json: str


@dataclass(frozen=True)
class StepIdentity:
    """What makes two runs the same step: only what changes the output's rows belongs in `config`."""

    step: str
    config: Mapping[str, JSON]
    inputs: Mapping[str, str]
    code_version: str
    schema_version: int


@dataclass(frozen=True)
class PartInfo:
    """A committed part."""

    name: str
    shard_id: str
    rows: int
    scope: Scope | None = None
    """Its cameras and times, where it has any: what lets a reader pass it by unopened."""


@dataclass(frozen=True)
class Manifest:
    """The totals of a step."""

    step: str
    shards: int
    rows: int
    rows_read: int
    """Rows that the first stage gave, plus those it set aside: what a quarantined share is a share of."""
    drops: Mapping[str, int]
    quarantined: int
    quarantine_reasons: Mapping[str, int]
    seconds: float
    """Time spent in stages, summed over workers."""
    parts: Sequence[PartInfo] = field(default_factory=list)
    without_part: Sequence[str] = ()
    """Ids of the shards that gave no part, because every row was set aside at the source."""

    @property
    def shard_ids(self) -> frozenset[str]:
        """The shards that these totals are of."""
        return frozenset(self.without_part) | {part.shard_id for part in self.parts}


def describe_growth(before: Manifest | None, after: Manifest, *, unit: str) -> str | None:
    """What a run has added to a finished step, in words; None where there was none, or where it did not grow."""
    if before is None or after.shards == before.shards:
        return None
    return (
        f"added {after.rows - before.rows:,} of now {after.rows:,} {unit}, {after.shards - before.shards:,} of "
        f"{after.shards:,} shards, {after.seconds - before.seconds:.1f} of {after.seconds:.1f} seconds of work; the "
        "rest was left alone"
    )


def make_shard_id(*parts: JSON) -> str:
    """16 hex digits that depend on the parts alone (anything JSON can hold)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def table_checksum(table: pa.Table) -> str:
    """sha256 of the rows, the same for equal tables whatever their chunks or the file's compression."""
    sink, plain = _HashSink(), table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), plain.schema) as writer:  # hashed without a copy
        writer.write_table(plain)
    return sink.digest.hexdigest()


class _HashSink(io.RawIOBase):
    """A file that keeps the sha256 of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)


class Ledger:
    """The record of one step's output folder."""

    def __init__(self, folder: Folder, identity: StepIdentity) -> None:
        self.folder, self.identity = folder, identity

    @classmethod
    def open(cls, folder: Folder, identity: StepIdentity) -> "Ledger":
        """Starts or continues a step in `folder`; ConfigError if the folder is the output of something else."""
        if folder.exists("step.json"):
            _check_same_step(folder, _read_identity(folder), identity)
        else:
            folder.write_json("step.json", {"ledger_version": LEDGER_VERSION, **_plain(identity)})
        return cls(folder, identity)

    @classmethod
    def read(cls, folder: Folder) -> "Ledger":
        """The ledger of an existing step, for readers of its output."""
        return cls(folder, _read_identity(folder))

    @property
    def manifest(self) -> Manifest | None:
        """The totals, or None while shards are missing."""
        if not self.folder.exists("manifest.json"):
            return None
        stored = self.folder.read_json("manifest.json")
        parts = [PartInfo(f"part-{entry[0]}.parquet", *entry) for entry in stored.pop("parts")]
        return Manifest(parts=parts, **stored)

    def done_ids(self) -> set[str]:
        """Ids of the shards that are committed."""
        return {name.removeprefix("done/").removesuffix(".json") for name in self.folder.list_files("done/")}

    def remaining(self, shards: Iterable[Shard]) -> list[Shard]:
        """The plan minus what is done."""
        done = self.done_ids()
        return [shard for shard in shards if shard.shard_id not in done]

    def commit(
        self,
        shard: Shard,
        table: pa.Table,
        *,
        drops: Mapping[str, int],
        quarantine: Sequence[QuarantineRow],
        seconds: float,
        rows_read: int | None = None,
        row_group_rows: int | None = None,
    ) -> None:
        """Writes the part, then the quarantine, then the marker: a kill between any two leaves the shard undone."""
        has_part = bool(table.column_names)  # a shard whose every row was set aside at the source knows no columns
        if has_part:
            self.folder.write_table(f"part-{shard.shard_id}.parquet", table, row_group_rows=row_group_rows)
        if quarantine:
            rows = [{"shard_id": shard.shard_id, **asdict(row)} for row in quarantine]
            self.folder.write_table(f"quarantine/{shard.shard_id}.parquet", pa.Table.from_pylist(rows, QUARANTINE))
        else:
            self.folder.remove(f"quarantine/{shard.shard_id}.parquet")  # of an attempt that was cut short
        marker = {
            "shard_id": shard.shard_id,
            "has_part": has_part,
            "rows": table.num_rows,
            "rows_read": table.num_rows + len(quarantine) if rows_read is None else rows_read,
            "drops": {reason: count for reason, count in sorted(drops.items()) if count},
            "quarantined": len(quarantine),
            "quarantine_reasons": dict(Counter(row.reason for row in quarantine)),
            "seconds": round(seconds, 3),
            "scope": scope_of(table),
            "sha256": table_checksum(table),
        }
        self.folder.write_json(f"done/{shard.shard_id}.json", marker)

    def parts(self) -> list[PartInfo]:
        """The committed parts, sorted by shard id."""
        manifest = self.manifest
        if manifest is not None:
            return list(manifest.parts)
        markers = self.markers(sorted(self.done_ids()))
        return _parts_of(markers)

    def markers(self, shard_ids: Iterable[str]) -> list[dict[str, Any]]:
        """The done markers of these shards, in the same order."""
        with ThreadPoolExecutor(MARKER_READERS) as pool:
            return list(pool.map(lambda shard_id: self.folder.read_json(f"done/{shard_id}.json"), shard_ids))

    def totals(self, shards: Iterable[Shard], *, base: Manifest | None = None) -> Manifest:
        """What these shards came to, all of which must be done.

        `base`: totals of some of them, taken from an earlier run; only the markers of the others are read.
        """
        known = base.shard_ids if base is not None else frozenset[str]()
        new = self._totals_of(self.markers(sorted({shard.shard_id for shard in shards} - known)))
        return new if base is None else _sum(base, new)

    def _totals_of(self, markers: Sequence[Mapping[str, Any]]) -> Manifest:
        drops: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for marker in markers:
            drops.update(marker["drops"])
            reasons.update(marker["quarantine_reasons"])
        return Manifest(
            step=self.identity.step,
            shards=len(markers),
            rows=sum(marker["rows"] for marker in markers),
            rows_read=sum(marker["rows_read"] for marker in markers),
            drops=dict(sorted(drops.items())),
            quarantined=sum(marker["quarantined"] for marker in markers),
            quarantine_reasons=dict(reasons.most_common()),
            seconds=round(sum(marker["seconds"] for marker in markers), 3),
            parts=_parts_of(markers),
            without_part=[marker["shard_id"] for marker in markers if not marker["has_part"]],
        )

    def finish(self, shards: Sequence[Shard]) -> Manifest:
        """Writes and returns the totals; JobError if a shard is missing."""
        missing = self.remaining(shards)
        if missing:
            raise JobError(
                f"{len(missing)} of {len(shards)} shards of {self.folder.uri} are not done (first: "
                f"{missing[0].shard_id}). Run the same command again to continue."
            )
        totals = self.totals(shards)
        self.write_manifest(totals)
        return totals

    def write_manifest(self, totals: Manifest) -> None:
        """Declares the step complete, with these totals of all its shards."""
        parts = [[part.shard_id, part.rows, part.scope] for part in totals.parts]
        stored = {**asdict(totals), "parts": parts}
        self.folder.write_bytes("manifest.json", json.dumps(stored, ensure_ascii=False).encode())

    def count_quarantined(self, shard_ids: Iterable[str]) -> int:
        """Rows that these shards set aside; reads the markers only of shards that set any aside."""
        names = self.folder.list_files("quarantine/")
        with_rows = {name.removeprefix("quarantine/").removesuffix(".parquet") for name in names}
        return sum(marker["quarantined"] for marker in self.markers(sorted(with_rows.intersection(shard_ids))))

    def read_table(self, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
        """All committed parts as one table, in order of shard id. For small tables: everything is held in memory."""
        tables = [self.folder.read_table(part.name, columns, filters) for part in self.parts()]
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def read_quarantine(self) -> pa.Table:
        """Every row that was set aside, of the shards that are done."""
        done = self.done_ids()
        names = self.folder.list_files("quarantine/")
        stored = [name for name in names if name.removeprefix("quarantine/").removesuffix(".parquet") in done]
        tables = [self.folder.read_table(name) for name in stored]
        return pa.concat_tables(tables) if tables else QUARANTINE.empty_table()


def _parts_of(markers: Iterable[Mapping[str, Any]]) -> list[PartInfo]:
    return [
        PartInfo(f"part-{marker['shard_id']}.parquet", marker["shard_id"], marker["rows"], marker.get("scope"))
        for marker in markers
        if marker["has_part"]
    ]


def _sum(first: Manifest, second: Manifest) -> Manifest:
    """The totals of two sets of shards that have none in common."""
    reasons = Counter(first.quarantine_reasons) + Counter(second.quarantine_reasons)
    return Manifest(
        step=second.step,
        shards=first.shards + second.shards,
        rows=first.rows + second.rows,
        rows_read=first.rows_read + second.rows_read,
        drops=dict(sorted((Counter(first.drops) + Counter(second.drops)).items())),
        quarantined=first.quarantined + second.quarantined,
        quarantine_reasons=dict(reasons.most_common()),
        seconds=round(first.seconds + second.seconds, 3),
        parts=sorted([*first.parts, *second.parts], key=lambda part: part.shard_id),
        without_part=sorted([*first.without_part, *second.without_part]),
    )


def _plain(identity: StepIdentity) -> dict[str, Any]:
    """The identity as JSON would give it back (tuples become lists, keys become strings)."""
    return json.loads(json.dumps(asdict(identity)))


def _read_identity(folder: Folder) -> StepIdentity:
    if not folder.exists("step.json"):
        raise DataError(
            f"{folder.uri} is not the output of a psreid step: it has no step.json. "
            "Give the folder that a psreid command wrote."
        )
    stored = folder.read_json("step.json")
    version = stored.pop("ledger_version", None)
    if version != LEDGER_VERSION:
        raise DataError(
            f"{folder.uri} was written with ledger version {version}, this psreid knows {LEDGER_VERSION}. "
            "Read it with the psreid that wrote it, or make it again."
        )
    return StepIdentity(**stored)


def _check_same_step(folder: Folder, found: StepIdentity, wanted: StepIdentity) -> None:
    differences = list(_differences(_plain(found), _plain(wanted)))
    if differences:
        listed = "; ".join(f"{key}: there {there!r}, now {now!r}" for key, there, now in differences[:8])
        more = f" and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise ConfigError(
            f"{folder.uri} already holds the output of another run: {listed}{more}. "
            "Use another output folder, or repeat the settings of that run to continue it, or delete the folder."
        )


def _differences(there: JSON, now: JSON, path: str = "") -> Iterable[tuple[str, JSON, JSON]]:
    """Every leaf at which two JSON values differ, with its full path."""
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted(there.keys() | now.keys()):
            yield from _differences(there.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif there != now:
        yield path, there, now
