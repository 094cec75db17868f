"""The same matches as data: CSV, one line a match, and COCO JSON with masks, for FiftyOne and CVAT.

Both are written a part of the matches at a time; COCO keeps the ids of the frames it has named in memory.
"""

import csv
import io
import json
import mmap
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

import pyarrow.compute as pc
from pycocotools import mask as coco_mask

from modeling.regions import box_xyxy_to_xywh
from workflows.index.inputs import StepInput
from workflows.report.render import picture_name
from workflows.report.selection import best_first
from workflows.report.words import timecode, trace
from workflows.schema import MATCHES
from workflows.storage import Folder

CSV_COLUMNS = (
    "query_id", "rank", "score", "recall_score", "camera_id", "time", "timestamp_s", "frame_index", "left_px", "top_px",
    "width_px", "height_px", "video_uri", "frame_id", "trace",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet would run a text that begins so; such a text gets an apostrophe in front."""
PERSON_CATEGORY = 1
COCO_HEAD = (
    b'{"info": {"description": "psreid: persons found; pictures lie in the folder frames"}, "licenses": [],\n'
    b'"categories": [{"id": 1, "name": "person", "supercategory": "person"}],\n"images": ['
)
ROWS_AT_ONCE = 4096  # of a query, as Python values


def write_csv(matches: StepInput, query_ids: Sequence[str], out: Folder, name: str) -> None:
    """Every match, by query in the order given, then by rank."""
    with _spool(out, name) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(CSV_COLUMNS)
        for rank, row in matched_rows(matches, query_ids):
            writer.writerow(_csv_line(rank, row))
        text.flush()
        text.detach()


def write_coco(matches: StepInput, query_ids: Sequence[str], out: Folder, name: str) -> None:
    """Every match as an annotation of category `person`; masks are compressed RLE with `counts` as text."""
    images: dict[str, int] = {}
    with _spool(out, name) as stream, tempfile.TemporaryFile() as annotations:
        stream.write(COCO_HEAD)
        for number, (rank, row) in enumerate(matched_rows(matches, query_ids), start=1):
            if row["frame_id"] not in images:
                images[row["frame_id"]] = len(images) + 1
                stream.write(_json_line(_coco_image(row, images[row["frame_id"]]), is_first=len(images) == 1))
            annotation = _coco_annotation(row, rank, number, images[row["frame_id"]])
            annotations.write(_json_line(annotation, is_first=number == 1))
        stream.write(b'\n],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, stream)
        stream.write(b"\n]}\n")


def matched_rows(matches: StepInput, query_ids: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(rank among the query's matches from 1, row) of every match; one part in memory at a time."""
    place = {query_id: number for number, query_id in enumerate(query_ids)}
    for name in _parts_in_order(matches, place):
        table = matches.folder.read_table(name, MATCHES.names, pc.field("decision") == "match")
        found = sorted(pc.unique(table["query_id"]).to_pylist(), key=lambda query_id: place.get(query_id, len(place)))
        for query_id in found:
            rows = best_first(table.filter(pc.equal(table["query_id"], query_id)))
            for start in range(0, rows.num_rows, ROWS_AT_ONCE):
                yield from enumerate(rows.slice(start, ROWS_AT_ONCE).to_pylist(), start=start + 1)


def _parts_in_order(matches: StepInput, place: Mapping[str, int]) -> list[str]:
    """Names of the parts, by the first query that each holds."""
    firsts = {}
    for part in matches.parts:
        ids = pc.unique(matches.folder.read_table(part.name, ["query_id"])["query_id"]).to_pylist()
        firsts[part.name] = min(place.get(query_id, len(place)) for query_id in ids)
    return sorted(firsts, key=lambda name: (firsts[name], name))


def _csv_line(rank: int, row: Mapping[str, Any]) -> list[object]:
    time_s, recall = row["timestamp_s"], row["recall_score"]
    box = ["", "", "", ""] if row["box_xyxy_px"] is None else [f"{edge:.1f}" for edge in _box_xywh(row)]
    line = [
        row["query_id"], rank, f"{row['score']:.4f}", "" if recall is None else f"{recall:.4f}", row["camera_id"],
        "" if time_s is None else timecode(time_s), "" if time_s is None else f"{time_s:.3f}", row["frame_index"], *box,
        row["video_uri"], row["frame_id"], trace(row["video_uri"], row["frame_index"], time_s),
    ]  # fmt: skip
    texts = (0, 4, *range(len(line) - 3, len(line)))
    return [_not_a_formula(str(value)) if place in texts else value for place, value in enumerate(line)]


def _not_a_formula(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _coco_image(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": picture_name(row["frame_id"]),
        "width": row["width"],
        "height": row["height"],
        "frame_id": row["frame_id"],
        "camera_id": row["camera_id"],
        "video_uri": row["video_uri"],
        "frame_index": row["frame_index"],
        "timestamp_s": row["timestamp_s"],
    }


def _coco_annotation(row: Mapping[str, Any], rank: int, number: int, image: int) -> dict[str, Any]:
    rle = row["mask_rle"]
    if rle:
        area, bbox = float(coco_mask.area(rle)), [float(edge) for edge in coco_mask.toBbox(rle)]
        shape: object = {"size": list(rle["size"]), "counts": rle["counts"].decode("utf-8")}
    else:  # the search stopped before masks were drawn
        bbox = [0.0, 0.0, 0.0, 0.0] if row["box_xyxy_px"] is None else [round(edge, 2) for edge in _box_xywh(row)]
        area, shape = bbox[2] * bbox[3], []
    return {
        "id": number,
        "image_id": image,
        "category_id": PERSON_CATEGORY,
        "bbox": bbox,
        "area": area,
        "segmentation": shape,
        "iscrowd": 0,
        "score": row["score"],
        "attributes": {"query_id": row["query_id"], "rank": rank},
    }


def _box_xywh(row: Mapping[str, Any]) -> list[float]:
    return [float(edge) for edge in box_xyxy_to_xywh(row["box_xyxy_px"])]


def _json_line(value: object, *, is_first: bool) -> bytes:
    return b"%s\n%s" % (b"" if is_first else b",", json.dumps(value, ensure_ascii=False, allow_nan=False).encode())


@contextmanager
def _spool(out: Folder, name: str) -> Iterator[IO[bytes]]:
    """A local file to write; at the end it becomes `name` in `out`, whole; not held in memory where `out` is local."""
    with tempfile.TemporaryFile() as stream:
        yield stream
        stream.flush()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            out.write_bytes(name, bytes(content) if out.is_remote else cast(bytes, content))
