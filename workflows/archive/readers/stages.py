"""The source stages of an import: pictures with their labels in, rows of the frames and queries tables out.

Pictures are opened here, in the workers. One that cannot be read is quarantined under its frame_id or query_id; a
label that does not fit its picture is dropped and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco_mask

from modeling.errors import DataError
from modeling.regions import Rle, box_area, box_xywh_to_xyxy, clip_box, crop, mask_to_rle, rle_to_mask
from workflows.annotate.mot import parse_mot
from workflows.archive.readers.dataset import LabelledPerson, Picture, Question
from workflows.archive.readers.mot import truth_of_frame
from workflows.ingest.decode import DecodeFrames
from workflows.ingest.images import Picture as Pixels
from workflows.ingest.images import encode_jpeg, is_infrared, read_image
from workflows.ingest.payload import split_shard
from workflows.ledger import Ledger, Shard, make_shard_id
from workflows.schema import FRAMES, QUERIES
from workflows.stages import ShardBatch
from workflows.storage import Folder, split_uri

UNREADABLE = (OSError, ValueError, SyntaxError, DataError)  # Pillow's words for a broken file
TRUTHS_KEPT = 4


def picture_shard(pictures: Sequence[Picture], *, versions: Sequence[str], source_uri: str) -> Shard:
    """`versions` change when the files may have changed (`Folder.identity`)."""
    rows = [asdict(picture) for picture in pictures]
    payload = {"source": source_uri, "pictures": rows}
    return Shard(make_shard_id("pictures", rows, list(versions)), payload, rows_expected=len(rows))


def video_truth_shard(video: Shard, *, truth_uri: str, truth_version: str, name: str) -> Shard:
    """A shard of an ingest with the MOT file that labels its frames."""
    payload = {"video": dict(video.payload), "truth": truth_uri, "name": name}
    return Shard(make_shard_id("labelled", video.shard_id, truth_version, name), payload, video.rows_expected)


def question_shard(questions: Sequence[Question], *, versions: Sequence[str], source_uri: str) -> Shard:
    rows = [asdict(question) for question in questions]
    payload = {"source": source_uri, "questions": rows}
    return Shard(make_shard_id("questions", rows, list(versions)), payload, rows_expected=len(rows))


class ReadPictures:
    """Pictures, or frames of a video, with their labelled persons. Knows nothing of Ray."""

    reads = ()
    writes = tuple(FRAMES.names)
    row_id_column = "frame_id"

    def __init__(self, *, jpeg_quality: int) -> None:
        self._jpeg_quality = jpeg_quality
        self._decode = DecodeFrames(jpeg_quality=jpeg_quality)
        self._truth = lru_cache(TRUTHS_KEPT)(_read_truth)
        cv2.setNumThreads(1)

    def plan_rows(self, shard: Shard) -> list[Shard]:
        if "video" in shard.payload:
            frames = split_shard(Shard(shard.shard_id, shard.payload["video"], shard.rows_expected))
            return [Shard(one.shard_id, {**shard.payload, "video": one.payload}, 1) for one in frames]
        return [
            Shard(_picture(row).frame_id, {**shard.payload, "pictures": [row]}, 1) for row in shard.payload["pictures"]
        ]

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        if "video" in batch.shard.payload:
            return self._label_video(batch)
        result = batch.fresh(batch.table)
        source = Folder(batch.shard.payload["source"])
        rows = [self._frame(source, _picture(row), result) for row in batch.shard.payload["pictures"]]
        return result.with_table(pa.Table.from_pylist([row for row in rows if row is not None], FRAMES))

    def _frame(self, source: Folder, picture: Picture, result: ShardBatch) -> dict[str, Any] | None:
        data = source.read_bytes(picture.file)
        try:
            read = read_image(data)
        except UNREADABLE as error:
            result.quarantine_row(
                picture.frame_id,
                "bad_image",
                f"{type(error).__name__}: {error}",
                {"video_uri": source.path(picture.file)},
            )
            return None
        height, width = read.image_bgr.shape[:2]
        return {
            "frame_id": picture.frame_id,
            "camera_id": picture.camera_id,
            "video_uri": source.path(picture.file),
            "frame_index": picture.frame_index,
            "timestamp_s": picture.timestamp_s,
            "width": width,
            "height": height,
            "modality": picture.modality or _modality(read.image_bgr),
            "image": read.jpeg or encode_jpeg(read.image_bgr, self._jpeg_quality),
            "persons": person_rows(picture.frame_id, picture.persons, height, width, result),
        }

    def _label_video(self, batch: ShardBatch) -> ShardBatch:
        payload = batch.shard.payload
        inner = ShardBatch(Shard(batch.shard.shard_id, payload["video"], batch.shard.rows_expected), batch.table)
        decoded = self._decode(inner)
        result = ShardBatch(batch.shard, batch.table, decoded.drops, decoded.quarantine)
        truth = self._truth(payload["truth"])
        persons = []
        columns = ("frame_id", "frame_index", "height", "width")
        for frame_id, index, height, width in zip(*(decoded.table[c].to_pylist() for c in columns), strict=True):
            labelled = truth_of_frame(truth.get(index + 1, []), payload["name"])
            persons.append(person_rows(frame_id, labelled, height, width, result))
        place = decoded.table.schema.get_field_index("persons")
        column = pa.array(persons, FRAMES.field("persons").type)
        return result.with_table(decoded.table.set_column(place, FRAMES.field("persons"), column))


class ReadQuestions:
    """Queries with their pictures: a whole file, a box of one, or a box of a frame that was imported before."""

    reads = ()
    writes = tuple(QUERIES.names)
    row_id_column = "query_id"

    def __init__(self, *, jpeg_quality: int, frames_uri: str) -> None:
        """`frames_uri`: the step folder of frames that boxes without a file lie in."""
        self._jpeg_quality, self._frames = jpeg_quality, Folder(frames_uri)

    def plan_rows(self, shard: Shard) -> list[Shard]:
        return [Shard(row["query_id"], {**shard.payload, "questions": [row]}, 1) for row in shard.payload["questions"]]

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        result = batch.fresh(batch.table)
        source = Folder(batch.shard.payload["source"])
        questions = [Question(**row) for row in batch.shard.payload["questions"]]
        frames = self._stored_frames([q.frame_id for q in questions if q.file is None and q.box_xywh_px is not None])
        rows = []
        for question in questions:
            try:
                rows.append(self._row(question, source, frames))
            except UNREADABLE as error:
                row = {"query_id": question.query_id, "file": question.file or question.frame_id}
                result.quarantine_row(question.query_id, "bad_image", f"{type(error).__name__}: {error}", row)
        return result.with_table(pa.Table.from_pylist(rows, QUERIES))

    def _row(self, question: Question, source: Folder, frames: Mapping[str, bytes]) -> dict[str, Any]:
        box = None if question.box_xywh_px is None else [float(n) for n in box_xywh_to_xyxy(question.box_xywh_px)]
        image: bytes | None = None
        modality: str | None = question.modality
        if question.file is not None or box is not None:
            read = read_image(source.read_bytes(question.file) if question.file else frames[str(question.frame_id)])
            pixels = read.image_bgr if box is None else crop(read.image_bgr, box)
            jpeg = read.jpeg if box is None else None
            image, modality = jpeg or bytes(encode_jpeg(pixels, self._jpeg_quality)), modality or _modality(pixels)
        clothes = question.instruction_file
        return {
            "query_id": question.query_id,
            "image": image,
            "text": question.text,
            "instruction": question.instruction,
            "task": question.task,
            "identity": question.identity,
            "camera_id": question.camera_id,
            "frame_id": question.frame_id,
            "box_xyxy_px": box,
            "instruction_image": source.read_bytes(clothes) if clothes else None,
            "clothes_id": question.clothes_id,
            "modality": modality,
        }

    def _stored_frames(self, frame_ids: Sequence[str | None]) -> dict[str, bytes]:
        if not frame_ids:
            return {}
        wanted = pc.field("frame_id").isin(pa.array(sorted(str(frame_id) for frame_id in frame_ids)))
        table = Ledger.read(self._frames).read_table(["frame_id", "image"], wanted)
        return dict(zip(table["frame_id"].to_pylist(), table["image"].to_pylist(), strict=True))


def person_rows(
    frame_id: str, persons: Sequence[LabelledPerson], height: int, width: int, result: ShardBatch
) -> list[dict[str, Any]]:
    """PERSON structs; boxes are cut to the frame, and a person without a pixel in it is dropped."""
    rows = []
    for number, person in enumerate(persons):
        box: tuple[float, ...] = (0.0, 0.0, float(width), float(height))
        if person.box_xywh_px is not None:
            box = tuple(float(n) for n in clip_box(box_xywh_to_xyxy(person.box_xywh_px), height=height, width=width))
        if box_area(box) <= 0:
            result.drops["box_outside_frame"] += 1
            continue
        rows.append(
            {
                "person_id": f"{frame_id}/{number}",
                "box_xyxy_px": list(box),
                "score": 1.0,
                "track_id": person.track_id,
                "identity": person.identity,
                "clothes_id": person.clothes_id,
                "mask_rle": _mask(person.segmentation, height, width, result),
                "text": person.text,
            }
        )
    return rows


def _mask(segmentation: Any, height: int, width: int, result: ShardBatch) -> Rle | None:
    """The mask of a COCO segmentation; one that does not fit its picture is dropped and counted."""
    if segmentation is None:
        return None
    try:
        if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
            runs = [int(length) for length in segmentation["counts"]]
            inside = np.arange(len(runs)) % 2 == 1
            rle = mask_to_rle(np.repeat(inside, runs).reshape(width, height).T)
        elif isinstance(segmentation, dict):
            rle = mask_to_rle(rle_to_mask(segmentation))
        else:
            polygons = [[float(n) for n in polygon] for polygon in segmentation if len(polygon) >= 6]
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        fits = list(rle["size"]) == [height, width]
    except (DataError, ValueError, TypeError, IndexError):
        fits = False
    if not fits:
        result.drops["mask_does_not_fit"] += 1
        return None
    return {"size": list(rle["size"]), "counts": rle["counts"]}


def _picture(row: Mapping[str, Any]) -> Picture:
    return Picture(**{**row, "persons": tuple(LabelledPerson(**person) for person in row["persons"])})


def _modality(pixels: Pixels) -> str:
    return "ir" if is_infrared(pixels) else "rgb"


def _read_truth(uri: str) -> dict[int, list[list[float]]]:
    folder, name = split_uri(uri)
    parsed = parse_mot(folder.read_bytes(name), source=uri)
    return {frame: rows.tolist() for frame, rows in parsed.items()}
