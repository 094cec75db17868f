"""The pairs of the galleries of one frames part: judged, drawn, and measured against the truth. Knows nothing of Ray.

JudgeGalleries -> SegmentPairs (the search's own) -> MeasurePairs. Masks are drawn for pairs that the judge accepts, or
that hold the queried person, and are gone once their pixels are counted.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modeling.regions import BoolArray, rle_to_mask
from workflows.evaluate.pairs import TruePerson, true_persons_of_part
from workflows.ledger import Shard
from workflows.schema import BOX
from workflows.search.judge import JudgePairs
from workflows.search.tables import JUDGED, PROMPTED
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder

MEASURED = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("frame_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # logit[SEG] - logit[REJ]
        pa.field("is_accepted", pa.bool_(), nullable=False),
        pa.field("box_xyxy_px", BOX),  # where the judge points
        pa.field("num_predicted_px", pa.int64()),  # of the mask; null where none was drawn
        pa.field("num_true_px", pa.int64()),  # 0 when the person is absent; null when the benchmark has no mask
        pa.field("num_shared_px", pa.int64()),  # of both masks; null where either is
    ]
)


class JudgeGalleries:
    """A frames part -> its galleries' pairs, judged; those accepted or true carry a prompt. The source of the step."""

    reads: tuple[str, ...] = ()
    writes = tuple(PROMPTED.names)
    resources = Resources(cpus=1)

    def __init__(self, *, pairs_uri: str, threshold: float, **judging: Any) -> None:
        """`judging` are the arguments of the search's `JudgePairs`, whose shortlist these pairs are."""
        self._pairs = Folder(pairs_uri)
        self._threshold = threshold
        self._judge_pairs = JudgePairs(shortlist_uri=pairs_uri, threshold=-math.inf, keep_rejects=True, **judging)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        judged = self._judge_pairs(batch)
        (part,) = batch.shard.payload["parts"]
        return judged.with_table(self._decide(judged.table, part))

    def plan_rows(self, shard: Shard) -> list[Shard]:
        return self._judge_pairs.plan_rows(shard)

    def _decide(self, table: pa.Table, part: str) -> pa.Table:
        """The threshold's decision, and prompts only where a mask is needed."""
        true = true_persons_of_part(self._pairs, part)
        keys = zip(table["query_id"].to_pylist(), table["frame_id"].to_pylist(), strict=True)
        is_present = pa.array([key in true for key in keys], pa.bool_())
        is_accepted = pc.greater(table["score"], pa.scalar(self._threshold, pa.float32()))
        is_drawn = pc.or_(is_accepted, is_present)
        prompts = table["prompt_embedding"].combine_chunks()
        kept = prompts.take(pc.if_else(is_drawn, pa.array(np.arange(len(prompts))), None).combine_chunks())
        decisions = pc.if_else(is_accepted, "match", "reject")
        return _with(_with(table, "decision", decisions), "prompt_embedding", kept).cast(PROMPTED)


class MeasurePairs:
    """Judged pairs with masks -> their pixels counted against the truth."""

    reads = tuple(JUDGED.names)
    writes = tuple(MEASURED.names)
    row_id_column = "frame_id"
    resources = Resources(cpus=1)

    def __init__(self, *, pairs_uri: str) -> None:
        self._pairs = Folder(pairs_uri)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        (part,) = batch.shard.payload["parts"]
        true = true_persons_of_part(self._pairs, part)
        rows = [_measured(row, true.get((row["query_id"], row["frame_id"]))) for row in batch.table.to_pylist()]
        return batch.with_table(pa.Table.from_pylist(rows, MEASURED))


def _measured(row: Mapping[str, Any], person: TruePerson | None) -> dict[str, Any]:
    predicted = None if row["mask_rle"] is None else rle_to_mask(row["mask_rle"])
    true = None if person is None or person.mask_rle is None else rle_to_mask(person.mask_rle)
    has_no_mask = person is not None and true is None
    return {
        **{name: row[name] for name in ("query_id", "frame_id", "score", "box_xyxy_px")},
        "is_accepted": row["decision"] == "match",
        "num_predicted_px": _num_pixels(predicted),
        "num_true_px": None if has_no_mask else (_num_pixels(true) or 0),
        "num_shared_px": None if predicted is None or true is None else _num_pixels(predicted & true),
    }


def _num_pixels(mask_HW: BoolArray | None) -> int | None:
    return None if mask_HW is None else int(np.count_nonzero(mask_HW))


def _with(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
