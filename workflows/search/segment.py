"""Draws the masks of pairs with a prompt: SAM's image embedding once a frame, its decoder once a pair. No Ray here."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modeling.regions import mask_to_rle
from modeling.types import ImageHWC, MaskPrompt
from workflows.index.frames import decode_image, read_frames
from workflows.schema import MASK_RLE
from workflows.search.tables import JUDGED, PROMPTED
from workflows.stages import Resources, ShardBatch
from workflows.storage import Folder

if TYPE_CHECKING:
    from modeling.ps_reid.segmenter import Segmenter

MASK_BYTES = 256 << 20  # of the masks of one call, a byte a pixel


class SegmentPairs:
    """Judged pairs with prompts -> the same pairs with masks. A pair without a prompt, a reject, passes without a mask.

    The frames are read again from the frames table: cheaper than carrying every picture between workers.
    """

    reads = tuple(PROMPTED.names)
    writes = tuple(JUDGED.names)
    row_id_column = "frame_id"
    resources = Resources(cpus=1)

    def __init__(self, *, frames_uri: str, load_segmenter: "Callable[[], Segmenter]") -> None:
        self._frames = Folder(frames_uri)
        self._segmenter = load_segmenter()

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        table = batch.table.select(PROMPTED.names).cast(PROMPTED)
        masks: list[dict[str, Any] | None] = [None] * table.num_rows
        for part, rows_of_frame in _prompted_rows(table).items():
            for frames in read_frames(self._frames, part, frame_ids=rows_of_frame):
                for frame in frames.to_pylist():
                    rows = rows_of_frame[frame["frame_id"]]
                    image = decode_image(frame["image"], what=f"frame {frame['frame_id']!r}")
                    for row, rle in zip(rows, self._segment(image, _prompts(table, rows)), strict=True):
                        masks[row] = rle
        drawn = table.set_column(table.schema.get_field_index("mask_rle"), "mask_rle", pa.array(masks, MASK_RLE))
        return batch.with_table(drawn.select(JUDGED.names).cast(JUDGED))

    def _segment(self, image: ImageHWC, prompts: Sequence[MaskPrompt]) -> Iterator[dict[str, Any]]:
        """One RLE a prompt; a crowd of accepted queries goes in portions, so that memory stays bounded."""
        portion = max(1, MASK_BYTES // (image.shape[0] * image.shape[1]))
        for start in range(0, len(prompts), portion):
            for mask in self._segmenter.masks(image, prompts[start : start + portion]):
                yield mask_to_rle(mask)


def _prompted_rows(table: pa.Table) -> dict[str, dict[str, list[int]]]:
    """frames part -> frame_id -> numbers of its rows with a prompt."""
    rows: dict[str, dict[str, list[int]]] = {}
    numbers = np.flatnonzero(pc.is_valid(table["prompt_embedding"]).to_numpy())
    columns = table.select(["frames_part", "frame_id"]).take(numbers).columns
    for number, part, frame_id in zip(numbers.tolist(), *(column.to_pylist() for column in columns), strict=True):
        rows.setdefault(part, {}).setdefault(frame_id, []).append(number)
    return rows


def _prompts(table: pa.Table, rows: Sequence[int]) -> list[MaskPrompt]:
    chosen = table.select(["prompt_embedding", "box_xyxy_px"]).take(rows).to_pylist()
    return [
        MaskPrompt(np.array(row["prompt_embedding"], dtype=np.float32), np.array(row["box_xyxy_px"], dtype=np.float32))
        for row in chosen
    ]
