"""Which rows of a search a page shows, and what each query came to. Two passes over the matches, a part at a time.

All rows of a query lie in one part of the matches (the search ranks them there), so a tally is complete within a part.
Memory: one part, plus a small tally per query, plus the shown rows, which `max_shown` bounds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.index.inputs import StepInput
from workflows.report.config import ReportConfig
from workflows.report.inputs import ReportInputs, query_order
from workflows.report.sightings import number_sightings
from workflows.schema import MATCHES

TALLY_COLUMNS = ("query_id", "decision", "score", "rank", "camera_id", "video_uri", "timestamp_s", "frame_id")
NEAR_SHARE = 0.25  # of `max_shown`: near misses of all queries together

SHOWN = pa.schema(
    [
        pa.field("query_number", pa.int32()),  # place of the query in the list of queries
        pa.field("is_near", pa.bool_()),
        pa.field("number", pa.int32()),  # 0 is the best of its query and kind
        pa.field("sighting", pa.int32()),  # null for a near miss
        *MATCHES,
    ]
)
"""The rows of a page, sorted by the first three columns."""


@dataclass(frozen=True)
class Best:
    """The highest score among a query's rejects, and where."""

    score: float
    camera_id: str
    frame_id: str


@dataclass(frozen=True)
class Tally:
    """What one query came to, over all its matches (shown or not)."""

    matches: int = 0
    rejects: int = 0
    cameras: tuple[str, ...] = ()
    sightings: int = 0
    first_s: float | None = None
    last_s: float | None = None
    first_camera: str | None = None
    last_camera: str | None = None
    best_reject: Best | None = None


@dataclass(frozen=True)
class Selection:
    """What a report shows."""

    query_ids: Sequence[str]
    """In the order in which they were given."""
    texts: Sequence[str | None]
    tallies: Sequence[Tally]
    """One per query."""
    shown: pa.Table
    """SHOWN."""

    @property
    def matches(self) -> int:
        return sum(tally.matches for tally in self.tallies)

    @property
    def pictures(self) -> int:
        """Matches, near misses and queries that want a picture on the page, at most."""
        return self.shown.num_rows + len(self.query_ids)

    def shown_matches(self, query_number: int) -> int:
        mine = pc.and_(pc.equal(self.shown["query_number"], query_number), pc.invert(self.shown["is_near"]))
        return pc.sum(mine).as_py() or 0


def select(config: ReportConfig, inputs: ReportInputs) -> Selection:
    """Counts every match and chooses the rows of the page."""
    queries = query_order(inputs)
    query_ids = queries["query_id"].to_pylist()
    tallies = tally_queries(inputs.matches, gap_s=config.sighting_gap_s)
    ordered = [tallies.get(query_id, Tally()) for query_id in query_ids]
    shown = select_shown(
        inputs.matches,
        {query_id: number for number, query_id in enumerate(query_ids)},
        per_query=shown_per_query([tally.matches for tally in ordered], config.max_shown),
        near=near_per_query(len(query_ids), config.near_misses, config.max_shown),
        gap_s=config.sighting_gap_s,
    )
    return Selection(query_ids, queries["text"].to_pylist(), ordered, shown)


def tally_queries(matches: StepInput, *, gap_s: float) -> dict[str, Tally]:
    """The tally of every query that has at least one judged pair."""
    tallies: dict[str, Tally] = {}
    for part in matches.parts:
        table = matches.folder.read_table(part.name, TALLY_COLUMNS)
        for query_id, rows in _by_query(table):
            tallies[query_id] = _tally(rows, gap_s)
    return tallies


def shown_per_query(counts: Sequence[int], max_shown: int) -> int:
    """The largest number of matches that every query may show so that all together stay within `max_shown`."""
    if sum(counts) <= max_shown:
        return max(counts, default=0)
    low, high = 0, max_shown
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(count, middle) for count in counts) <= max_shown else (low, middle - 1)
    return max(low, 1)


def near_per_query(num_queries: int, near_misses: int, max_shown: int) -> int:
    """Near misses of one query: `near_misses`, or fewer so that those of all queries stay a small share of the page."""
    return min(near_misses, int(NEAR_SHARE * max_shown) // max(num_queries, 1))


def select_shown(
    matches: StepInput, query_numbers: Mapping[str, int], *, per_query: int, near: int, gap_s: float
) -> pa.Table:
    """SHOWN: the `per_query` best matches and the `near` best rejects of each query."""
    chosen: list[pa.Table] = []
    for part in matches.parts:
        table = matches.folder.read_table(part.name, MATCHES.names)
        for query_id, rows in _by_query(table):
            if query_id not in query_numbers:
                continue
            is_match = pc.equal(rows["decision"], "match")
            best = best_first(rows.filter(is_match))
            misses = best_first(rows.filter(pc.and_(pc.invert(is_match), pc.is_finite(rows["score"]))))
            sightings = pa.array(_sighting_numbers(best, gap_s), pa.int32())
            number = query_numbers[query_id]
            chosen.append(_numbered(best.slice(0, per_query), number, sightings.slice(0, per_query), is_near=False))
            chosen.append(_numbered(misses.slice(0, near), number, None, is_near=True))
    order = [("query_number", "ascending"), ("is_near", "ascending"), ("number", "ascending")]
    return pa.concat_tables(chosen or [SHOWN.empty_table()]).sort_by(order)


def best_first(table: pa.Table) -> pa.Table:
    """Rows by rank, then score; unranked rows last. Ties fall in order of frame_id, so that the result is one only."""
    return table.sort_by([("rank", "ascending"), ("score", "descending"), ("frame_id", "ascending")])


def _numbered(rows: pa.Table, query_number: int, sightings: pa.Array | None, *, is_near: bool) -> pa.Table:
    length = rows.num_rows
    columns = [
        pa.array(np.full(length, query_number), pa.int32()),
        pa.array(np.full(length, is_near), pa.bool_()),
        pa.array(np.arange(length), pa.int32()),
        pa.nulls(length, pa.int32()) if sightings is None else sightings,
        *(rows[name] for name in MATCHES.names),
    ]
    return pa.table(columns, schema=SHOWN)


def _by_query(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """(query_id, its rows), in order of first appearance."""
    for query_id in pc.unique(table["query_id"]).to_pylist():
        yield query_id, table.filter(pc.equal(table["query_id"], query_id))


def _tally(rows: pa.Table, gap_s: float) -> Tally:
    is_match = pc.equal(rows["decision"], "match")
    found, rejects = rows.filter(is_match), rows.filter(pc.invert(is_match))
    moments = found.filter(pc.is_valid(found["timestamp_s"])).sort_by([("timestamp_s", "ascending")])
    has_time = moments.num_rows > 0
    return Tally(
        matches=found.num_rows,
        rejects=rejects.num_rows,
        cameras=tuple(sorted(pc.unique(found["camera_id"]).to_pylist())),
        sightings=len(np.unique(_sighting_numbers(found, gap_s))),
        first_s=moments["timestamp_s"][0].as_py() if has_time else None,
        last_s=moments["timestamp_s"][-1].as_py() if has_time else None,
        first_camera=moments["camera_id"][0].as_py() if has_time else None,
        last_camera=moments["camera_id"][-1].as_py() if has_time else None,
        best_reject=_best_reject(rejects),
    )


def _best_reject(rejects: pa.Table) -> Best | None:
    finite = best_first(rejects.filter(pc.is_finite(rejects["score"])))
    if not finite.num_rows:
        return None
    row = finite.select(["score", "camera_id", "frame_id"]).slice(0, 1).to_pylist()[0]
    return Best(row["score"], row["camera_id"], row["frame_id"])


def _sighting_numbers(rows: pa.Table, gap_s: float) -> npt.NDArray[np.int64]:
    """(N,) the sighting of each row; rows without a time, such as photographs, each stand alone."""
    lanes = pc.binary_join_element_wise(rows["camera_id"], rows["video_uri"], "\n")
    codes_N = np.unique(lanes.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
    times_N = pc.fill_null(rows["timestamp_s"], float("nan")).to_numpy()
    return number_sightings(codes_N.astype(np.int64), times_N, gap_s)
