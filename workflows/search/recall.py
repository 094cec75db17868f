"""Recall: the exact top-k frames of every query by the cosine of its best person there, over the whole archive.

Two steps, neither of which holds more than a bounded number of rows: `RecallFrames` takes some index parts and a block
of query groups and keeps the best k frames a query; `MergeShortlist` merges what those shards kept for one query group.
What is merged is exact whatever the sharding, because scores are exact (`modeling/topk.py`) and ties go to the smaller
frame_id. Knows nothing of Ray.

Shapes: Q queries, N persons, F frames, K kept per query, D width of an embedding.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.index.filter import FrameFilter
from workflows.index.inputs import StepInput
from workflows.ledger import PartInfo, Shard, make_shard_id
from workflows.schema import SHORTLIST
from workflows.search.queries import GROUP_QUERIES, QueryList
from workflows.search.tables import RECALL
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder

SHARD_PERSONS = 32_768  # embeddings of one recall shard: 50 MB at width 768
SHARD_ROWS = 1 << 19  # (query, frame) rows that one recall shard may give: 40 MB
INDEX_COLUMNS = ("frame_id", "person_id", "frames_part", "embedding")


class RecallFrames:
    """Some index parts x a block of queries -> each query's best frames among them, as RECALL rows."""

    reads: tuple[str, ...] = ()
    writes = tuple(RECALL.names)
    resources = Resources(cpus=1)

    def __init__(self, *, index_uri: str, queries_uri: str, shortlist_size: int, frame_filter: FrameFilter) -> None:
        self._index = Folder(index_uri)
        self._queries = QueryList.read(queries_uri, with_embeddings=True)
        self._shortlist_size = shortlist_size
        self._filter = frame_filter

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        payload = batch.shard.payload
        chosen = np.isin(self._queries.groups_Q, payload["groups"])
        persons = self._read_persons(payload["parts"])
        if not persons.num_rows or not chosen.any():
            return batch.with_table(RECALL.empty_table())
        return batch.with_table(self._best_frames(np.flatnonzero(chosen), persons))

    def _read_persons(self, parts: Sequence[str]) -> pa.Table:
        """Persons of these parts sorted by frame_id, so that the number of a frame is its place among equals."""
        condition = self._filter.expression()
        tables = [self._index.read_table(part, INDEX_COLUMNS, condition) for part in parts]
        return pa.concat_tables(tables).sort_by([("frame_id", "ascending"), ("person_id", "ascending")])

    def _best_frames(self, chosen_Q: np.ndarray, persons: pa.Table) -> pa.Table:
        import torch  # here: the driver, which may find everything complete, need not wait for it

        from modeling.topk import top_k_frames

        frame_ids = persons["frame_id"].combine_chunks().dictionary_encode()
        frame_N, names = frame_ids.indices.to_numpy(), frame_ids.dictionary  # sorted, because the rows are
        own_Q = [self._queries.own_frames[q] for q in chosen_Q]
        excluded_Q = pc.fill_null(pc.index_in(pa.array(own_Q, pa.string()), value_set=names), -1)
        found = top_k_frames(
            torch.from_numpy(self._embeddings[chosen_Q]),
            torch.from_numpy(embedding_matrix(persons)),
            torch.from_numpy(frame_N.astype(np.int64)),
            num_frames=len(names),
            k=self._shortlist_size,
            excluded_frame_Q=torch.from_numpy(excluded_Q.to_numpy().astype(np.int64)),
        )
        query_of_row, slot = (found.frames_QK >= 0).numpy().nonzero()
        person_of_row = found.persons_QK.numpy()[query_of_row, slot]
        query_of_row = chosen_Q[query_of_row]
        columns = persons.select(["frame_id", "frames_part", "person_id"]).take(person_of_row)
        table = columns.add_column(0, "query_id", pa.array(self._queries.query_ids, pa.string()).take(query_of_row))
        table = table.add_column(0, "query_group", pa.array(self._queries.groups_Q[query_of_row], pa.int32()))
        scores = found.scores_QK.numpy()[found.frames_QK.numpy() >= 0]
        return table.append_column("recall_score", pa.array(scores, pa.float32())).select(RECALL.names).cast(RECALL)

    @property
    def _embeddings(self) -> np.ndarray:
        assert self._queries.embeddings_QD is not None, "queries were read without embeddings"
        return self._queries.embeddings_QD


class MergeShortlist:
    """What recall kept for one query group -> its shortlist, sorted by frames part for the judge that reads by part."""

    reads: tuple[str, ...] = ()
    writes = tuple(SHORTLIST.names)
    resources = Resources(cpus=1)

    def __init__(self, *, recall_uri: str, shortlist_size: int) -> None:
        self._recall = Folder(recall_uri)
        self._shortlist_size = shortlist_size

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        best = SHORTLIST.empty_table()
        for part in batch.shard.payload["parts"]:
            of_group = pc.field("query_group") == batch.shard.payload["group"]
            more = self._recall.read_table(part, SHORTLIST.names, of_group)
            best = best_rows(pa.concat_tables([best, more.cast(SHORTLIST)]), self._shortlist_size)
        return batch.with_table(
            best.sort_by([("frames_part", "ascending"), ("frame_id", "ascending"), ("query_id", "ascending")])
        )


def best_rows(rows: pa.Table, count: int) -> pa.Table:
    """The first `count` rows of each query by recall score, ties to the smaller frame_id."""
    ranked = rows.sort_by([("query_id", "ascending"), ("recall_score", "descending"), ("frame_id", "ascending")])
    return ranked.filter(pa.array(place_in_query(ranked) < count))


def place_in_query(rows: pa.Table) -> np.ndarray:
    """(rows,) the place of each row within its query, from 0; rows are sorted by query_id."""
    codes = rows["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    is_first = np.ones(len(codes), dtype=bool)
    is_first[1:] = codes[1:] != codes[:-1]
    place = np.arange(len(codes))
    return place - np.maximum.accumulate(np.where(is_first, place, 0))


def embedding_matrix(persons: pa.Table) -> np.ndarray:
    """(N, D) float16 of an `embedding` column, copied: torch wants memory that it may write to."""
    column = persons["embedding"].combine_chunks()
    return np.array(column.flatten().to_numpy().reshape(len(column), column.type.list_size))


def recall_shards(index: StepInput, queries: StepInput, num_groups: int, shortlist_size: int) -> list[Shard]:
    """Runs of index parts, bounded by their persons, x blocks of query groups, bounded by the rows they can give."""
    shards = []
    for parts in _runs_of_parts(index.parts):
        names, persons = [part.name for part in parts], sum(part.rows for part in parts)
        rows_per_group = GROUP_QUERIES * min(shortlist_size, persons)
        block = max(1, SHARD_ROWS // rows_per_group)
        for first in range(0, num_groups, block):
            groups = list(range(first, min(first + block, num_groups)))
            shard_id = make_shard_id("recall", names, groups, index.digest, queries.digest)
            shards.append(Shard(shard_id, {"parts": names, "groups": groups}))
    return shards


def shortlist_shards(recall: StepInput, shards: Sequence[Shard], num_groups: int) -> list[Shard]:
    """One shard a query group, over the recall parts that hold rows of it."""
    filled = {part.shard_id: part.name for part in recall.parts}
    merged = []
    for group in range(num_groups):
        parts = [
            filled[shard.shard_id] for shard in shards if group in shard.payload["groups"] and shard.shard_id in filled
        ]
        merged.append(Shard(make_shard_id("shortlist", group, recall.digest), {"group": group, "parts": parts}))
    return merged


def _runs_of_parts(parts: Sequence[PartInfo]) -> list[list[PartInfo]]:
    """Neighbouring parts together, up to `SHARD_PERSONS` persons (a larger part stays alone)."""
    runs: list[list[PartInfo]] = []
    persons = 0
    for part in parts:
        if not runs or persons + part.rows > SHARD_PERSONS:
            runs.append([])
            persons = 0
        runs[-1].append(part)
        persons += part.rows
    return runs
