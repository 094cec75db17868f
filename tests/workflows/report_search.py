"""A small finished search, written as its step folders, for the tests of the report: drawn frames, known masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from modeling.regions import mask_to_rle
from workflows.ledger import Ledger, QuarantineRow, Shard, StepIdentity, make_shard_id
from workflows.schema import FRAMES, MATCHES, QUERIES, SCHEMA_VERSION
from workflows.storage import Folder

WIDTH, HEIGHT = 160, 120
FRAMES_PER_PART = 8


@dataclass(frozen=True)
class Seen:
    """One judged pair, for `write_search`."""

    query_id: str
    frame_id: str
    score: float
    decision: str = "match"
    has_mask: bool = True


def frame_row(camera_id: str, video: str, index: int, *, fps: float = 5.0, image: bytes | None = b"") -> dict[str, Any]:
    """A FRAMES row with a drawn person whose place depends on the index; `image` None stores no picture."""
    return {
        "frame_id": f"{camera_id}/{video}#{index}",
        "camera_id": camera_id,
        "video_uri": f"/footage/{camera_id}/{video}.mp4",
        "frame_index": index,
        "timestamp_s": index / fps,
        "width": WIDTH,
        "height": HEIGHT,
        "modality": "rgb",
        "image": draw_frame(index) if image == b"" else image,
        "persons": [],
    }


def person_mask(index: int) -> np.ndarray:
    """(HEIGHT, WIDTH) mask of the drawn person: a block with a hole, so that outlines have two parts."""
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=bool)
    left = 10 + (index * 7) % (WIDTH - 50)
    mask_HW[30:100, left : left + 24] = True
    mask_HW[50:60, left + 8 : left + 16] = False
    return mask_HW


def draw_frame(index: int) -> bytes:
    image = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    image[person_mask(index)] = (40, 40, 200)
    return cv2.imencode(".jpg", image)[1].tobytes()


def match_row(seen: Seen, frame: dict[str, Any], frames_part: str, rank: int) -> dict[str, Any]:
    mask_HW = person_mask(frame["frame_index"])
    left = float(np.flatnonzero(mask_HW.any(axis=0))[0])
    shared = ("frame_id", "camera_id", "video_uri", "frame_index", "timestamp_s", "width", "height")
    return {
        **{name: frame[name] for name in shared},
        "query_id": seen.query_id,
        "score": seen.score,
        "decision": seen.decision,
        "recall_score": 0.5,
        "mask_rle": mask_to_rle(mask_HW) if seen.decision == "match" and seen.has_mask else None,
        "box_xyxy_px": [left, 30.0, left + 24, 100.0],
        "frames_part": frames_part,
        "rank": rank,
    }


def write_step(folder: Folder, step: str, tables: Sequence[pa.Table], *, config: dict[str, Any] | None = None,
               drops: dict[str, int] | None = None, row_group_rows: int | None = None) -> list[str]:  # fmt: skip
    """A finished step folder with one part a table; returns the parts' names."""
    ledger = Ledger.open(folder, StepIdentity(step, config or {}, {}, "1", SCHEMA_VERSION))
    shards = [Shard(make_shard_id(step, number), {}) for number in range(len(tables))]
    aside = [QuarantineRow("row-1", "undecodable_image", "broken", "{}")] if drops else []
    for shard, table in zip(shards, tables, strict=True):
        ledger.commit(shard, table, drops=drops or {}, quarantine=aside, seconds=1.5, row_group_rows=row_group_rows)
    ledger.finish(shards)
    return [f"part-{shard.shard_id}.parquet" for shard in shards]


def write_search(
    root: Path | str,
    frames: Sequence[dict[str, Any]],
    queries: Sequence[dict[str, Any]],
    seen: Sequence[Seen],
    *,
    mask_rle: Callable[[Seen], Any] | None = None,
) -> str:
    """Frames, queries and ranked matches under `root`; returns the folder of matches (what search calls OUT)."""
    tables = [
        pa.Table.from_pylist(list(frames[start : start + FRAMES_PER_PART]), schema=FRAMES)
        for start in range(0, len(frames), FRAMES_PER_PART)
    ]
    frames_folder, out = Folder(f"{root}/frames"), Folder(f"{root}/search")
    names = write_step(frames_folder, "ingest", tables, drops={"too_small": 3}, row_group_rows=2)
    part_of = {frame["frame_id"]: names[number // FRAMES_PER_PART] for number, frame in enumerate(frames)}
    by_id = {frame["frame_id"]: frame for frame in frames}
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(seen, key=lambda one: (one.query_id, one.decision, -one.score)):
        group = rows.setdefault(one.query_id, [])
        row = match_row(one, by_id[one.frame_id], part_of[one.frame_id], len(group) + 1)
        group.append(row | {"mask_rle": mask_rle(one)} if mask_rle else row)
    config = {"frames": frames_folder.uri, "threshold": 0.0, "recall": "none", "model": "tiny"}
    matches = [pa.Table.from_pylist(group[::-1], schema=MATCHES) for group in rows.values()]  # in no useful order
    write_step(out, "search", matches, config=config)
    query_rows = [dict.fromkeys(QUERIES.names) | query for query in queries]
    write_step(out.child("queries"), "queries", [pa.Table.from_pylist(query_rows, schema=QUERIES)] if queries else [])
    write_step(out.child("judged"), "judged", matches)
    return out.uri
