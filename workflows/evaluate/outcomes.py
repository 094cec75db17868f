"""What came of each query in each gallery: its ranking, its decisions, its masks, as one row.

Everything is computed from the stored pairs, so another rule or another bootstrap costs no judging. Knows nothing of
models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modeling.metrics.retrieval import Ranking, average_precision, inverse_negative_penalty
from modeling.metrics.segmentation import PairAreas, Rule, is_counted, pair_areas
from workflows.index.inputs import StepInput
from workflows.ledger import Ledger

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class QueryPairs:
    """The pairs of one question, by frame_id. Numbers are NaN where a pair was not judged, or nothing was drawn."""

    frame_ids: Sequence[str]
    scores: FloatArray
    is_present: BoolArray
    is_accepted: BoolArray
    num_predicted_px: FloatArray
    num_true_px: FloatArray
    num_shared_px: FloatArray

    @classmethod
    def none(cls) -> "QueryPairs":
        """Of a gallery without frames."""
        numbers, flags = np.zeros(0), np.zeros(0, dtype=np.bool_)
        return cls([], numbers, flags, flags, numbers, numbers, numbers)

    def among(self, frame_ids: Sequence[str]) -> "QueryPairs":
        """Those whose frame is one of these."""
        chosen = set(frame_ids)
        kept = np.array([frame_id in chosen for frame_id in self.frame_ids], dtype=np.bool_)
        arrays = {name: getattr(self, name)[kept] for name in self.__dataclass_fields__ if name != "frame_ids"}
        return QueryPairs([frame_id for frame_id in self.frame_ids if frame_id in chosen], **arrays)

    @property
    def is_judged(self) -> BoolArray:
        return ~np.isnan(self.scores)

    def order(self) -> npt.NDArray[np.int64]:
        """Places of the judged pairs, best score first; ties go to the smaller frame_id."""
        places = np.flatnonzero(self.is_judged)
        return places[np.argsort(-self.scores[places], kind="stable")]

    def ranking(self) -> Ranking:
        """The judged frames, best first; a positive that was not judged is missed."""
        return Ranking(self.is_present[self.order()], num_missed=int((self.is_present & ~self.is_judged).sum()))

    def areas(self, *, min_mask_px: int) -> list[PairAreas]:
        """The pixels of the judged pairs whose truth is known: a benchmark may lack some masks."""
        return [
            pair_areas(
                num_predicted=_whole(self.num_predicted_px[i]),
                num_true=_whole(self.num_true_px[i]),
                num_shared=_whole(self.num_shared_px[i]),
                is_accepted=bool(self.is_accepted[i]),
                min_pixels=min_mask_px,
            )
            for i in np.flatnonzero(self.is_judged & ~np.isnan(self.num_true_px))
        ]


@dataclass(frozen=True)
class Outcome:
    """One question in one gallery. Rank counts from 1; pixels are summed over the pairs that count under the rule."""

    gallery: str
    query_id: str
    modality: str
    identity: str
    num_frames: int
    num_positives: int
    average_precision: float
    """NaN when the gallery has no positive: such a query is in no mean of retrieval."""
    inverse_negative_penalty: float
    first_rank: int | None
    """Of the best-placed positive; None when there is none, or none was judged."""
    num_not_judged: int = 0
    num_accepted: int = 0
    num_false_accepts: int = 0
    num_false_rejects: int = 0
    iou_sum: float = 0.0
    num_iou: int = 0
    shared_px: int = 0
    union_px: int = 0
    drawn_iou_sum: float = 0.0
    """Over positives, as if every one were accepted: what the masks alone are worth."""
    num_drawn: int = 0

    @property
    def is_scored(self) -> bool:
        return self.num_positives > 0

    def is_hit(self, rank: int) -> bool:
        """Whether a positive is among the first `rank` frames."""
        return self.first_rank is not None and self.first_rank <= rank


@dataclass(frozen=True)
class Asked:
    """Which question in which gallery an outcome is of."""

    gallery: str
    query_id: str
    modality: str
    identity: str


def outcome_of(pairs: QueryPairs, asked: Asked, *, rule: Rule, min_mask_px: int) -> Outcome:
    """The row of one question in one gallery; `pairs` are those of that gallery."""
    ranking = pairs.ranking()
    areas = [pair for pair in pairs.areas(min_mask_px=min_mask_px) if is_counted(pair, rule)]
    drawn = pairs.is_judged & (pairs.num_true_px > 0) & ~np.isnan(pairs.num_shared_px)
    union = (pairs.num_predicted_px + pairs.num_true_px - pairs.num_shared_px)[drawn]
    return replace(
        ranked_outcome(ranking, asked, num_frames=len(pairs.frame_ids)),
        num_not_judged=int((~pairs.is_judged).sum()),
        num_accepted=int(pairs.is_accepted.sum()),
        num_false_accepts=int((pairs.is_accepted & ~pairs.is_present).sum()),
        num_false_rejects=int((pairs.is_judged & ~pairs.is_accepted & pairs.is_present).sum()),
        iou_sum=float(sum(pair.iou for pair in areas)),
        num_iou=len(areas),
        shared_px=sum(pair.intersection for pair in areas),
        union_px=sum(pair.union for pair in areas),
        drawn_iou_sum=float((pairs.num_shared_px[drawn] / union).sum()),
        num_drawn=int(drawn.sum()),
    )


def ranked_outcome(ranking: Ranking, asked: Asked, *, num_frames: int) -> Outcome:
    """The row of one question where nothing but a ranking is known: no decisions and no masks."""
    first = np.flatnonzero(ranking.is_right)[:1]
    return Outcome(
        **vars(asked),
        num_frames=num_frames,
        num_positives=ranking.num_right,
        average_precision=average_precision(ranking) if ranking.counts else np.nan,
        inverse_negative_penalty=inverse_negative_penalty(ranking) if ranking.counts else np.nan,
        first_rank=int(first[0]) + 1 if first.size else None,
    )


def read_pairs(pairs: StepInput, measured: StepInput) -> Iterator[tuple[str, QueryPairs]]:
    """(question_id, its pairs with what was measured), by question. Holds some 60 bytes a pair in memory."""
    asked = Ledger.read(pairs.folder).read_table(["query_id", "frame_id", "is_present"])
    columns = ["query_id", "frame_id", "score", "is_accepted", "num_predicted_px", "num_true_px", "num_shared_px"]
    found = Ledger.read(measured.folder).read_table(columns)
    if not found.column_names:  # no frame at all
        return
    joined = asked.join(found, ["query_id", "frame_id"], join_type="left outer")
    joined = joined.sort_by([("query_id", "ascending"), ("frame_id", "ascending")]).combine_chunks()
    ids = joined["query_id"].to_numpy(zero_copy_only=False)
    edges = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1], True]) if len(ids) else np.zeros(0, int)
    for start, stop in pairwise(edges):
        yield ids[start], _query_pairs(joined.slice(start, stop - start))


def outcomes_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """One row an outcome; NaN becomes null."""
    rows = [{**vars(outcome), "rank_1": outcome.is_hit(1)} for outcome in outcomes]
    return pa.Table.from_pylist([{name: _or_null(value) for name, value in row.items()} for row in rows], OUTCOMES)


def _query_pairs(rows: pa.Table) -> QueryPairs:
    def numbers(name: str) -> FloatArray:
        return np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)

    return QueryPairs(
        frame_ids=rows["frame_id"].to_pylist(),
        scores=numbers("score"),
        is_present=rows["is_present"].to_numpy(zero_copy_only=False).astype(np.bool_),
        is_accepted=rows["is_accepted"].fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_),
        num_predicted_px=numbers("num_predicted_px"),
        num_true_px=numbers("num_true_px"),
        num_shared_px=numbers("num_shared_px"),
    )


def _whole(value: float) -> int:
    return 0 if np.isnan(value) else int(value)


def _or_null(value: object) -> object:
    return None if isinstance(value, float) and np.isnan(value) else value


OUTCOMES = pa.schema(
    [
        ("gallery", pa.string()), ("query_id", pa.string()), ("modality", pa.string()), ("identity", pa.string()),
        ("num_frames", pa.int32()), ("num_positives", pa.int32()), ("num_not_judged", pa.int32()),
        ("average_precision", pa.float64()), ("inverse_negative_penalty", pa.float64()), ("first_rank", pa.int32()),
        ("rank_1", pa.bool_()), ("num_accepted", pa.int32()), ("num_false_accepts", pa.int32()),
        ("num_false_rejects", pa.int32()), ("iou_sum", pa.float64()), ("num_iou", pa.int32()),
        ("shared_px", pa.int64()), ("union_px", pa.int64()), ("drawn_iou_sum", pa.float64()), ("num_drawn", pa.int32()),
    ]
)  # fmt: skip
"""The table of per-query rows."""
