"""The tables that search's steps hand to one another, and what it writes when it stops after recall.

`query_group` numbers the parts of OUT/queries: tables sorted by it let a reader of one group skip the rest.
"""

import pyarrow as pa

from workflows.schema import BOX, EMBEDDING_TYPE, MATCHES, QUERIES, SHORTLIST

QUERY_GROUP = pa.field("query_group", pa.int32(), nullable=False)

RECALL = pa.schema([QUERY_GROUP, *SHORTLIST])
"""The best frames of each query among some index parts."""

JUDGED = pa.schema([QUERY_GROUP, *MATCHES])
"""Matches and rejects of one frames part, not yet ranked."""

PROMPTED = JUDGED.append(pa.field("prompt_embedding", pa.list_(pa.float32())))
"""Judged pairs on their way to the segmenter; the embedding is null for a reject."""

RANKED_PERSONS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("frame_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("person_id", pa.string(), nullable=False),
        pa.field("box_xyxy_px", BOX, nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # cosine in [-1, 1]
    ]
)
"""One row a query and person, best first within a query: the output of a search that stops after recall."""


def prepared_queries_schema(dim: int | None) -> pa.Schema:
    """Queries as the steps after the first read them; no embedding column when recall is off (`dim` None)."""
    schema = QUERIES.append(QUERY_GROUP)
    if dim is not None:
        schema = schema.append(pa.field("embedding", pa.list_(EMBEDDING_TYPE, dim), nullable=False))
    return schema.with_metadata(QUERIES.metadata)
