"""Shown rows of one frames part -> their outlines and pictures. Reads only the row groups that hold them.

Knows nothing of pages. A picture goes either into the returned table (a page in one file) or into the report's folder.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from modeling.errors import DataError
from modeling.regions import rle_to_mask
from workflows.index.frames import read_frames
from workflows.report.outline import BoxXYXY, outline, zoom_region
from workflows.report.pictures import ImageHWC, decode, scene, zoom
from workflows.report.selection import SHOWN
from workflows.storage import Folder

FRAMES_FOLDER = "frames"
FILES_FOLDER = "report_files"
ZOOM_ASPECT = 0.62  # width / height: a person who stands, with room around
NAME_LENGTH = 72

NOT_COPIED = ("mask_rle", "decision", "frames_part")
RENDERED = pa.schema(
    [
        *(field for field in SHOWN if field.name not in NOT_COPIED),
        pa.field("outline", pa.string()),  # an SVG path in pixels of the frame; "" without a mask
        pa.field("region_xyxy_px", pa.list_(pa.int32())),  # what the zoom shows; null without a box
        pa.field("scene", pa.string()),  # path of the frame's picture in the report; null when it could not be read
        pa.field("zoom", pa.string()),
        pa.field("scene_jpeg", pa.binary()),  # null where pictures are files, and after a frame's first row
        pa.field("zoom_jpeg", pa.binary()),
        pa.field("problem", pa.string()),  # why there is no picture, or no outline
    ]
)
"""What a page knows of each shown row."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RenderMatches:
    """Renders the shown rows of one frames part."""

    frames: Folder
    out: Folder
    picture_px: int
    is_inline: bool
    """Whether pictures travel in the table; otherwise they become files below `report_files`."""
    copy_frames: bool
    threads: int

    def __call__(self, part: str, shown: pa.Table) -> pa.Table:
        """RENDERED, in the order of `shown`; frames are prepared a row group at a time, several at once."""
        by_frame: dict[str, Rows] = {}
        for place, row in enumerate(shown.to_pylist()):
            by_frame.setdefault(row["frame_id"], []).append({**row, "place": place})
        done: Rows = []
        with ThreadPoolExecutor(self.threads) as pool:
            for group in read_frames(self.frames, part, frame_ids=list(by_frame)):
                frames = group.select(["frame_id", "image"]).to_pylist()
                for rows in pool.map(lambda frame: self._render_frame(frame, by_frame[frame["frame_id"]]), frames):
                    done += rows
        found = {row["frame_id"] for row in done}
        missing = f"not in {self.frames.path(part)}"
        done += [row for frame_id, rows in by_frame.items() if frame_id not in found for row in _unseen(rows, missing)]
        return pa.Table.from_pylist(sorted(done, key=lambda row: row["place"]), schema=RENDERED)

    def _render_frame(self, frame: Mapping[str, Any], rows: Rows) -> Rows:
        frame_id = frame["frame_id"]
        try:
            image = decode(frame["image"], name=f"frame {frame_id!r}")
        except DataError as error:
            return _unseen(rows, str(error))
        name = picture_name(frame_id)
        if self.copy_frames:
            self.out.write_bytes(f"{FRAMES_FOLDER}/{name}", frame["image"], durable=False)
        rendered = [self._render_row(row, image, name) for row in rows]
        if self.copy_frames and not self.is_inline and max(image.shape[:2]) <= self.picture_px:
            scene_path = f"{FRAMES_FOLDER}/{name}"  # small enough to be shown as it is
        else:
            scene_path = f"{FILES_FOLDER}/scenes/{name}"
            rendered[0]["scene_jpeg"] = self._kept(scene_path, lambda: scene(image, self.picture_px).jpeg)
        return [row | {"scene": scene_path} for row in rendered]

    def _render_row(self, row: dict[str, Any], image: ImageHWC, name: str) -> dict[str, Any]:
        outline, box, problem = _outline_and_box(row)
        row = {**row, "outline": outline, "problem": problem}
        if box is None:
            return row
        region = zoom_region(box, width=image.shape[1], height=image.shape[0], aspect=ZOOM_ASPECT)
        path = f"{FILES_FOLDER}/zooms/{row['query_number']:05d}/{name}"
        jpeg = self._kept(path, lambda: zoom(image, region).jpeg)
        return {**row, "region_xyxy_px": [int(edge) for edge in region], "zoom": path, "zoom_jpeg": jpeg}

    def _kept(self, path: str, make: Callable[[], bytes]) -> bytes | None:
        """The picture for the table, or None once it is a file."""
        jpeg = make()
        if self.is_inline:
            return jpeg
        self.out.write_bytes(path, jpeg, durable=False)
        return None


def picture_name(frame_id: str) -> str:
    """A file name that is safe everywhere, readable, and different for different frames."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", frame_id).strip("-.")[-NAME_LENGTH:].lstrip("-.")
    return f"{readable or 'frame'}-{hashlib.sha256(frame_id.encode()).hexdigest()[:8]}.jpg"


def _outline_and_box(row: Mapping[str, Any]) -> tuple[str, BoxXYXY | None, str | None]:
    """A mask's drawing, what a zoom should hold (the mask's main parts, else the row's box), and what is wrong."""
    box = tuple(row["box_xyxy_px"]) if row["box_xyxy_px"] else None
    if not row["mask_rle"]:
        return "", box, None
    try:
        drawn = outline(rle_to_mask(row["mask_rle"]))
    except DataError as error:
        return "", box, str(error)
    return drawn.path, drawn.body_xyxy_px or box, None


def _unseen(rows: Rows, problem: str) -> Rows:
    return [{**row, "outline": _outline_and_box(row)[0], "problem": problem} for row in rows]
