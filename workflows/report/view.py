"""From rendered rows to what the page's script reads: the run, and one set of columns per query. Pure functions.

Everything here becomes JSON, so the values are plain; the page's script (data.js) is the other side of these names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from workflows.report.inputs import Footage, source_of
from workflows.report.render import FILES_FOLDER, FRAMES_FOLDER, picture_name
from workflows.report.selection import Tally
from workflows.report.words import count, file_name, verdict
from workflows.storage import JSON

LANES_ALWAYS_LISTED = 40
"""With more videos than this, those where nobody was seen are only counted."""


@dataclass(frozen=True)
class Lanes:
    """The timeline's rows: one per camera and source."""

    footage: Sequence[Footage]
    numbers: Mapping[tuple[str, str], int]
    cameras: Sequence[str]
    unlisted: int
    """Videos that were searched, held no shown row and are left out."""

    def number(self, row: Mapping[str, Any]) -> int:
        return self.numbers[row["camera_id"], source_of(row["video_uri"], row["timestamp_s"])]


@dataclass(frozen=True)
class QueryHead:
    """One query as the list shows it."""

    query_id: str
    text: str | None
    image: str | None
    """A picture reference: a path beside the page, or "#id" of an embedded one."""
    tally: Tally = field(default_factory=Tally)
    shown: int = 0


def choose_lanes(footage: Sequence[Footage], rendered: pa.Table) -> Lanes:
    """The lanes of a page, sorted by camera and source."""
    rows = rendered.select(["camera_id", "video_uri", "timestamp_s"]).to_pylist()
    seen = {(row["camera_id"], source_of(row["video_uri"], row["timestamp_s"])) for row in rows}
    by_key = {(found.camera_id, found.video_uri): found for found in footage}
    keys = sorted(seen | by_key.keys() if len(by_key) <= LANES_ALWAYS_LISTED else seen)
    listed = [by_key.get(key, Footage(key[0], key[1], None, None, 0)) for key in keys]
    cameras = sorted({found.camera_id for found in listed})
    return Lanes(listed, {key: number for number, key in enumerate(keys)}, cameras, len(by_key.keys() - set(keys)))


def run_view(title: str, lanes: Lanes, queries: Sequence[QueryHead], *, data_folder: str | None) -> JSON:
    """What the page knows from the start. `data_folder` holds the queries' data files; None when they are embedded."""
    place = {camera: number for number, camera in enumerate(lanes.cameras)}
    return {
        "title": title,
        "cameras": list(lanes.cameras),
        "lanes": [
            {
                "camera": place[lane.camera_id],
                "uri": lane.video_uri,
                "file": file_name(lane.video_uri),
                "start": lane.start_s,
                "end": lane.end_s,
            }
            for lane in lanes.footage
        ],
        "unlisted": lanes.unlisted,
        "queries": [_query_view(head, number, data_folder) for number, head in enumerate(queries)],
    }


def query_columns(rows: pa.Table, lanes: Lanes, *, is_inline: bool, has_frames: bool) -> JSON:
    """The matches and near misses of one query, as equally long columns."""
    names = [name for name in rows.column_names if not name.endswith("_jpeg")]
    listed = rows.select(names).to_pylist()
    pictures = _Pictures(is_inline, has_frames)
    return {
        kind: _columns([row for row in listed if row["is_near"] == is_near], lanes, pictures)
        for kind, is_near in (("matches", False), ("near", True))
    }


@dataclass(frozen=True)
class _Pictures:
    """How the page finds a picture by its path in the report."""

    is_inline: bool
    has_frames: bool

    def reference(self, path: str | None) -> str | None:
        if path is None:
            return None
        return f"#{embedded_id(path)}" if self.is_inline else path

    def original(self, frame_id: str) -> str | None:
        """The frame as it was stored, beside the page; a page in one file does not rely on it."""
        return f"{FRAMES_FOLDER}/{picture_name(frame_id)}" if self.has_frames and not self.is_inline else None


def embedded_id(path: str) -> str:
    """The id of an embedded picture's element."""
    return "picture-" + path.removeprefix(f"{FILES_FOLDER}/").removesuffix(".jpg").replace("/", "-")


def _columns(rows: Sequence[Mapping[str, Any]], lanes: Lanes, pictures: _Pictures) -> dict[str, Any]:
    scenes: dict[str, int] = {}
    described = []
    for row in rows:
        if row["scene"] is not None and row["scene"] not in scenes:
            scenes[row["scene"]] = len(scenes)
            original = pictures.original(row["frame_id"])
            source = pictures.reference(row["scene"])
            described.append({"source": source, "full": original, "width": row["width"], "height": row["height"]})
    return {
        "rank": [None if row["is_near"] else row["number"] + 1 for row in rows],
        "score": [_rounded(row["score"], 4) for row in rows],
        "recall": [_rounded(row["recall_score"], 4) for row in rows],
        "lane": [lanes.number(row) for row in rows],
        "frame": [row["frame_index"] for row in rows],
        "time": [_rounded(row["timestamp_s"], 3) for row in rows],
        "image": [_image_of(row) for row in rows],
        "sighting": [row["sighting"] for row in rows],
        "scene": [None if row["scene"] is None else scenes[row["scene"]] for row in rows],
        "zoom": [pictures.reference(row["zoom"]) for row in rows],
        "region": [row["region_xyxy_px"] for row in rows],
        "box": [_rounded_box(row["box_xyxy_px"]) for row in rows],
        "path": [row["outline"] for row in rows],
        "problem": [row["problem"] for row in rows],
        "scenes": described,
    }


def _image_of(row: Mapping[str, Any]) -> str | None:
    """The image's own URI where the lane stands for a folder of images."""
    return row["video_uri"] if row["timestamp_s"] is None else None


def _query_view(head: QueryHead, number: int, data_folder: str | None) -> JSON:
    tally = head.tally
    kinds = [kind for kind, given in (("picture", head.image), ("description", head.text)) if given]
    return {
        "id": head.query_id,
        "text": head.text,
        "image": head.image,
        "kind": " and ".join(kinds) or "nothing",
        "matches": tally.matches,
        "verdict": verdict(
            frames=tally.matches,
            cameras=len(tally.cameras),
            sightings=tally.sightings,
            first_s=tally.first_s,
            last_s=tally.last_s,
        ),
        "note": _note(head),
        "data": None if data_folder is None else f"{data_folder}/{number:05d}.js",
    }


def _note(head: QueryHead) -> str:
    """What a reader should know beside the verdict."""
    tally, sentences = head.tally, []
    if not tally.matches:
        return _why_not_seen(tally)
    if len(tally.cameras) > 1 and tally.first_camera is not None:
        if tally.first_camera == tally.last_camera:
            sentences.append(f"Both first and last on {tally.first_camera}.")
        else:
            sentences.append(f"First on {tally.first_camera}, last on {tally.last_camera}.")
    if head.shown < tally.matches:
        sentences.append(f"The best {head.shown:,} are on this page; all {tally.matches:,} are in the CSV file.")
    return " ".join(sentences)


def _why_not_seen(tally: Tally) -> str:
    if not tally.rejects:
        return "No frame was judged for this query."
    judged = f"{count(tally.rejects, 'frame was', 'frames were')} judged, and none scored above the threshold."
    if tally.best_reject is None:
        return judged
    return f"{judged} The best score was {tally.best_reject.score:.2f}, on {tally.best_reject.camera_id}."


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _rounded_box(box: Sequence[float] | None) -> list[float] | None:
    return None if box is None else [round(edge, 1) for edge in box]
