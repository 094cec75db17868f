"""Crops and queries once through the model: the features that scoring reads. Knows nothing of Ray.

A feature is stored as float16 of unit length, so scores are exact whatever the order of work (`modeling/topk.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.errors import DataError
from modeling.instruct_reid.instructions import Instruction, Task, fixed_sentence
from modeling.types import ImageHWC
from workflows.archive.wardrobe import cut_upper_clothes
from workflows.index.frames import decode_image
from workflows.ledger import Shard
from workflows.stages import ShardBatch
from workflows.storage import Folder

if TYPE_CHECKING:
    from modeling.instruct_reid.encoder import IrmEncoder

FREE = "embedding"
"""Column of the task-free feature; `embedding_<task>` hold the task-specific ones."""
LABELS = ("identity", "camera_id", "clothes_id", "modality")
OWN_INSTRUCTION: dict[Task, str] = {"CTCC": "picture_feature", "T2I": "text_feature", "LI": "description_feature"}
"""Column of the encoded instruction that a gallery picture has of its own, for mAPτ."""


def feature_column(task: Task | None) -> str:
    """The column of a gallery picture's feature in the task-specific setting; None: the task-free one."""
    return FREE if task is None else f"{FREE}_{task}"


class EncodeCrops:
    """A part of the CROPS table -> one row of features a crop."""

    reads: tuple[str, ...] = ()
    row_id_column = "person_id"

    def __init__(
        self, *, crops_uri: str, load_encoder: "Callable[[], IrmEncoder]", batch: int, specific_tasks: Sequence[Task]
    ) -> None:
        self._crops, self._encoder = Folder(crops_uri), load_encoder()
        self._batch, self._tasks = batch, tuple(specific_tasks)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        table = self._crops.read_table(str(batch.shard.payload["part"]))
        if not table.num_rows:
            return batch.with_table(table.select(["person_id", *LABELS]))
        blocks = [self._encode(block.to_pylist()) for block in table.to_batches(max_chunksize=self._batch)]
        columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        result = table.select(["person_id", *LABELS])
        for name, values in columns.items():
            result = result.append_column(name, _vectors(values))
        return batch.with_table(result)

    def _encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.floating]]:
        images = [decode_image(row["image"], what=f"crop {row['person_id']!r}") for row in rows]
        columns: dict[str, NDArray[np.floating]] = {FREE: self._encoder.gallery(images).astype(np.float16)}
        own = {task: [own_instruction(task, row, image) for row, image in zip(rows, images, strict=True)]
               for task in OWN_INSTRUCTION}  # fmt: skip
        for task, name in OWN_INSTRUCTION.items():
            columns[name] = self._encoder.instructions(own[task])
        for task in self._tasks:
            asked = own[task] if task in ("CTCC", "LI") else None
            if task == "T2I":  # pictures and texts are encoded apart (§IV-A)
                columns[feature_column(task)] = columns[FREE]
                continue
            instructions = asked if asked is not None else [fixed_sentence(task)] * len(images)
            columns[feature_column(task)] = self._encoder.gallery(images, instructions).astype(np.float16)
        return columns


class EncodeQueries:
    """A range of the QUERIES table -> features and the encoded instruction of each query."""

    reads: tuple[str, ...] = ()
    row_id_column = "query_id"

    def __init__(self, *, queries_uri: str, load_encoder: "Callable[[], IrmEncoder]") -> None:
        self._queries, self._encoder = Folder(queries_uri), load_encoder()

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        first, count = (int(batch.shard.payload[name]) for name in ("first", "count"))
        table = self._queries.read_table("queries.parquet").slice(first, count)
        rows = table.to_pylist()
        images = [
            decode_image(row["image"], what=f"query {row['query_id']!r}") if row["image"] else None for row in rows
        ]
        instructions = [query_instruction(row) for row in rows]
        features = self._encoder.queries(images, instructions).astype(np.float16)
        result = table.select(["query_id", "task", *LABELS]).append_column(FREE, _vectors(features))
        result = result.append_column("number", pa.array(range(first, first + len(rows)), pa.int64()))
        return batch.with_table(
            result.append_column("instruction_feature", _vectors(self._encoder.instructions(instructions)))
        )

    def plan_rows(self, shard: Shard) -> list[Shard]:
        """One sub-shard a query, so that a bad one is isolated."""
        first, count = (int(shard.payload[name]) for name in ("first", "count"))
        return [Shard(f"{shard.shard_id}/{n}", {"first": first + n, "count": 1}) for n in range(count)]


def query_instruction(row: Mapping[str, Any]) -> Instruction:
    """What a QUERIES row asks: its picture of clothes, its sentence, or its text. Raises DataError without any."""
    if row["instruction_image"]:
        return Instruction(image=decode_image(row["instruction_image"], what=f"instruction of {row['query_id']!r}"))
    text = row["instruction"] or row["text"]
    if not text:
        raise DataError(f"query {row['query_id']!r} has neither an instruction nor a text")
    return Instruction(text=text)


def own_instruction(task: Task, row: Mapping[str, Any], image: ImageHWC) -> Instruction:
    """The instruction that describes a gallery picture itself: its clothes cut out, its text, or its description."""
    if task == "CTCC":
        return Instruction(image=cut_upper_clothes(image))
    return Instruction(text=(row["text"] if task == "T2I" else row["description"]) or "a person")


def _vectors(values: NDArray[np.floating]) -> pa.Array:
    flat = np.ascontiguousarray(values)
    kind = pa.float16() if flat.dtype == np.float16 else pa.float32()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), kind), flat.shape[1])
