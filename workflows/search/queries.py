"""The first step of a search: queries from a table or from flags, checked, decoded once, embedded once.

A query that cannot be used is set aside with its reason. Knows nothing of Ray.
"""

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.instructions import TASKS, asked_of, named_task
from modeling.regions import box_xywh_to_xyxy, crop
from modeling.types import QueryInput
from workflows.index.frames import decode_image, encode_png, frame_ids_of, read_frames
from workflows.index.inputs import StepInput
from workflows.ledger import Ledger, Shard, make_shard_id
from workflows.schema import QUERIES, require_table
from workflows.search.config import SearchConfig
from workflows.search.tables import prepared_queries_schema
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder, split_uri

if TYPE_CHECKING:
    from modeling.ps_reid.person_encoder import PersonEncoder

GROUP_QUERIES = 64  # queries of one shard, and of one merge of the steps that follow
ASKED_COLUMNS = ("query_id", "image", "text", "task", "instruction", "instruction_image")
"""What the models see of a query."""
_TASK_NAMES = frozenset(task.lower() for task in TASKS)


class PrepareQueries:
    """Rows of a queries table, or the query given by flags -> checked queries with their embeddings."""

    reads: tuple[str, ...] = ()
    resources = Resources(cpus=1)

    def __init__(self, *, load_encoder: "Callable[[], PersonEncoder] | None") -> None:
        """`load_encoder` None leaves the embeddings out: nothing needs them without recall."""
        self._encoder = load_encoder() if load_encoder else None
        self._schema = prepared_queries_schema(self._encoder.dim if self._encoder else None)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        kept: list[dict[str, Any]] = []
        inputs: list[QueryInput] = []
        for row in read_query_rows(batch.shard):
            try:
                query = query_input(row)
                if self._encoder is not None:
                    self._encoder.check_query(query)
                inputs.append(query)
                kept.append({**row, "query_group": batch.shard.payload["group"]})
            except DataError as error:
                batch.quarantine_row(row["query_id"], _reason(row), str(error), row)
        if self._encoder is not None and kept:
            embeddings_QD = self._encoder.embed_queries(inputs).astype(np.float16)
            kept = [{**row, "embedding": vector} for row, vector in zip(kept, embeddings_QD, strict=True)]
        return batch.with_table(pa.Table.from_pylist(kept, schema=self._schema))


@dataclass(frozen=True)
class QueryList:
    """Every query of a search without its picture, in stored order; Q queries."""

    query_ids: list[str]
    groups_Q: npt.NDArray[np.int32]
    own_frames: list[str | None]
    """The frame each query was cut from: never its own match."""
    embeddings_QD: npt.NDArray[np.float16] | None
    """Unit length; None where they were not asked for."""

    @classmethod
    def read(cls, queries_uri: str, *, with_embeddings: bool) -> "QueryList":
        """The queries that the first step kept, sorted by group."""
        columns = ["query_id", "query_group", "frame_id", *(["embedding"] if with_embeddings else [])]
        table = Ledger.read(Folder(queries_uri)).read_table(columns).sort_by([("query_group", "ascending")])
        embeddings_QD = None
        if with_embeddings:
            column = table["embedding"].combine_chunks()
            embeddings_QD = column.flatten().to_numpy().reshape(table.num_rows, column.type.list_size)
        groups_Q = table["query_group"].to_numpy()
        return cls(table["query_id"].to_pylist(), groups_Q, table["frame_id"].to_pylist(), embeddings_QD)


def query_shards(config: SearchConfig, frames: StepInput) -> list[Shard]:
    """One shard every `GROUP_QUERIES` rows of the table, or one for the query given by flags.

    Reads the ids only. Raises DataError when there is no query, no id, or the same id twice, and when the query given
    by flags cannot be used.
    """
    return [_flag_shard(config, frames)] if config.by_flags else table_shards(str(config.queries))


def table_shards(uri: str) -> list[Shard]:
    """One shard every `GROUP_QUERIES` rows of a queries table; DataError as `query_shards`."""
    shards: list[Shard] = []
    seen: Counter[str] = Counter()
    for folder, name in _query_files(uri):
        ids = _query_ids(folder, name)
        seen.update(ids)
        version = folder.identity(name)
        for start in range(0, len(ids), GROUP_QUERIES):
            rows = min(GROUP_QUERIES, len(ids) - start)
            payload = {"file": folder.path(name), "start": start, "rows": rows, "group": len(shards)}
            shards.append(Shard(make_shard_id("queries", payload, version), payload, rows_expected=rows))
    twice = [query_id for query_id, count in seen.items() if count > 1]
    if twice:
        raise DataError(
            f"{uri} has the same query_id more than once: {', '.join(map(repr, twice[:5]))}"
            f"{' and more' if len(twice) > 5 else ''}. Give every query its own id."
        )
    if not shards:
        raise DataError(f"{uri} holds no query. Give a table with at least one row.")
    return shards


def read_query_rows(shard: Shard) -> Iterator[dict[str, Any]]:
    """The rows of a queries shard, with every column of the queries schema."""
    payload = shard.payload
    if "flags" in payload:
        yield _flag_row(payload["flags"])
        return
    folder, name = split_uri(payload["file"])
    with folder.open_input(name) as stream:
        table = _rows_between(pq.ParquetFile(stream), payload["start"], payload["start"] + payload["rows"])
    for row in table.to_pylist():
        query = {field.name: row.get(field.name) for field in QUERIES}
        yield {**query, "query_id": str(row["query_id"])}


def query_input(row: dict[str, Any]) -> QueryInput:
    """What the models see of a query.

    Raises DataError when it has neither picture nor text, when a picture is broken, or when there is no such task.
    """
    what = f"query {row['query_id']!r}"
    image = decode_image(row["image"], what=what, is_upright=False) if row["image"] else None
    clothes = row.get("instruction_image")
    try:
        task = named_task(row["task"]) if row.get("task") else None
    except ConfigError as error:
        raise DataError(f"{what}: {error}") from error
    return QueryInput(
        row["query_id"], image, row["text"] or None, task=task, instruction=row.get("instruction") or None,
        clothes=decode_image(clothes, what=f"{what} (clothes)", is_upright=False) if clothes else None,
    )  # fmt: skip


def _reason(row: dict[str, Any]) -> str:
    """Why a query is set aside, in a word."""
    if not row["image"] and not (row["text"] or "").strip():
        return "no_image_and_no_text"
    try:
        query_input(row)
    except DataError:
        return "unknown_task" if row.get("task") and row["task"].lower() not in _TASK_NAMES else "undecodable_image"
    return "not_what_its_task_needs"


def _query_files(uri: str) -> list[tuple[Folder, str]]:
    """The Parquet files of a queries table: one file, the parts of a step, or every Parquet file of a folder."""
    folder, name = split_uri(uri)
    if folder.exists(name):
        return [(folder, name)]
    folder = Folder(uri)
    if folder.exists("step.json"):
        return [(folder, part.name) for part in Ledger.read(folder).parts()]
    names = [name for name in folder.list_files() if name.endswith(".parquet") and "/" not in name]
    if not names:
        raise DataError(
            f"there are no queries at {uri}: neither a Parquet file nor a folder with some. Check the path."
        )
    return [(folder, name) for name in names]


def _query_ids(folder: Folder, name: str) -> list[str]:
    source, schema = folder.path(name), folder.read_schema(name)
    require_table(schema, QUERIES, source=source)
    if "image" not in schema.names and "text" not in schema.names:
        raise DataError(f"{source} has neither a column `image` nor a column `text`; it has {schema.names}")
    ids = folder.read_table(name, ["query_id"])["query_id"]
    if ids.null_count:
        raise DataError(f"{source} has {ids.null_count} row(s) without a query_id. Give every query its own id.")
    return [str(query_id) for query_id in ids.to_pylist()]


def _rows_between(parquet: pq.ParquetFile, start: int, stop: int) -> pa.Table:
    """Rows [start, stop) of a file, from the row groups that hold them."""
    known = [name for name in QUERIES.names if name in parquet.schema_arrow.names]
    first_row, groups, skipped = 0, [], 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if first_row + rows <= start:
            skipped += rows
        elif first_row < stop:
            groups.append(group)
        first_row += rows
    return parquet.read_row_groups(groups, columns=known).slice(start - skipped, stop - start)


def _flag_shard(config: SearchConfig, frames: StepInput) -> Shard:
    """The shard of the query given by flags; a query that cannot be used is refused here.

    A picture travels inside: its file may lie on this machine alone.
    """
    flags: dict[str, Any] = {"query_id": config.query_id, "text": config.text}
    flags |= {name: value for name in ("task", "instruction") if (value := getattr(config, name)) is not None}
    for name in ("image", "clothes"):
        if (path := getattr(config, name)) is not None:
            folder, file = split_uri(path)
            flags[f"{name}_base64"] = base64.b64encode(folder.read_bytes(file)).decode()
    if config.frame is not None and config.box is not None:
        part = _part_of_frame(config.frame, frames)
        flags |= {"frames": frames.folder.uri, "part": part, "frame_id": config.frame, "box_xywh_px": list(config.box)}
    query = query_input(_flag_row(flags))
    if config.task is not None:
        asked_of(query)
    payload = {"flags": flags, "group": 0}
    return Shard(make_shard_id("queries", payload), payload, rows_expected=1)


def _flag_row(flags: dict[str, Any]) -> dict[str, Any]:
    row = dict.fromkeys(QUERIES.names) | {name: flags.get(name) for name in ("query_id", "text", "task", "instruction")}
    if "clothes_base64" in flags:
        row["instruction_image"] = base64.b64decode(flags["clothes_base64"])
    if "image_base64" in flags:
        return row | {"image": base64.b64decode(flags["image_base64"])}
    if "frame_id" not in flags:
        return row
    (table,) = read_frames(Folder(flags["frames"]), flags["part"], frame_ids=[flags["frame_id"]])
    frame = table.to_pylist()[0]
    image = decode_image(frame["image"], what=f"frame {flags['frame_id']!r}")
    box = box_xywh_to_xyxy(np.array(flags["box_xywh_px"], dtype=np.float32))
    cut = {"image": encode_png(crop(image, box)), "box_xyxy_px": box.tolist()}
    return row | cut | {"frame_id": frame["frame_id"], "camera_id": frame["camera_id"]}


def _part_of_frame(frame_id: str, frames: StepInput) -> str:
    """The part that holds a frame, found by reading ids only."""
    for part in frames.parts:
        if frame_id in frame_ids_of(frames.folder, part.name):
            return part.name
    raise ConfigError(
        f"there is no frame {frame_id!r} in {frames.folder.uri}. A frame_id looks like "
        f"{frame_ids_of(frames.folder, frames.parts[0].name)[0]!r}."
    )
