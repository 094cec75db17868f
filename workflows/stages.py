"""What a step is made of: shards, the tables that travel with them, and stages that turn one table into the next.

Nothing here imports Ray. A stage is a class whose `__init__` loads and whose `__call__` takes a `ShardBatch` and gives
the next one; `workflows/runner.py` is the only place that runs stages on Ray Data.

A stage must be deterministic in its shard (a rerun gives equal rows) and must accept a table of no rows. Rows should
not depend on one another; a stage whose rows do (a ranking over the whole shard) says so with
`rows_independent = False`, and the runner then never splits its shards.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from modeling.errors import ConfigError
from workflows.ledger import QuarantineRow, Shard

ROW_ID_COLUMNS = ("frame_id", "query_id", "person_id", "row_id")  # tried in this order when a stage names none


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage occupies."""

    cpus: float = 1.0
    """Logical cores; also the number of threads that numerical libraries may use in the worker."""
    gpus: float = 0.0
    """GPUs; a fraction shares one."""
    memory_bytes: int | None = None
    """Heap that the scheduler keeps free for the worker; None reserves nothing."""


@dataclass
class ShardBatch:
    """One shard on its way: its table so far, what was dropped (reason -> rows), and the rows set aside."""

    shard: Shard
    table: pa.Table = field(default_factory=lambda: pa.table({}))
    drops: Counter[str] = field(default_factory=Counter)
    quarantine: list[QuarantineRow] = field(default_factory=list)

    def with_table(self, table: pa.Table) -> "ShardBatch":
        """The same shard with another table."""
        return replace(self, table=table)

    def quarantine_row(self, row_id: str, reason: str, detail: str = "", row: Mapping[str, Any] | None = None) -> None:
        """Sets a row aside with its reason; `reason` is a short class of cause, `detail` says what happened."""
        self.quarantine.append(QuarantineRow(row_id, reason, detail, row_to_json(row or {})))

    def fresh(self, table: pa.Table) -> "ShardBatch":
        """A part of this shard with nothing counted yet, so that a failed attempt leaves no counts behind."""
        return ShardBatch(self.shard, table)


@runtime_checkable
class Stage(Protocol):
    """A Ray-free callable. Optional class attributes: `reads`, `writes`, `row_id_column`, `rows_independent`.

    `reads` and `writes` name columns and are checked before anything starts. A source stage (the first: it gets a
    table of no columns) may have `plan_rows(shard) -> list[Shard]`, which splits a shard so that a bad row is isolated.
    """

    def __call__(self, shard: ShardBatch) -> ShardBatch: ...


class RowError(Exception):
    """Raised by a stage for one bad row: (row_id, reason, detail). The runner quarantines that row."""

    def __init__(self, row_id: str, reason: str, detail: str = "") -> None:
        super().__init__(row_id, reason, detail)
        self.row_id, self.reason, self.detail = row_id, reason, detail


@dataclass(frozen=True)
class StageSpec:
    """How to make a stage and how many workers run it."""

    factory: Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    pool: tuple[int, int] | None = None
    """(fewest, most) long-lived workers, for stages that load a model; None runs the stage in short tasks."""

    @property
    def name(self) -> str:
        return getattr(self.factory, "__name__", type(self.factory).__name__)


def row_id_of(stage: Any, table: pa.Table, index: int, shard: Shard) -> str:
    """The name of a row for people: the stage's `row_id_column`, else a known id column, else shard and number."""
    named = getattr(stage, "row_id_column", None)
    for column in [named] if named else ROW_ID_COLUMNS:
        if column in table.column_names:
            return str(table.column(column)[index].as_py())
    return f"{shard.shard_id}/{index}"


def row_to_json(row: Mapping[str, Any]) -> str:
    """A row as JSON; bytes become {"base64": ...}, so that nothing is lost."""

    def encode(value: object) -> object:
        if isinstance(value, bytes):
            return {"base64": base64.b64encode(value).decode()}
        return str(value)

    return json.dumps(row, default=encode, ensure_ascii=False)


def merge_batches(shard: Shard, parts: Iterable[ShardBatch]) -> ShardBatch:
    """The parts of one shard as one, in their order."""
    merged = ShardBatch(shard)
    tables: list[pa.Table] = []
    for part in parts:
        tables.append(part.table)
        merged.drops.update(part.drops)
        merged.quarantine.extend(part.quarantine)
    filled = [table for table in tables if table.num_rows] or tables[:1]
    merged.table = pa.concat_tables(filled, promote_options="permissive") if filled else pa.table({})
    return merged


def check_columns(stages: Sequence[StageSpec]) -> None:
    """Checks that every column a stage reads is written by an earlier one, before anything starts."""
    available: set[str] = set()
    for position, spec in enumerate(stages):
        reads, writes = getattr(spec.factory, "reads", None), getattr(spec.factory, "writes", None)
        if writes is None:
            return  # this stage does not say what it writes: from here on only the run can tell
        missing = sorted(set(reads or ()) - available)
        if position and missing:
            raise ConfigError(
                f"stage {spec.name} reads the column(s) {', '.join(missing)}, which no earlier stage writes; "
                f"there are {', '.join(sorted(available)) or 'none'}. Put the stage that writes them before it."
            )
        available |= set(writes)
