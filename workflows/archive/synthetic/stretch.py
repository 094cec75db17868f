"""Makes one stretch of one camera: frames, video and truth. A Ray-free stage; one shard is one stretch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.regions import mask_to_rle
from workflows.archive.synthetic.camera import Camera, sample_camera
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.description import describe
from workflows.archive.synthetic.itinerary import Timeline, Track
from workflows.archive.synthetic.population import SECOND_CLOTHES_SHARE, make_person, stream
from workflows.archive.synthetic.scene import PersonTruth, Scene
from workflows.archive.synthetic.video import decode_stretch, encode_stretch
from workflows.ledger import Shard, make_shard_id
from workflows.schema import FRAMES
from workflows.stages import ShardBatch
from workflows.storage import Folder

LEAST_VISIBILITY = 0.2  # share of a figure that must be seen for it to be listed
LEAST_HEIGHT_PX = 20
JPEG_QUALITY = 95
SEGMENTS = ".segments"  # films of stretches, until they are joined
SETTING_ORDER = ("street", "plaza", "corridor", "shop")


@dataclass(frozen=True)
class Filmed:
    """A rendered frame with who is in it."""

    image: NDArray[np.uint8]
    seen: list[tuple[Track, PersonTruth]]


def make_camera(config: SynthConfig, number: int) -> Camera:
    """Camera `number` (0-based) of an archive; train and test archives have different ones."""
    rng = stream("camera", config.seed, number, 0, config.split)
    setting = SETTING_ORDER[(number + config.seed) % len(SETTING_ORDER)]
    infrared = config.cameras >= 3 and number == config.cameras - 1
    return sample_camera(
        f"cam-{number + 1:02d}", rng, width=config.width, height=config.height, setting=setting, is_infrared=infrared
    )


@lru_cache(maxsize=4)
def open_camera(config: SynthConfig, number: int) -> tuple[Scene, Timeline]:
    """A camera's scene (its background painted) and its timeline."""
    camera = make_camera(config, number)
    return Scene(camera), Timeline.of(config, number, camera)


def frames_of_camera(config: SynthConfig, number: int) -> int:
    """Frames are dealt out evenly; the first cameras get the remainder."""
    return config.frames // config.cameras + (number < config.frames % config.cameras)


def plan_stretches(config: SynthConfig) -> list[Shard]:
    """One shard per stretch of a camera."""
    shards = []
    for number in range(config.cameras):
        total = frames_of_camera(config, number)
        for start in range(0, total, config.stretch_frames):
            payload = {"camera": number, "start": start, "stop": min(start + config.stretch_frames, total)}
            shard_id = make_shard_id("synth", content_settings(config), payload)
            shards.append(Shard(shard_id, payload, payload["stop"] - start))
    return shards


def content_settings(config: SynthConfig) -> dict[str, Any]:
    """The settings that change what is made. A setting that came later is left out where it changes nothing, so that
    archives made before it can still be continued."""
    settings = config.model_dump(exclude={"out", "preview", "max_quarantine_share"})
    if config.second_clothes_share == SECOND_CLOTHES_SHARE:
        del settings["second_clothes_share"]
    return settings


def film_frame(config: SynthConfig, camera_number: int, frame_index: int) -> Filmed:
    """One frame with the truth about it, from the settings alone."""
    scene, timeline = open_camera(config, camera_number)
    walking = timeline.placed(frame_index / config.fps)
    noise = int(stream("noise", config.seed, camera_number, frame_index).integers(1 << 31))
    rendered = scene.render([placed for _, placed in walking], noise)
    tracks = {placed.key: track for track, placed in walking}
    seen = [(tracks[truth.placed.key], truth) for truth in rendered.persons]
    return Filmed(rendered.image, seen)


def segment_name(camera_number: int, start: int) -> str:
    return f"{SEGMENTS}/cam-{camera_number + 1:02d}-{start:08d}.mp4"


class FilmStretch:
    """Renders, encodes and labels one stretch; the table's pictures are those that the video gives back."""

    reads = ()
    writes = tuple(FRAMES.names)
    row_id_column = "frame_id"
    rows_independent = False

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = SynthConfig(**config)
        self._folder = Folder(self._config.out)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        payload = batch.shard.payload
        config, camera_number = self._config, int(payload["camera"])
        indices = range(int(payload["start"]), int(payload["stop"]))
        labels: list[list[dict[str, Any]]] = []

        def images() -> Any:
            for index in indices:
                filmed = film_frame(config, camera_number, index)
                labels.append(_persons(config, camera_number, index, filmed))
                yield filmed.image

        quality = 20 + int(stream("camera", config.seed, camera_number, 2).integers(0, 9))
        data = encode_stretch(images(), fps=config.fps, quality=quality, size_wh=(config.width, config.height))
        self._folder.write_bytes(segment_name(camera_number, indices.start), data)
        rows = [
            _frame_row(config, camera_number, index, image, persons)
            for index, image, persons in zip(indices, decode_stretch(data), labels, strict=True)
        ]
        return batch.with_table(pa.Table.from_pylist(rows, FRAMES))


def frame_id_of(camera_number: int, index: int) -> str:
    camera_id = f"cam-{camera_number + 1:02d}"
    return f"{camera_id}/{camera_id}#{index}"


def _frame_row(
    config: SynthConfig, camera_number: int, index: int, image: NDArray[np.uint8], persons: list[dict[str, Any]]
) -> dict[str, Any]:
    camera = open_camera(config, camera_number)[0].camera
    _, jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return {
        "frame_id": frame_id_of(camera_number, index),
        "camera_id": camera.camera_id,
        "video_uri": f"videos/{camera.camera_id}.mp4",
        "frame_index": index,
        "timestamp_s": index / config.fps,
        "width": config.width,
        "height": config.height,
        "modality": "ir" if camera.sensor.is_infrared else "rgb",
        "image": jpeg.tobytes(),
        "persons": persons,
    }


def _persons(config: SynthConfig, camera_number: int, index: int, filmed: Filmed) -> list[dict[str, Any]]:
    frame_id = frame_id_of(camera_number, index)
    rows: list[dict[str, Any]] = []
    for track, truth in filmed.seen:
        left, top, right, bottom = truth.box_xyxy_px
        if truth.visibility < LEAST_VISIBILITY or bottom - top < LEAST_HEIGHT_PX:
            continue
        person = make_person(config.seed, *track.person, config.second_clothes_share)
        words = stream("words", config.seed, camera_number, index, track.number)
        rows.append({
            "person_id": f"{frame_id}/{len(rows)}",
            "box_xyxy_px": [float(left), float(top), float(right), float(bottom)],
            "score": round(truth.visibility, 3),
            "track_id": truth.placed.key,
            "identity": person.name,
            "clothes_id": person.clothes_id(track.clothes),
            "mask_rle": mask_to_rle(truth.mask_HW),
            "text": describe(truth.placed.identity, words, truth.visible_parts),
        })  # fmt: skip
    return rows
