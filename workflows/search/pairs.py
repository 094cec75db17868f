"""Which queries are judged on which frame: from the shortlist, or all of them. A query never meets its own frame."""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow.compute as pc

from workflows.ledger import Ledger
from workflows.search.queries import QueryList
from workflows.storage import Folder

RecallScores = Mapping[str, float | None]
"""query_id -> recall score of one frame; None where recall was off."""


class PartPairs:
    """The pairs of some frames parts."""

    def __init__(self, query_ids: list[str], by_frame: Mapping[str, RecallScores] | None) -> None:
        """`by_frame` None pairs every frame with every query."""
        self.query_ids = query_ids
        self._by_frame = by_frame
        self._everyone = dict.fromkeys(query_ids)

    @property
    def frame_ids(self) -> Iterable[str] | None:
        """The frames with pairs; None for every frame of the parts."""
        return None if self._by_frame is None else self._by_frame.keys()

    def of_frame(self, frame_id: str) -> RecallScores:
        return self._everyone if self._by_frame is None else self._by_frame.get(frame_id, {})


class PairSource:
    """Reads pairs for a few frames parts at a time; holds the queries' ids, not their pictures."""

    def __init__(self, *, queries_uri: str, shortlist_uri: str | None) -> None:
        """`shortlist_uri` None pairs every frame with every query."""
        queries = QueryList.read(queries_uri, with_embeddings=False)
        self.query_ids = queries.query_ids
        self.group_of = dict(zip(queries.query_ids, queries.groups_Q.tolist(), strict=True))
        self._own_frame = dict(zip(queries.query_ids, queries.own_frames, strict=True))
        self._shortlist = Folder(shortlist_uri) if shortlist_uri else None
        self._parts = [part.name for part in Ledger.read(self._shortlist).parts()] if self._shortlist else []

    def of_parts(self, frames_parts: Sequence[str]) -> PartPairs:
        """The pairs of these frames parts; a shortlist is sorted by part, so that only their row groups are read."""
        if self._shortlist is None:
            return PartPairs(self.query_ids, None)
        by_frame: dict[str, dict[str, float | None]] = {}
        queries: dict[str, None] = {}
        condition = pc.field("frames_part").isin(frames_parts)
        for part in self._parts:
            rows = self._shortlist.read_table(part, ["query_id", "frame_id", "recall_score"], condition)
            for query_id, frame_id, score in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                by_frame.setdefault(frame_id, {})[query_id] = score
                queries[query_id] = None
        return PartPairs(list(queries), by_frame)

    def is_own_frame(self, query_id: str, frame_id: str) -> bool:
        """Whether the query was cut from this very frame."""
        return self._own_frame[query_id] == frame_id


def pairs_by_part(shortlist_uri: str) -> dict[str, int]:
    """frames part -> number of shortlisted pairs in it, reading one column a shortlist part at a time."""
    counts: dict[str, int] = {}
    folder = Folder(shortlist_uri)
    for part in Ledger.read(folder).parts():
        for entry in folder.read_table(part.name, ["frames_part"])["frames_part"].value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts
