"""Every pair that some gallery asks for, once, with what is true of it. A shortlist that truth gives, not recall.

The judge reads it as it reads a search's shortlist; the scores read the truth beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from workflows.evaluate.benchmark import Benchmark
from workflows.evaluate.questions import Question
from workflows.ledger import Ledger
from workflows.schema import BOX, MASK_RLE, SHORTLIST
from workflows.storage import Folder

PAIRS = pa.schema(
    [
        *SHORTLIST,
        pa.field("is_present", pa.bool_(), nullable=False),  # the queried identity is in the frame
        pa.field("true_box_xyxy_px", BOX),  # null when absent
        pa.field("true_mask_rle", MASK_RLE),  # null when absent, or when the benchmark has no masks
    ]
)
ORDER = [("frames_part", "ascending"), ("frame_id", "ascending"), ("query_id", "ascending")]


@dataclass(frozen=True)
class TruePerson:
    """Where the queried person is."""

    box_xyxy_px: Sequence[float]
    mask_rle: Mapping[str, Any] | None


def pairs_table(benchmark: Benchmark, questions: Sequence[Question]) -> pa.Table:
    """PAIRS of all galleries, sorted by frames part for the judge that reads by part."""
    truth = _true_persons(benchmark)
    frames_of = benchmark.frames_of
    columns: dict[str, list[Any]] = {name: [] for name in PAIRS.names}
    for question in questions:
        identity = benchmark.queries[question.query_id]["identity"]
        for frame_id in frames_of[question.query_id]:
            person = truth.get((frame_id, identity))
            columns["query_id"].append(question.question_id)
            columns["frame_id"].append(frame_id)
            columns["frames_part"].append(benchmark.part_of[frame_id])
            columns["person_id"].append(None)
            columns["recall_score"].append(None)
            columns["is_present"].append(person is not None)
            columns["true_box_xyxy_px"].append(None if person is None else person.box_xyxy_px)
            columns["true_mask_rle"].append(None if person is None else person.mask_rle)
    return pa.table(columns, PAIRS).sort_by(ORDER)


def true_persons_of_part(pairs: Folder, frames_part: str) -> dict[tuple[str, str], TruePerson]:
    """(query_id, frame_id) -> the queried person, of the pairs of one frames part that hold it."""
    condition = (pc.field("frames_part") == frames_part) & pc.field("is_present")
    return {(row["query_id"], row["frame_id"]): person for row, person in _present(pairs, condition, with_masks=True)}


def read_true_persons(pairs: Folder) -> dict[str, dict[str, TruePerson]]:
    """query_id -> frame_id -> the queried person without its mask, of all pairs that hold it."""
    found: dict[str, dict[str, TruePerson]] = {}
    for row, person in _present(pairs, pc.field("is_present"), with_masks=False):
        found.setdefault(row["query_id"], {})[row["frame_id"]] = person
    return found


def _present(
    pairs: Folder, condition: pc.Expression, *, with_masks: bool
) -> Iterator[tuple[Mapping[str, Any], TruePerson]]:
    columns = ["query_id", "frame_id", "true_box_xyxy_px", *(["true_mask_rle"] if with_masks else [])]
    for part in Ledger.read(pairs).parts():
        for row in pairs.read_table(part.name, columns, condition).to_pylist():
            yield row, TruePerson(row["true_box_xyxy_px"], row.get("true_mask_rle"))


def _true_persons(benchmark: Benchmark) -> dict[tuple[str, str], TruePerson]:
    """(frame_id, identity) -> the person, for queried identities in the galleries' frames."""
    frame_ids = pa.array(sorted(benchmark.part_of), pa.string())
    identities = pa.array(sorted({row["identity"] for row in benchmark.queries.values()}), pa.string())
    return {
        (row["frame_id"], row["identity"]): TruePerson(row["box_xyxy_px"], row["mask_rle"])
        for table in _persons_by_part(benchmark, frame_ids)
        for row in table.filter(pc.is_in(table["identity"], value_set=identities)).to_pylist()
    }


def _persons_by_part(benchmark: Benchmark, frame_ids: pa.Array) -> Iterator[pa.Table]:
    """One row a person: frame_id, identity, box and mask."""
    for part in benchmark.truth.parts:
        condition = pc.field("frame_id").isin(frame_ids)
        frames = benchmark.truth.folder.read_table(part.name, ["frame_id", "persons"], condition)
        persons = frames["persons"].combine_chunks()
        flat = persons.flatten()
        yield pa.table(
            {
                "frame_id": frames["frame_id"].combine_chunks().take(pc.list_parent_indices(persons)),
                **{name: pc.struct_field(flat, name) for name in ("identity", "box_xyxy_px", "mask_rle")},
            }
        )
