"""The last step of a search: everything found for one query group, best first. Knows nothing of Ray."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modeling.errors import DataError
from workflows.index.filter import FrameFilter
from workflows.ledger import Ledger
from workflows.schema import MATCHES
from workflows.search.queries import QueryList
from workflows.search.recall import embedding_matrix, place_in_query
from workflows.search.tables import JUDGED, RANKED_PERSONS
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder

BEST_FIRST = [
    ("query_id", "ascending"),
    ("score", "descending"),
    ("recall_score", "descending"),  # nulls last
    ("frame_id", "ascending"),
]


class RankMatches:
    """The judged pairs of one query group -> matches in order of score, with ranks from 1."""

    reads: tuple[str, ...] = ()
    writes = tuple(MATCHES.names)
    resources = Resources(cpus=1)

    def __init__(self, *, judged_uri: str) -> None:
        self._judged = Folder(judged_uri)
        self._parts = [part.name for part in Ledger.read(self._judged).parts() if part.rows]

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        of_group = pc.field("query_group") == batch.shard.payload["group"]
        tables = [self._judged.read_table(part, JUDGED.names, of_group).cast(JUDGED) for part in self._parts]
        ranked = pa.concat_tables([JUDGED.empty_table(), *tables]).sort_by(BEST_FIRST).combine_chunks()
        ranks = pa.array(place_in_query(ranked) + 1, pa.int32())
        ranked = ranked.set_column(ranked.schema.get_field_index("rank"), "rank", ranks)
        return batch.with_table(ranked.select(MATCHES.names).cast(MATCHES))


class RankPersons:
    """The shortlist of one query group -> every person of its frames with its cosine: search stopped after recall."""

    reads: tuple[str, ...] = ()
    writes = tuple(RANKED_PERSONS.names)
    resources = Resources(cpus=1)

    def __init__(self, *, index_uri: str, queries_uri: str, shortlist_uri: str, frame_filter: FrameFilter) -> None:
        self._index = Folder(index_uri)
        self._index_parts = [part.name for part in Ledger.read(self._index).parts() if part.rows]
        self._queries = QueryList.read(queries_uri, with_embeddings=True)
        self._shortlist = Folder(shortlist_uri)
        self._filter = frame_filter

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        shortlist = self._shortlist.read_table(batch.shard.payload["part"], ["query_id", "frame_id", "frames_part"])
        tables = [RANKED_PERSONS.empty_table()]
        for part in self._index_parts:
            persons = self._read_persons(part, shortlist["frames_part"])
            if persons.num_rows:
                tables.append(self._score(persons, shortlist))
        order = [
            ("query_id", "ascending"),
            ("score", "descending"),
            ("frame_id", "ascending"),
            ("person_id", "ascending"),
        ]
        return batch.with_table(pa.concat_tables(tables).sort_by(order))

    def _read_persons(self, part: str, frames_parts: pa.ChunkedArray) -> pa.Table:
        """The persons of an index part, none when the shortlist does not name its frames part."""
        condition = pc.field("frames_part").isin(frames_parts.unique())
        wanted = self._filter.expression()
        columns = ["frame_id", "person_id", "box_xyxy_px", "embedding"]
        return self._index.read_table(part, columns, condition if wanted is None else condition & wanted)

    def _score(self, persons: pa.Table, shortlist: pa.Table) -> pa.Table:
        """One row a shortlisted (query, frame) and person of that frame."""
        import torch  # here: the driver, which may find everything complete, need not wait for it

        from modeling.topk import cosine_scores

        assert self._queries.embeddings_QD is not None, "queries were read without embeddings"
        here = shortlist.filter(
            pc.is_in(shortlist["frame_id"], value_set=persons["frame_id"].combine_chunks().unique())
        )
        number_of = {query_id: number for number, query_id in enumerate(self._queries.query_ids)}
        frames = persons["frame_id"].combine_chunks().dictionary_encode()
        query_P = np.array([number_of[query_id] for query_id in here["query_id"].to_pylist()], dtype=np.int64)
        frame_P = pc.index_in(here["frame_id"], value_set=frames.dictionary).to_numpy()
        asked_Q, row_P = np.unique(query_P, return_inverse=True)
        is_asked_QF = np.zeros((len(asked_Q), len(frames.dictionary)), dtype=bool)
        is_asked_QF[row_P, frame_P] = True
        query_of_row, person_of_row = is_asked_QF[:, frames.indices.to_numpy()].nonzero()
        queries_QD = torch.from_numpy(self._queries.embeddings_QD[asked_Q])
        scores_QN = cosine_scores(queries_QD, torch.from_numpy(embedding_matrix(persons))).numpy()
        query_ids = pa.array(self._queries.query_ids, pa.string()).take(pa.array(asked_Q[query_of_row]))
        rows = persons.select(["frame_id", "person_id", "box_xyxy_px"]).take(pa.array(person_of_row))
        rows = rows.append_column("query_id", query_ids)
        rows = rows.append_column("frame_index", frame_indexes(rows["frame_id"]))
        rows = rows.append_column("score", pa.array(scores_QN[query_of_row, person_of_row], pa.float32()))
        return rows.select(RANKED_PERSONS.names).cast(RANKED_PERSONS)


def frame_indexes(frame_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The frame's number in its source video, which a frame_id ends with: "camera/video#index"."""
    indexes = pc.struct_field(pc.extract_regex(frame_ids, r"#(?P<index>\d+)$"), "index")
    if indexes.null_count:
        bad = frame_ids.filter(pc.is_null(indexes))[0].as_py()
        raise DataError(f"frame_id {bad!r} does not end with '#' and the frame's number, as every frame_id should")
    return pc.cast(indexes, pa.int64())
