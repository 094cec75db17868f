"""The source stage of an ingest: a shard's payload in, one row of the frames table per decoded frame out."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import cv2
import pyarrow as pa

from modeling.errors import DataError
from workflows.ingest.images import Picture, encode_jpeg, is_infrared, read_image
from workflows.ingest.payload import FaultyShard, ImageShard, VideoShard, read_payload, split_shard
from workflows.ingest.picture_column import PictureColumn
from workflows.ingest.sources import SourceFile
from workflows.ingest.video_index import Fault
from workflows.ingest.video_picture import VideoPicture
from workflows.ingest.video_reader import VideoReader
from workflows.ledger import Shard
from workflows.schema import FRAMES
from workflows.stages import ShardBatch
from workflows.storage import split_uri

IMAGE = FRAMES.get_field_index("image")


class DecodeFrames:
    """Decodes a shard's frames and stores them as JPEG, with no persons yet. Knows nothing of Ray.

    What cannot be decoded is quarantined under its frame_id (a whole file: under its URI). The last video stays open:
    the next shard of the same video often begins where this one ended.
    """

    reads = ()
    writes = tuple(FRAMES.names)
    row_id_column = "frame_id"

    def __init__(self, *, jpeg_quality: int = 95, ir_cameras: Collection[str] = ()) -> None:
        """`ir_cameras`: cameras whose frames are all infrared; of others, a frame without colour is."""
        self.jpeg_quality = jpeg_quality
        self.ir_cameras = frozenset(ir_cameras)
        self._reader: VideoReader | None = None
        self._pictures = PictureColumn()
        cv2.setNumThreads(1)

    def plan_rows(self, shard: Shard) -> list[Shard]:
        return split_shard(shard)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        self._pictures = PictureColumn()
        content = read_payload(batch.shard.payload)
        result = batch.fresh(batch.table)
        if isinstance(content, FaultyShard):
            rows: list[dict[str, Any]] = []
            for fault in content.faults:
                result.quarantine_row(content.uri, fault.reason, fault.detail, {"video_uri": content.uri})
        elif isinstance(content, ImageShard):
            rows = [row for file in content.files if (row := self._image_row(file, result)) is not None]
        else:
            rows = self._video_rows(content, result)
        table = pa.Table.from_pylist(rows, FRAMES)
        return result.with_table(table.set_column(IMAGE, FRAMES.field(IMAGE), self._pictures.finish()))

    def _video_rows(self, video: VideoShard, result: ShardBatch) -> list[dict[str, Any]]:
        rows = []
        for run in video.runs:
            for frame in self._reader_of(video.uri).read(run):
                row = {
                    "frame_id": video.frame_id(frame.wanted.index),
                    "camera_id": video.camera_id,
                    "video_uri": video.uri,
                    "frame_index": frame.wanted.index,
                    "timestamp_s": frame.wanted.timestamp_s,
                    "recorded_at": _moment(video.recorded_at, frame.wanted.timestamp_s),
                }
                if frame.picture is None:
                    assert frame.fault is not None
                    _set_aside(result, row, frame.fault)
                else:
                    rows.append(row | self._video_columns(video.camera_id, frame.picture))
        return rows

    def _image_row(self, file: SourceFile, result: ShardBatch) -> dict[str, Any] | None:
        row = {
            "frame_id": file.frame_id(0),
            "camera_id": file.camera_id,
            "video_uri": file.uri,
            "frame_index": 0,
            "timestamp_s": None,
            "recorded_at": _moment(file.recorded_at, 0.0),
        }
        folder, name = split_uri(file.uri)
        data = folder.read_bytes(name)
        try:
            picture = read_image(data)
            return row | self._picture_columns(file.camera_id, picture.image_bgr, picture.jpeg)
        except (OSError, ValueError, SyntaxError, DataError) as error:  # Pillow's words for a broken file
            _set_aside(result, row, Fault("bad_image", f"{type(error).__name__}: {error}"))
            return None

    def _picture_columns(self, camera_id: str, image_bgr: Picture, jpeg: bytes | None) -> dict[str, Any]:
        is_ir = camera_id in self.ir_cameras or is_infrared(image_bgr)
        self._pictures.append(jpeg or encode_jpeg(image_bgr, self.jpeg_quality))
        return _columns(image_bgr.shape[:2], is_ir)

    def _video_columns(self, camera_id: str, picture: VideoPicture) -> dict[str, Any]:
        is_ir = camera_id in self.ir_cameras or picture.is_infrared
        columns = _columns(picture.size_hw, is_ir)
        self._pictures.append(picture.jpeg(self.jpeg_quality))  # last: a frame that raises leaves no picture behind
        return columns

    def _reader_of(self, uri: str) -> VideoReader:
        if self._reader is None or self._reader.uri != uri:
            if self._reader is not None:
                self._reader.close()
            self._reader = VideoReader(uri)
        return self._reader


def _columns(size_hw: tuple[int, ...], is_ir: bool) -> dict[str, Any]:
    """What is known of a frame beside its picture."""
    height, width = size_hw
    return {"width": width, "height": height, "modality": "ir" if is_ir else "rgb", "persons": []}


def _moment(start: str | None, after_s: float | None) -> datetime | None:
    """The moment `after_s` seconds after a start; None where one of them is not known."""
    if start is None or after_s is None:
        return None
    return datetime.fromisoformat(start) + timedelta(seconds=after_s)


def _set_aside(result: ShardBatch, row: dict[str, Any], fault: Fault) -> None:
    result.quarantine_row(row["frame_id"], fault.reason, fault.detail, row)
