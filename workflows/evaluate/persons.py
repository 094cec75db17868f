"""Person search by an embedding: every person of a gallery's frames, ranked by cosine. No judge, no decision.

The protocol is PRW's, as SeqNet's evaluation has it: in a frame that holds the identity, the best-scored person whose
box has IoU >= min(0.5, wh / ((w + 10)(h + 10))) with the true box (w x h pixels) is the hit; AP counts frames in which
there is none as missed. `frames` ranks the frames instead, each by its best person, to compare with the judge.

Shapes: N = persons of all galleries' frames; D = width of an embedding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modeling.metrics.retrieval import Ranking
from modeling.regions import box_iou
from workflows.evaluate.pairs import TruePerson
from workflows.index.inputs import StepInput
from workflows.ledger import Ledger
from workflows.search.recall import embedding_matrix

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Persons:
    """Everyone in the galleries' frames, by frame."""

    embeddings_ND: FloatArray
    boxes_N4: FloatArray
    rows_of: Mapping[str, npt.NDArray[np.int64]]
    """frame_id -> its rows; a frame without persons is missing."""

    @classmethod
    def read(cls, index: StepInput) -> "Persons":
        """The persons of an index step, sorted by frame and person so that ties have an order."""
        table = Ledger.read(index.folder).read_table(["frame_id", "person_id", "box_xyxy_px", "embedding"])
        if not table.num_rows:
            return cls(np.zeros((0, 1), np.float32), np.zeros((0, 4), np.float32), {})
        table = table.sort_by([("frame_id", "ascending"), ("person_id", "ascending")])
        ids = table["frame_id"].to_numpy()
        edges = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1], True])
        rows_of = {str(ids[start]): np.arange(start, stop) for start, stop in pairwise(edges)}
        boxes = np.array(table["box_xyxy_px"].to_pylist(), dtype=np.float32)
        return cls(embedding_matrix(table).astype(np.float32), boxes, rows_of)


def read_vectors(queries: StepInput) -> Iterator[tuple[str, FloatArray]]:
    """(question_id, its embedding)."""
    table: pa.Table = Ledger.read(queries.folder).read_table(["query_id", "embedding"])
    vectors = embedding_matrix(table).astype(np.float32)
    yield from zip(table["query_id"].to_pylist(), vectors, strict=True)


def rank_persons(
    persons: Persons, vector_D: FloatArray, frame_ids: Sequence[str], true: Mapping[str, TruePerson]
) -> Ranking:
    """One query's ranking of the persons of some frames; `true` says where the query is, by frame_id."""
    scores, is_hit, num_missed = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)], 0
    for frame_id in sorted(frame_ids):
        rows = persons.rows_of.get(frame_id, np.zeros(0, np.int64))
        of_frame = persons.embeddings_ND[rows] @ vector_D if rows.size else np.zeros(0, np.float32)
        hits = np.zeros(len(rows), np.bool_)
        if frame_id in true:
            found = _find(persons.boxes_N4[rows], of_frame, true[frame_id].box_xyxy_px)
            num_missed += found is None
            hits[[] if found is None else [found]] = True
        scores.append(of_frame)
        is_hit.append(hits)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return Ranking(np.concatenate(is_hit)[order], num_missed=num_missed)


def rank_frames(
    persons: Persons, vector_D: FloatArray, frame_ids: Sequence[str], true: Mapping[str, TruePerson]
) -> Ranking:
    """One query's ranking of frames, each by its best person; frames without a person come last."""
    ordered = sorted(frame_ids)
    best = np.array(
        [
            (persons.embeddings_ND[persons.rows_of[frame_id]] @ vector_D).max() if frame_id in persons.rows_of else -2.0
            for frame_id in ordered
        ]
    )
    is_right = np.array([frame_id in true for frame_id in ordered], dtype=np.bool_)
    return Ranking(is_right[np.argsort(-best, kind="stable")])


def _find(boxes_N4: FloatArray, scores_N: FloatArray, true_box: Sequence[float]) -> int | None:
    """The best-scored person whose box shows the true one; None when none does."""
    width, height = true_box[2] - true_box[0], true_box[3] - true_box[1]
    needed = min(0.5, width * height / ((width + 10) * (height + 10)))
    is_near = box_iou(boxes_N4, np.array([true_box], dtype=np.float32))[:, 0] >= needed
    places = np.flatnonzero(is_near)
    return int(places[np.argmax(scores_N[places])]) if places.size else None
