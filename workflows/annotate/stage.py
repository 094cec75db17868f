"""The stage that gives frames their persons: detector, filters, one person struct per box."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workflows.annotate.detector import Detections, DetectorConfig, SceneFrame, load_detector
from workflows.annotate.filters import PersonFilters
from workflows.schema import FRAMES
from workflows.stages import ShardBatch


class DetectPersons:
    """Frames with images -> the same frames with `persons`, surest first. Knows nothing of Ray."""

    reads = ("frame_id", "camera_id", "frame_index", "width", "height", "image")
    writes = ("persons",)
    row_id_column = "frame_id"

    def __init__(
        self,
        config: DetectorConfig,
        *,
        min_score: float | None = None,
        min_height_px: float = 75,
        min_width_px: float = 25,
        nms_iou: float = 0.4,
    ) -> None:
        """`min_score` None takes the detector's own default: scales differ."""
        self.detector = load_detector(config)
        self.batch_frames = config.batch_frames
        least = self.detector.min_score if min_score is None else min_score
        self.filters = PersonFilters(least, min_height_px, min_width_px, nms_iou)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        result = batch.fresh(batch.table)
        places, persons = [], []
        for start in range(0, batch.table.num_rows, self.batch_frames):
            scenes = self._scenes(batch.table.slice(start, self.batch_frames), result)
            found = self.detector.detect([scene for _, _, scene in scenes])
            for (place, row, _), detections in zip(scenes, found, strict=True):
                kept, drops = self.filters.apply(detections, width_px=row["width"], height_px=row["height"])
                places.append(start + place)
                persons.append(_person_structs(row["frame_id"], kept))
                result.drops.update(drops)
        kept_rows = batch.table if len(places) == batch.table.num_rows else batch.table.take(places)
        return result.with_table(_with_persons(kept_rows, persons))

    def _scenes(self, table: pa.Table, result: ShardBatch) -> list[tuple[int, dict[str, Any], SceneFrame]]:
        """(place, row without its image, frame) of each row whose image can be read; the others are quarantined."""
        scenes = []
        images = table.column("image")
        for place, row in enumerate(
            table.select(["frame_id", "frame_index", "camera_id", "width", "height"]).to_pylist()
        ):
            image = None
            if self.detector.needs_pixels:
                data = images[place].as_buffer()
                if data is None or not data.size:
                    result.quarantine_row(row["frame_id"], "null_image", "the row has no image to search", row)
                    continue
                image = cv2.imdecode(
                    np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
                )
                if image is None:
                    raw = row | {"image": data.to_pybytes()}
                    result.quarantine_row(row["frame_id"], "bad_image", "the image cannot be decoded as JPEG", raw)
                    continue
            stem = row["frame_id"].removeprefix(row["camera_id"] + "/").rpartition("#")[0]
            scenes.append((place, row, SceneFrame(row["camera_id"], stem, row["frame_index"], _as_picture(image))))
        return scenes


def _with_persons(table: pa.Table, persons: Sequence[Sequence[dict[str, Any]]]) -> pa.Table:
    """The frames with these persons, in the order of the schema."""
    column = pa.array(persons, FRAMES.field("persons").type)
    columns = {name: column if name == "persons" else table.column(name) for name in FRAMES.names}
    return pa.table(columns, schema=FRAMES)


def _person_structs(frame_id: str, found: Detections) -> list[dict[str, Any]]:
    tracks = found.track_ids or [None] * len(found)
    return [
        {"person_id": f"{frame_id}/{k}", "box_xyxy_px": box.tolist(), "score": float(score), "track_id": track}
        for k, (box, score, track) in enumerate(zip(found.boxes_xyxy_px, found.scores, tracks, strict=True))
    ]


def _as_picture(image: Any) -> NDArray[np.uint8] | None:
    return None if image is None else np.asarray(image, np.uint8)
