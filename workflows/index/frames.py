"""Reads stored frames a row group at a time, only those asked for. Knows nothing of models.

A frames part holds small row groups of whole frames. Which groups are needed is decided from small columns alone (a
few bytes a frame); the pictures of the others are never fetched.
"""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageOps, UnidentifiedImageError

from modeling.errors import DataError
from modeling.types import ImageHWC
from workflows.index.filter import FrameFilter as FrameFilter
from workflows.schema import FRAMES, RECORDED_AT, require_table
from workflows.stages import ShardBatch
from workflows.storage import Folder

FRAME_COLUMNS = (
    "frame_id",
    "camera_id",
    "video_uri",
    "frame_index",
    "timestamp_s",
    "recorded_at",
    "width",
    "height",
    "image",
    "persons.list.element.person_id",
    "persons.list.element.box_xyxy_px",
)


def read_frames(
    folder: Folder, part: str, *, frame_ids: Collection[str] | None = None, frames: FrameFilter | None = None
) -> Iterator[pa.Table]:
    """The frames of one part as tables of at most one row group, in stored order.

    `frame_ids` narrows to these frames: a row group with none of them is not read. `frames` filters by camera and time.
    """
    wanted = None if frame_ids is None else pa.array(sorted(frame_ids), pa.string())
    chosen = frames or FrameFilter()
    condition = chosen.expression()
    with folder.open_input(part) as stream:
        parquet = pq.ParquetFile(getattr(stream, "raw", stream))  # unbuffered: a read fetches what it asks for, no more
        require_table(parquet.schema_arrow, FRAMES, source=folder.path(part))
        for group in chosen.row_groups(parquet):
            if not _is_needed(parquet, group, wanted, condition):
                continue
            table = _read_columns(parquet, group, FRAME_COLUMNS)
            if wanted is not None:
                table = table.filter(pc.is_in(table["frame_id"], value_set=wanted))
            if condition is not None:
                table = table.filter(condition)
            if table.num_rows:
                yield table


def _read_columns(parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    """These columns of a row group; `recorded_at` is null where the table is older than that column."""
    is_older = "recorded_at" in columns and "recorded_at" not in parquet.schema_arrow.names
    known = [name for name in columns if not (is_older and name == "recorded_at")]
    table = parquet.read_row_group(group, columns=known)
    return table.append_column(RECORDED_AT, pa.nulls(table.num_rows, RECORDED_AT.type)) if is_older else table


def _is_needed(parquet: pq.ParquetFile, group: int, wanted: pa.Array | None, condition: pc.Expression | None) -> bool:
    """Whether a row group holds a wanted frame, from its small columns."""
    if wanted is None and condition is None:
        return True
    keys = _read_columns(parquet, group, ["frame_id", "camera_id", "timestamp_s", "recorded_at"])
    if wanted is not None:
        keys = keys.filter(pc.is_in(keys["frame_id"], value_set=wanted))
    if condition is not None:
        keys = keys.filter(condition)
    return keys.num_rows > 0


def frame_ids_of(folder: Folder, part: str) -> list[str]:
    """The frame ids of one part, in stored order, from that column alone."""
    return cast(list[str], folder.read_table(part, columns=["frame_id"])["frame_id"].to_pylist())


def decode_image(data: bytes | None, *, what: str, is_upright: bool = True) -> ImageHWC:
    """The RGB pixels (H, W, 3) of a stored picture; `what` names it in errors.

    `is_upright` False turns a photograph by its EXIF orientation: queries come from phones, frames never carry one.
    Raises DataError when there is none or it cannot be decoded to its end.
    """
    if not data:
        raise DataError(f"{what} has no image: the column is null or empty")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            upright = picture if is_upright else ImageOps.exif_transpose(picture)
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{what} has an image that cannot be decoded: its {len(data)} bytes are no picture") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} has an image that cannot be decoded ({len(data)} bytes): {error}") from error


def encode_png(image: ImageHWC) -> bytes:
    """The picture as PNG, without loss."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def person_boxes(persons: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
    """(N, 4) box_xyxy_px of a frame's persons; (0, 4) when there is none."""
    return np.array([person["box_xyxy_px"] for person in persons], dtype=np.float32).reshape(-1, 4)


def set_frame_aside(batch: ShardBatch, frame: Mapping[str, Any], error: Exception) -> None:
    """Quarantines a frame whose picture cannot be used; kept is where it came from, not its pixels."""
    kept = {name: value for name, value in frame.items() if name not in ("image", "persons")}
    batch.quarantine_row(frame["frame_id"], "undecodable_image" if frame["image"] else "no_image", str(error), kept)
