"""A small archive on disk, a small model, and the line of commands that leads from its videos to matches."""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from modeling.ps_reid.checkpoint import save_model
from tests.modeling.ps_reid.small_model import small_model
from tests.workflows.numbered_video import write_video
from workflows.schema import QUERIES
from workflows.storage import Folder

WIDTH, HEIGHT = 160, 96
FRAMES_PER_VIDEO = 48
CAMERAS = ("cam-a", "cam-b")
SHARD_FRAMES = 8
COLOURS = ((200, 40, 40), (40, 60, 210), (230, 220, 60))


def draw_scene(index: int) -> np.ndarray:
    """Three coloured persons that walk past each other before a grey wall."""
    image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    for number, colour in enumerate(COLOURS):
        left = person_left(number, index)
        image[30:86, left : left + 20] = colour
    return image


def person_left(number: int, index: int) -> int:
    return 8 + (number * 50 + (number + 1) * index) % (WIDTH - 40)


@dataclass(frozen=True)
class Line:
    """Where everything lies; `root` is a local folder or an s3:// prefix, the model is always local."""

    root: str
    videos: str
    detections: str
    queries: str
    model: str

    def ingest(self, out: str) -> list[str]:
        """Arguments after `python` that ingest the videos."""
        return _psreid(
            "ingest", self.videos, out, "--detections", self.detections, "--min-height", "20", "--min-width", "8",
            "--nms-iou", "1.0", "--shard-frames", str(SHARD_FRAMES),
        )  # fmt: skip

    def index(self, frames: str, out: str) -> list[str]:
        return _psreid("index", frames, out, "--model", self.model)

    def search(self, index: str, out: str) -> list[str]:
        return _psreid(
            "search", index, self.queries, out, "--model", self.model, "--shortlist-size", "20", "--no-report",
            "--threshold", "-100",
        )  # fmt: skip


def _psreid(*arguments: str) -> list[str]:
    return ["-m", "ray_jobs", *arguments, "--quiet"]


def make_line(local: Path, root: str) -> Line:
    """Writes videos, detections and queries below `root`, and a small model with random weights below `local`."""
    folder = Folder(root)
    for camera in CAMERAS:
        video = write_video(local / f"{camera}.mp4", FRAMES_PER_VIDEO, rate=8, draw=draw_scene, options={"g": "8"})
        folder.write_bytes(f"videos/{camera}.mp4", video.read_bytes())
        folder.write_bytes(f"detections/{camera}.det.txt", _detections().encode())
    folder.write_bytes("queries/queries.parquet", queries_bytes(query_rows()))
    model = local / "model"
    save_model(small_model(), model)
    return Line(root, folder.path("videos"), folder.path("detections"), folder.path("queries"), str(model))


def query_rows() -> list[dict[str, object]]:
    """One query by picture, one by words, one by both."""
    crops = [draw_scene(0)[30:86, (left := person_left(n, 0)) : left + 20] for n in range(3)]
    own_frame = f"{CAMERAS[0]}/{CAMERAS[0]}#0"
    return [
        {"query_id": "picture", "image": _png(crops[0]), "frame_id": own_frame, "box_xyxy_px": [8.0, 30.0, 28.0, 86.0]},
        {"query_id": "words", "text": "a man in a blue coat"},
        {"query_id": "both", "image": _png(crops[2]), "text": "a man in a yellow coat"},
    ]


def queries_bytes(rows: list[dict[str, object]]) -> bytes:
    """A QUERIES table as Parquet."""
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=QUERIES), stream)
    return stream.getvalue()


def _detections() -> str:
    lines = [
        f"{index + 1},-1,{person_left(number, index)},30,20,56,0.9,-1,-1,-1"
        for index in range(FRAMES_PER_VIDEO)
        for number in range(len(COLOURS))
    ]
    return "\n".join(lines) + "\n"


def _png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
