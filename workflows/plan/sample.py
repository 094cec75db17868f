"""Times stages on a little of their real work, in this process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from workflows.ledger import table_checksum
from workflows.plan.work import StageWork
from workflows.stages import ShardBatch, StageSpec
from workflows.worker import Notes, decode_row, encode_row, limit_threads

SAMPLE_S = 3.0  # of work that is timed, about
FIRST_ROWS = 2  # of the run that finds everything ready and tells how long a sample may be

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sampled:
    """What a sample of a pipeline's stages took."""

    rows: int
    """Rows asked of the first stage."""
    stages: tuple[StageWork, ...]
    """Seconds of the sample, and of loading, for each stage."""
    table: pa.Table
    """What came out of the last stage."""
    stored_bytes: int
    """Of that table as Parquet."""

    def scaled(self, rows: float) -> tuple[StageWork, ...]:
        """The stages' work for so many rows."""
        factor = rows / max(self.rows, 1)
        return tuple(stage.times(factor) for stage in self.stages)


def sample_stages(specs: Sequence[StageSpec], shard_of: Callable[[int], Any], most_rows: int) -> Sampled:
    """Runs the stages on a first few rows, then on as many as `SAMPLE_S` allows, and times that.

    `shard_of(rows)` gives a shard of about that many rows. The commit is counted with the last stage, and what a shard
    costs on its way between two workers with the one that sends it.
    """
    loads, stages = [], []
    limit_threads(specs[0].resources.cpus)
    for spec in specs:
        stage, seconds = timed(partial(spec.factory, **spec.kwargs))
        stages.append(stage)
        loads.append(seconds)
    limit_threads(specs[0].resources.cpus)  # again: the libraries are imported by now
    first_rows = min(FIRST_ROWS, most_rows)
    _, first_s = timed(lambda: _run(stages, ShardBatch(shard_of(first_rows))))
    _, again_s = timed(lambda: _run(stages, ShardBatch(shard_of(first_rows))))
    rows = max(first_rows, min(most_rows, int(SAMPLE_S / max(again_s / first_rows, 1e-6))))
    (table, seconds_of), _ = timed(lambda: _run(stages, ShardBatch(shard_of(rows))))
    stored, store_s = timed(lambda: _store(table))
    seconds_of[-1] += store_s
    warm_s = max(0.0, first_s - again_s)  # what the first call finds missing belongs to loading
    loads[0] += warm_s
    work = tuple(
        StageWork(spec.name, seconds, spec.resources.cpus, spec.resources.gpus, spec.pool, load_s)
        for spec, seconds, load_s in zip(specs, seconds_of, loads, strict=True)
    )
    return Sampled(rows, work, table, stored)


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a call, and its seconds."""
    started = time.monotonic()
    result = call()
    return result, time.monotonic() - started


def _run(stages: Sequence[Any], batch: ShardBatch) -> tuple[pa.Table, list[float]]:
    seconds_of = []
    for stage in stages:

        def advance(stage: Any = stage, batch: ShardBatch = batch) -> ShardBatch:
            _, table, _ = decode_row(encode_row(batch.shard, batch.table, Notes()))
            result: ShardBatch = stage(batch.with_table(table))
            return result

        batch, seconds = timed(advance)
        seconds_of.append(seconds)
    return batch.table, seconds_of


def _store(table: pa.Table) -> int:
    """Writes the table as a commit does, into memory; gives its bytes."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    table_checksum(table)
    return int(sink.getvalue().size)
