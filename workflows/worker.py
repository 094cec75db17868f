"""What runs inside a worker process: one stage on one shard, with bad rows set aside and deaths traced.

A shard travels as one Ray Data row of three columns: `shard` (JSON), `table` (Arrow IPC stream) and `notes` (JSON:
drops, quarantine, seconds, and `failure` once the whole job must stop). Nothing here raises into Ray: a failure that
is not a row's fault travels to the driver as a note, so that the person sees its message and not a worker's traceback.
"""

import gc
import json
import logging
import os
import pickle
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from modeling.errors import ConfigError, JobError, PsreidError, StorageError, WeightsError
from workflows.attempts import Attempt, Deaths
from workflows.ledger import Ledger, QuarantineRow, Shard
from workflows.stages import RowError, ShardBatch, StageSpec, merge_batches, row_id_of, row_to_json
from workflows.storage import Folder

KILLED = "killed the process"
ROW = pa.schema([("shard", pa.large_string()), ("table", pa.large_binary()), ("notes", pa.large_string())])
COMMITTED = pa.schema(
    [
        ("shard_id", pa.string()),
        ("rows", pa.int64()),
        ("rows_read", pa.int64()),
        ("quarantined", pa.int64()),
        ("watched", pa.string()),  # JSON: quarantine `reasons` and the `trail` through the stages
        ("failure", pa.string()),
    ]
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageCall:
    """A stage as it travels to a worker. The spec stays pickled until the worker has limited its threads."""

    name: str
    position: int
    cpus: float
    spec_pickle: bytes
    folder: Folder
    run_id: str
    commits: bool = False
    """Whether this is the last stage: its worker then writes the shard, and gives the driver one row of counts."""
    row_group_rows: int | None = None


@dataclass
class Notes:
    """What travels with a shard besides its table."""

    drops: Counter[str] = field(default_factory=Counter)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    seconds: float = 0.0
    rows_read: int | None = None
    """Rows out of the first stage, with those it dropped or set aside; None before it ran."""
    trail: list[list[Any]] = field(default_factory=list)
    """[stage, rows out, seconds in it, seconds waited before it] of every stage passed."""
    left_at: float | None = None
    """When the last stage was through with it, seconds of the epoch."""
    failure: list[str] | None = None
    """[class of the error, message, traceback] when the whole job must stop."""


def encode_row(shard: Shard, table: pa.Table, notes: Notes) -> pa.Table:
    """A shard as the one row that travels."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, stream.size], dtype=np.int64))
    stored = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, stream])  # without copying the stream
    plain = vars(notes) | {"quarantine": [astuple(row) for row in notes.quarantine]}
    texts = [pa.array([json.dumps(value)], pa.large_string()) for value in (vars(shard), plain)]
    return pa.Table.from_arrays([texts[0], stored, texts[1]], schema=ROW)


def decode_row(row: pa.Table) -> tuple[Shard, pa.Table, Notes]:
    """The shard, its table (sharing memory with the row) and its notes."""
    plain = json.loads(row["notes"][0].as_py())
    plain["drops"] = Counter(plain["drops"])
    plain["quarantine"] = [QuarantineRow(*fields) for fields in plain["quarantine"]]
    table = pa.ipc.open_stream(row["table"][0].as_buffer()).read_all()
    return Shard(**json.loads(row["shard"][0].as_py())), table, Notes(**plain)


class StageWorker:
    """One stage, made once per process, called with one travelling row at a time."""

    def __init__(self, call: StageCall) -> None:
        self._call = call
        self._failure: list[str] | None = None
        self._ledger: Ledger | None = None
        try:
            limit_threads(call.cpus)
            spec: StageSpec = pickle.loads(call.spec_pickle)
            self._stage = spec.factory(**spec.kwargs)
            limit_threads(call.cpus)  # again: the stage has imported its libraries by now
            gc.freeze()  # they stay, so no collection needs to look at their objects again
        except Exception as error:
            self._failure = describe_failure(error, doing=f"stage {call.name} could not start")

    def __call__(self, row: pa.Table) -> pa.Table:
        """The travelling row after this stage; after the last one, the counts of the shard that it committed."""
        shard, table, notes = decode_row(row)
        try:
            if self._failure is None and notes.failure is None:
                table, notes = self._advance(shard, table, notes)
            failure = notes.failure or self._failure
            if failure is None and not self._call.commits:
                return encode_row(shard, table, notes)
            if failure is None:
                self._commit(shard, table, notes)
        except Exception as error:
            failure = describe_failure(error, doing=f"stage {self._name} failed on {shard.shard_id}")
        if self._call.commits:
            return _counts(shard, table, notes, failure)
        return encode_row(shard, pa.table({}), Notes(failure=failure))

    def _advance(self, shard: Shard, table: pa.Table, notes: Notes) -> tuple[pa.Table, Notes]:
        if self._position > 0 and not table.column_names:
            return table, notes  # every row was set aside at the source, which could not even say what columns it has
        waited_s = 0.0 if notes.left_at is None else max(0.0, time.time() - notes.left_at)
        started = time.monotonic()
        result = self._run(ShardBatch(shard, table))
        seconds = time.monotonic() - started
        notes.drops.update(result.drops)
        notes.quarantine.extend(result.quarantine)
        notes.seconds += seconds
        notes.trail.append([self._name, result.table.num_rows, round(seconds, 4), round(waited_s, 4)])
        notes.left_at = time.time()
        if self._position == 0:
            notes.rows_read = result.table.num_rows + len(result.quarantine) + result.drops.total()
        return result.table, notes

    def _commit(self, shard: Shard, table: pa.Table, notes: Notes) -> None:
        if self._ledger is None:
            self._ledger = Ledger.read(self._call.folder)
        self._ledger.commit(
            shard,
            table,
            drops=notes.drops,
            quarantine=notes.quarantine,
            seconds=notes.seconds,
            rows_read=notes.rows_read,
            row_group_rows=self._call.row_group_rows,
        )

    @property
    def _name(self) -> str:
        return self._call.name

    @property
    def _position(self) -> int:
        return self._call.position

    def _run(self, batch: ShardBatch) -> ShardBatch:
        stage_id = f"{self._position}-{self._name}"
        call = self._call
        attempt, deaths = Attempt.begin(call.folder, call.run_id, batch.shard.shard_id, stage_id)
        result = self._run_isolated(batch, attempt, deaths) if deaths.must_isolate else self._run_whole(batch)
        attempt.succeed()
        return result

    def _run_whole(self, batch: ShardBatch) -> ShardBatch:
        """The stage on the whole shard; if it raises, row by row, so that only the raising rows are set aside."""
        try:
            return self._apply(batch)
        except Exception as error:
            if _is_jobs_fault(error) or (self._position > 0 and not batch.table.num_rows):
                raise
            logger.info("stage %s raised on shard %s, going row by row: %r", self._name, batch.shard.shard_id, error)
            return self._merge(batch, [self._run_row(row_id, part) for row_id, part in self._split(batch)])

    def _run_isolated(self, batch: ShardBatch, attempt: Attempt, deaths: Deaths) -> ShardBatch:
        """Row by row with the row in flight on record; rows that were in flight at two deaths are set aside."""
        parts = []
        for row_id, part in self._split(batch):
            if row_id in deaths.killers:
                detail = f"stage {self._name} died {deaths.by_row[row_id]} times while it worked on this row alone"
                parts.append(_set_aside(part, row_id, KILLED, detail))
            else:
                attempt.row_in_flight(row_id)
                parts.append(self._run_row(row_id, part))
        return self._merge(batch, parts)

    def _run_row(self, row_id: str, part: ShardBatch) -> ShardBatch:
        try:
            return self._apply(part)
        except RowError as error:
            return _set_aside(part, error.row_id, error.reason, error.detail)
        except Exception as error:
            if _is_jobs_fault(error):
                raise
            return _set_aside(part, row_id, type(error).__name__, str(error))

    def _split(self, batch: ShardBatch) -> Iterator[tuple[str, ShardBatch]]:
        """(row id, part) for each row alone; the whole shard where its rows cannot be told apart."""
        if self._position > 0 and getattr(self._stage, "rows_independent", True):
            for index in range(batch.table.num_rows):
                row_id = row_id_of(self._stage, batch.table, index, batch.shard)
                yield row_id, batch.fresh(batch.table.slice(index, 1))
        elif self._position == 0 and hasattr(self._stage, "plan_rows"):
            for sub_shard in self._stage.plan_rows(batch.shard):
                yield sub_shard.shard_id, ShardBatch(sub_shard, batch.table)
        else:
            yield batch.shard.shard_id, batch

    def _merge(self, batch: ShardBatch, parts: list[ShardBatch]) -> ShardBatch:
        merged = merge_batches(batch.shard, parts)
        if self._position > 0 and not merged.table.column_names:  # every row was set aside: the columns are still owed
            merged.table = self._apply(batch.fresh(batch.table.slice(0, 0))).table
        return merged

    def _apply(self, batch: ShardBatch) -> ShardBatch:
        """The stage itself, on a copy whose counts a failed call cannot spoil."""
        missing = sorted(set(getattr(self._stage, "reads", ())) - set(batch.table.column_names))
        if self._position > 0 and missing:
            raise ConfigError(
                f"stage {self._name} reads the column(s) {', '.join(missing)}; the table before it has "
                f"{', '.join(batch.table.column_names)}. Put the stage that writes them before it."
            )
        result: ShardBatch = self._stage(batch.fresh(batch.table))
        return result


_task_workers: dict[tuple[str, int], StageWorker] = {}  # of this process; tasks of one stage share one instance


def run_stage_task(row: pa.Table, call: StageCall) -> pa.Table:
    """A stage as a short task: made on the first call in a process, then kept for the run."""
    key = (call.run_id, call.position)
    if key not in _task_workers:
        for stale in [other for other in _task_workers if other[0] != call.run_id]:
            del _task_workers[stale]
        _task_workers[key] = StageWorker(call)
    return _task_workers[key](row)


def _counts(shard: Shard, table: pa.Table, notes: Notes, failure: list[str] | None) -> pa.Table:
    reasons = Counter(row.reason for row in notes.quarantine)
    counts = {
        "shard_id": shard.shard_id,
        "rows": table.num_rows,
        "rows_read": table.num_rows + len(notes.quarantine) if notes.rows_read is None else notes.rows_read,
        "quarantined": len(notes.quarantine),
        "watched": json.dumps({"reasons": reasons, "trail": notes.trail}),
    }
    return pa.Table.from_pylist([counts | {"failure": json.dumps(failure) if failure else None}], COMMITTED)


def describe_failure(error: Exception, *, doing: str) -> list[str]:
    """[class, message, traceback] of a failure that stops the job; our own errors keep their own words."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, PsreidError):
        return [type(error).__name__, str(error), trace]
    return [JobError.__name__, f"{doing}: {type(error).__name__}: {error}", trace]


def limit_threads(cpus: float) -> None:
    """Keeps the numerical libraries of this process to `cpus` threads, so that workers do not fight over cores."""
    threads = max(1, int(cpus))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)  # for libraries that are not imported yet
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(threads)


def _is_jobs_fault(error: Exception) -> bool:
    """Whether an error is no row's fault. A broken GPU context ends the process, as all later rows would fail."""
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        logger.error("the GPU context is broken, ending this worker so that a new one starts clean: %s", error)
        os._exit(1)
    return isinstance(error, ConfigError | WeightsError | StorageError | JobError)


def _set_aside(part: ShardBatch, row_id: str, reason: str, detail: str) -> ShardBatch:
    """The part with no rows left and one quarantine row for each that it had (one for a source's sub-shard)."""
    result = ShardBatch(part.shard)
    rows: list[dict[str, Any]] = part.table.to_pylist() or [dict(part.shard.payload)]
    for number, row in enumerate(rows):
        name = row_id if len(rows) == 1 else f"{row_id}/{number}"
        result.quarantine.append(QuarantineRow(name, reason, detail, row_to_json(row)))
    return result
