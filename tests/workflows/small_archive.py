"""A small archive of coloured persons, written as a real frames step, and stand-ins that see colours.

The stand-ins fill the models' protocols honestly: they look at pixels, never at truth, and fail as the models would.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from modeling.regions import crop
from modeling.types import MaskPrompt, PairDecision, QueryInput, TargetInput
from workflows.ledger import Ledger, Shard, StepIdentity, make_shard_id
from workflows.schema import FRAMES, QUERIES, SCHEMA_VERSION
from workflows.stages import ShardBatch, check_columns
from workflows.storage import Folder

WIDTH, HEIGHT = 64, 48
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 60, 220),
    "yellow": (220, 210, 40),
    "white": (235, 235, 235),
    "purple": (150, 40, 170),
}
NAMES = list(COLOURS)
BACKGROUND = (90, 90, 90)


def jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def frame_row(camera: str, index: int, persons: Sequence[tuple[str, int]]) -> dict:
    """A frame with persons given as (colour, left edge)."""
    image = np.full((HEIGHT, WIDTH, 3), BACKGROUND, dtype=np.uint8)
    frame_id = f"{camera}/video#{index}"
    rows = []
    for number, (colour, left) in enumerate(persons):
        image[20:44, left : left + 10] = COLOURS[colour]
        box = [float(left), 20.0, float(left + 10), 44.0]
        rows.append({"person_id": f"{frame_id}/{number}", "box_xyxy_px": box, "score": 0.9, "identity": colour})
    return {
        "frame_id": frame_id,
        "camera_id": camera,
        "video_uri": f"/videos/{camera}/video.mp4",
        "frame_index": index,
        "timestamp_s": index / 5,
        "width": WIDTH,
        "height": HEIGHT,
        "modality": "rgb",
        "image": jpeg(image),
        "persons": rows,
    }


def random_frames(num_frames: int, *, cameras: int = 2, seed: int = 0) -> list[dict]:
    """Frames with nought to three persons, several of them of the same colour."""
    rng = np.random.default_rng(seed)
    rows = []
    for camera in range(cameras):
        for index in range(num_frames // cameras):
            colours = rng.choice(NAMES, size=rng.integers(0, 4), replace=False)
            rows.append(frame_row(f"cam-{camera}", index, [(str(c), 4 + 20 * i) for i, c in enumerate(colours)]))
    return rows


def write_frames(out: Path, rows: Sequence[dict], *, rows_per_part: int = 8, row_group_rows: int = 4) -> str:
    """A finished frames step, as ingest leaves it."""
    folder = Folder(str(out))
    write_frames_in(folder, rows, rows_per_part=rows_per_part, row_group_rows=row_group_rows)
    return folder.uri


def write_frames_in(folder: Folder, rows: Sequence[dict], *, rows_per_part: int = 8, row_group_rows: int = 4) -> None:
    """A finished frames step in a folder, which may be remote."""
    ledger = Ledger.open(folder, StepIdentity("ingest", {}, {}, "1", SCHEMA_VERSION))
    shards = []
    for start in range(0, max(len(rows), 1), rows_per_part):
        part = list(rows[start : start + rows_per_part])
        shard = Shard(make_shard_id("frames", start), {})
        table = pa.Table.from_pylist(part, schema=FRAMES)
        ledger.commit(shard, table, drops={}, quarantine=[], seconds=0.0, row_group_rows=row_group_rows)
        shards.append(shard)
    ledger.finish(shards)


def query_row(
    query_id: str, colour: str | None = None, *, text: str | None = None, frame_id: str | None = None
) -> dict:
    image = None
    if colour is not None:
        image = jpeg(np.full((24, 10, 3), COLOURS[colour], dtype=np.uint8))
    return dict.fromkeys(QUERIES.names) | {"query_id": query_id, "image": image, "text": text, "frame_id": frame_id}


def write_queries(out: Path, rows: Sequence[dict]) -> str:
    """A queries file; left untouched when it holds these rows already, as a user would leave it for a rerun."""
    folder, table = Folder(str(out)), pa.Table.from_pylist(list(rows), schema=QUERIES)
    if not folder.exists("queries.parquet") or not folder.read_table("queries.parquet").equals(table):
        folder.write_table("queries.parquet", table)
    return folder.path("queries.parquet")


def colour_vector(image: np.ndarray) -> np.ndarray:
    """Unit vector of the mean colour's contrasts."""
    mean = image.reshape(-1, 3).mean(0) - 100.0
    vector = np.array([*mean, mean[0] - mean[1], mean[1] - mean[2], mean[2] - mean[0]], dtype=np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def query_vector(query: QueryInput) -> np.ndarray:
    parts = [] if query.image is None else [colour_vector(query.image)]
    if query.text:
        named = [colour for name, colour in COLOURS.items() if name in query.text]
        parts += [colour_vector(np.array([[colour]], dtype=np.uint8)) for colour in named]
    total = np.sum(parts, axis=0) if parts else np.ones(6)
    return (total / np.linalg.norm(total)).astype(np.float32)


class ColourEncoder:
    """Persons and queries by mean colour."""

    identity, dim = "colours", 6

    def embed_persons(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        if any(pixels.shape[0] > 40 for pixels in crops):
            raise RuntimeError("the encoder cannot take a person this tall")
        return np.stack([colour_vector(pixels) for pixels in crops]) if crops else np.zeros((0, 6), np.float32)

    def embed_queries(self, queries: Sequence[QueryInput]) -> np.ndarray:
        return np.stack([query_vector(query) for query in queries])

    def check_query(self, query: QueryInput) -> None:
        """Takes every query."""


@dataclass(frozen=True)
class EncodedColour:
    query_id: str
    vector: np.ndarray
    num_bytes: int = 100


class ColourJudge:
    """Says yes where a person's colour is near the query's. Remembers how often it was asked what."""

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.seen: list[str] = []

    def encode_query(self, query: QueryInput) -> EncodedColour:
        self.encoded.append(query.query_id)
        return EncodedColour(query.query_id, query_vector(query))

    def judge(
        self, queries: Mapping[str, EncodedColour], targets: Sequence[TargetInput], pairs: Sequence[tuple[str, int]]
    ) -> list[PairDecision]:
        self.seen += [target.frame_id for target in targets]
        return [self._decide(queries[query_id], targets[number]) for query_id, number in pairs]

    def _decide(self, query: EncodedColour, target: TargetInput) -> PairDecision:
        scored = [
            (float(query.vector @ colour_vector(crop(target.image, box))), tuple(box)) for box in target.boxes_xyxy_px
        ]
        best, box = max(scored, default=(-1.0, (0.0, 0.0, 1.0, 1.0)))
        prompt = MaskPrompt(query.vector, np.array(box, dtype=np.float32))
        return PairDecision(best - 0.97, best > 0.97, prompt)


class BoxSegmenter:
    """Fills the prompt's box."""

    def masks(self, image: np.ndarray, prompts: Sequence[MaskPrompt]) -> np.ndarray:
        masks = np.zeros((len(prompts), *image.shape[:2]), dtype=bool)
        for mask, prompt in zip(masks, prompts, strict=True):
            left, top, right, bottom = (int(edge) for edge in prompt.box_xyxy_px)
            mask[top:bottom, left:right] = True
        return masks


def run_step_in_process(
    *, folder, identity, shards, stages, max_quarantine_share, progress, row_group_rows=None, next_imports=()
):
    """What `run_step` does, without Ray and without isolating bad rows: the ledger and the stages are the real ones."""
    check_columns(stages)
    ledger = Ledger.open(folder, identity)
    made = [spec.factory(**spec.kwargs) for spec in stages] if ledger.remaining(shards) else []
    for shard in ledger.remaining(shards):
        batch = ShardBatch(shard)
        for stage in made:
            batch = stage(batch)
        ledger.commit(
            shard,
            batch.table,
            drops=batch.drops,
            quarantine=batch.quarantine,
            seconds=0.0,
            row_group_rows=row_group_rows,
        )
    return ledger.finish(shards)


def load_colour_encoder(model: str, *, device: str) -> ColourEncoder:
    return ColourEncoder()


def load_colour_judge(model: str, **_: object) -> ColourJudge:
    return ColourJudge()


def load_box_segmenter(model: str, *, device: str) -> BoxSegmenter:
    return BoxSegmenter()
