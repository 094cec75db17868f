"""One pass of the archive through the person encoder. Knows nothing of Ray; `workflows/stages.py` runs it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from modeling.errors import DataError
from modeling.regions import crop
from modeling.types import ImageHWC
from workflows.index.frames import decode_image, frame_ids_of, read_frames, set_frame_aside
from workflows.ledger import Shard
from workflows.schema import EMBEDDING_TYPE, index_schema
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder

if TYPE_CHECKING:
    from modeling.ps_reid.person_encoder import PersonEncoder


@dataclass
class _Persons:
    """Persons waiting for the encoder: their index rows without the embedding, and their crops."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    crops: list[ImageHWC] = field(default_factory=list)


class EncodePersons:
    """A part of the frames table -> one index row a person. The source stage of `psreid index`.

    A frame without a usable picture and a person whose box covers no pixel are quarantined; frames without persons
    give no row and are counted.
    """

    reads: tuple[str, ...] = ()
    writes = tuple(index_schema(1).names)
    resources = Resources(cpus=1)

    def __init__(self, *, frames_uri: str, load_encoder: "Callable[[], PersonEncoder]", batch_persons: int) -> None:
        self._frames = Folder(frames_uri)
        self._encoder = load_encoder()
        self._batch_persons = batch_persons
        self._schema = index_schema(self._encoder.dim)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        tables, waiting = [self._schema.empty_table()], _Persons()
        for frame in self._frame_rows(batch.shard):
            self._add_persons(waiting, frame, batch)
            if len(waiting.crops) >= self._batch_persons:
                tables.append(self._embed(waiting))
                waiting = _Persons()
        if waiting.crops:
            tables.append(self._embed(waiting))
        return batch.with_table(pa.concat_tables(tables))

    def plan_rows(self, shard: Shard) -> list[Shard]:
        """One sub-shard a frame: what the runner uses to isolate a frame that the encoder does not survive."""
        return [
            Shard(frame_id, {**shard.payload, "frame_ids": [frame_id]})
            for frame_id in frame_ids_of(self._frames, str(shard.payload["part"]))
        ]

    def _frame_rows(self, shard: Shard) -> Iterator[dict[str, Any]]:
        frame_ids = shard.payload.get("frame_ids")
        for table in read_frames(self._frames, str(shard.payload["part"]), frame_ids=frame_ids):
            yield from table.to_pylist()

    def _add_persons(self, waiting: _Persons, frame: Mapping[str, Any], batch: ShardBatch) -> None:
        """Cuts a frame's persons out of it."""
        try:
            image = decode_image(frame["image"], what=f"frame {frame['frame_id']!r}")
        except DataError as error:
            set_frame_aside(batch, frame, error)
            return
        if not frame["persons"]:
            batch.drops["frame_without_person"] += 1
        for person in frame["persons"]:
            row = {name: frame[name] for name in ("frame_id", "camera_id", "timestamp_s", "recorded_at")}
            row |= {name: person[name] for name in ("person_id", "box_xyxy_px")} | {
                "frames_part": batch.shard.payload["part"]
            }
            try:
                waiting.crops.append(crop(image, person["box_xyxy_px"]))
                waiting.rows.append(row)
            except DataError as error:
                batch.quarantine_row(person["person_id"], "empty_crop", str(error), row)

    def _embed(self, persons: _Persons) -> pa.Table:
        embedding_ND = np.ascontiguousarray(self._encoder.embed_persons(persons.crops), dtype=np.float16)
        values = pa.array(embedding_ND.ravel(), EMBEDDING_TYPE)
        embeddings = pa.FixedSizeListArray.from_arrays(values, self._encoder.dim)
        without = pa.Table.from_pylist(
            persons.rows, schema=self._schema.remove(self._schema.get_field_index("embedding"))
        )
        return (
            without.append_column(self._schema.field("embedding"), embeddings)
            .select(self._schema.names)
            .cast(self._schema)
        )
