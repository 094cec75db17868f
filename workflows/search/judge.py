"""Judges the pairs of frames parts: decodes only the frames with pairs, keeps the queries' prefixes in the worker.

Knows nothing of Ray. Pairs stay nested under their shard: one shard is one part of the frames table, or a few with
few pairs each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from modeling.errors import DataError
from modeling.types import PairDecision, TargetInput
from workflows.index.filter import FrameFilter
from workflows.index.frames import decode_image, frame_ids_of, person_boxes, read_frames, set_frame_aside
from workflows.ledger import Shard
from workflows.schema import MATCHES
from workflows.search.cache import QueryCache
from workflows.search.pairs import PairSource, PartPairs
from workflows.search.tables import PROMPTED
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder

if TYPE_CHECKING:
    from modeling.judging import EncodedAlone, PairJudge

SCORE_DECIMALS = 4  # stored; what lies beyond is float noise of batching and threads
FRAME_FIELDS = ("frame_id", "camera_id", "video_uri", "frame_index", "timestamp_s", "recorded_at", "width", "height")
FRAME_SCHEMA = pa.schema([MATCHES.field(name) for name in FRAME_FIELDS])
ORDER = [("query_group", "ascending"), ("query_id", "ascending"), ("frame_index", "ascending")]

Target = tuple[Mapping[str, Any], TargetInput]
"""A frame's fields, its part among them, and what the judge sees of it."""


class JudgePairs:
    """Frames parts -> their judged pairs, the accepted ones with a prompt for the segmenter. The source of judging."""

    reads: tuple[str, ...] = ()
    writes = tuple(PROMPTED.names)
    resources = Resources(cpus=1)

    def __init__(
        self,
        *,
        frames_uri: str,
        queries_uri: str,
        shortlist_uri: str | None,
        load_judge: "Callable[[], PairJudge]",
        frame_filter: FrameFilter,
        threshold: float,
        keep_rejects: bool,
        targets_per_batch: int,
        query_cache_bytes: int,
    ) -> None:
        """`shortlist_uri` None judges every frame with every query."""
        self._frames = Folder(frames_uri)
        self._pairs = PairSource(queries_uri=queries_uri, shortlist_uri=shortlist_uri)
        self._judge = load_judge()
        self._cache = QueryCache(self._judge, queries_uri=queries_uri, budget_bytes=query_cache_bytes)
        self._filter = frame_filter
        self._threshold = threshold
        self._keep_rejects = keep_rejects
        self._targets_per_batch = targets_per_batch

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        pairs = self._pairs.of_parts(batch.shard.payload["parts"])
        tables = [PROMPTED.empty_table()]
        for turn in self._cache.turns(pairs.query_ids):
            for targets in self._batches_of_targets(batch, pairs):
                tables.append(self._judge_batch(batch, targets, pairs, turn))
        return batch.with_table(pa.concat_tables(tables).sort_by(ORDER))

    def plan_rows(self, shard: Shard) -> list[Shard]:
        """One sub-shard a frame with pairs: what the runner uses to isolate a frame that the judge does not survive."""
        parts = shard.payload["parts"]
        wanted = self._pairs.of_parts(parts).frame_ids
        kept = None if wanted is None else set(wanted)
        return [
            Shard(frame_id, {**shard.payload, "parts": [part], "frame_ids": [frame_id]})
            for part in parts
            for frame_id in frame_ids_of(self._frames, part)
            if kept is None or frame_id in kept
        ]

    def _batches_of_targets(self, batch: ShardBatch, pairs: PartPairs) -> Iterator[list[Target]]:
        """Decoded frames with pairs, some at a time; those that cannot be decoded are set aside, once."""
        frame_ids = batch.shard.payload.get("frame_ids", pairs.frame_ids)
        set_aside = {row.row_id for row in batch.quarantine}
        targets: list[Target] = []
        for part in batch.shard.payload["parts"]:
            for table in read_frames(self._frames, part, frame_ids=frame_ids, frames=self._filter):
                for frame in table.to_pylist():
                    if frame["frame_id"] in set_aside:
                        continue
                    try:
                        targets.append(({**frame, "frames_part": part}, _target_input(frame)))
                    except DataError as error:
                        set_frame_aside(batch, frame, error)
                while len(targets) >= self._targets_per_batch:
                    yield targets[: self._targets_per_batch]
                    targets = targets[self._targets_per_batch :]
        if targets:
            yield targets

    def _judge_batch(
        self, batch: ShardBatch, targets: Sequence[Target], pairs: PartPairs, turn: "Mapping[str, EncodedAlone]"
    ) -> pa.Table:
        """The decisions on some frames by the queries of one turn."""
        asked, recall_scores = [], []
        for number, (frame, _) in enumerate(targets):
            for query_id, recall_score in pairs.of_frame(frame["frame_id"]).items():
                if query_id in turn and not self._pairs.is_own_frame(query_id, frame["frame_id"]):
                    asked.append((query_id, number))
                    recall_scores.append(recall_score)
        decisions = self._judge.judge(turn, [target for _, target in targets], asked)
        fields = {name: [frame[name] for frame, _ in targets] for name in FRAME_FIELDS}
        table = pa.table(fields, FRAME_SCHEMA).take(pa.array([number for _, number in asked], pa.int64()))
        table = self._add_decisions(table, decisions)
        columns = {
            "query_group": pa.array([self._pairs.group_of[query_id] for query_id, _ in asked], pa.int32()),
            "query_id": pa.array([query_id for query_id, _ in asked], pa.string()),
            "recall_score": pa.array(recall_scores, pa.float32()),
            "frames_part": pa.array([targets[number][0]["frames_part"] for _, number in asked], pa.string()),
        }
        for name, column in columns.items():
            table = table.append_column(name, column)
        return self._in_schema(table, batch)

    def _add_decisions(self, table: pa.Table, decisions: Sequence[PairDecision]) -> pa.Table:
        """Appends score, decision, box and, for the accepted, the prompt.

        The decision is taken from the stored, rounded score, so that a reader can repeat it.
        """
        scores = np.round(np.array([decision.score for decision in decisions], dtype=np.float64), SCORE_DECIMALS)
        is_match = scores > self._threshold
        prompts = [
            decision.prompt.embedding.astype(np.float32) if accepted else None
            for decision, accepted in zip(decisions, is_match, strict=True)
        ]
        boxes = [decision.prompt.box_xyxy_px.tolist() for decision in decisions]
        table = table.append_column("score", pa.array(scores, pa.float32()))
        table = table.append_column("decision", pa.array(np.where(is_match, "match", "reject").tolist(), pa.string()))
        table = table.append_column("box_xyxy_px", pa.array(boxes, PROMPTED.field("box_xyxy_px").type))
        return table.append_column("prompt_embedding", pa.array(prompts, PROMPTED.field("prompt_embedding").type))

    def _in_schema(self, table: pa.Table, batch: ShardBatch) -> pa.Table:
        """The table with every column of the schema, without rejects where they are not kept."""
        for name in ("mask_rle", "rank"):
            table = table.append_column(name, pa.nulls(table.num_rows, PROMPTED.field(name).type))
        table = table.select(PROMPTED.names).cast(PROMPTED)
        if self._keep_rejects:
            return table
        accepted = table.filter(pa.compute.equal(table["decision"], "match"))
        batch.drops["rejected"] += table.num_rows - accepted.num_rows
        return accepted


def _target_input(frame: Mapping[str, Any]) -> TargetInput:
    image = decode_image(frame["image"], what=f"frame {frame['frame_id']!r}")
    return TargetInput(frame["frame_id"], image, person_boxes(frame["persons"]))
