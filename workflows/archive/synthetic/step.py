"""`psreid synth`: films every camera on Ray, then joins the films and writes queries, galleries and detections.

OUT/videos/cam-01.mp4              one film per camera
OUT/tables/frames/                 FRAMES rows with the truth (a step folder); `score` is the visible share
OUT/tables/queries/  galleries/  wardrobe/    one Parquet file each
OUT/detections/cam-01.det.txt      what a detector might have found, MOT format
OUT/archive.json                   settings, splits and notes; written last
"""

import io
import time
from collections.abc import Iterator, Sequence
from typing import Any

from workflows.archive.synthetic.appearances import Album
from workflows.archive.synthetic.benchmark import GALLERY_SIZES, Question, ask, galleries_table, queries_table
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.detections import detection_lines
from workflows.archive.synthetic.population import SPLITS, make_person, population
from workflows.archive.synthetic.preview import paint_preview
from workflows.archive.synthetic.stretch import (
    SEGMENTS,
    FilmStretch,
    content_settings,
    film_frame,
    frames_of_camera,
    make_camera,
    plan_stretches,
    segment_name,
)
from workflows.archive.synthetic.video import join_stretches
from workflows.archive.synthetic.wardrobe import wardrobe_table
from workflows.ledger import Shard, StepIdentity
from workflows.plan.shapes import this_machine
from workflows.plan.work import StageWork, StepWork, seconds_on
from workflows.progress import Plan, Progress, Summary
from workflows.runner import run_step
from workflows.schema import SCHEMA_VERSION
from workflows.stages import Resources, StageSpec
from workflows.storage import Folder, split_uri

CODE_VERSION = "2"  # raised when the same settings would make another archive
FILM_LOAD_S = 2.0  # until a new worker can film
SAMPLE_FRAMES = 6  # filmed to estimate the time of a run
FRAMES_PER_ROW_GROUP = 16


def run_synth(config: SynthConfig, progress: Progress) -> Summary:
    """Invents an archive; continues where an earlier run stopped."""
    out, shards = Folder(config.out), plan_stretches(config)
    frames = out.child("tables", "frames")
    manifest = run_step(
        folder=frames,
        identity=synth_identity(config),
        shards=shards,
        stages=[StageSpec(FilmStretch, {"config": config.model_dump()}, Resources(cpus=1.0))],
        max_quarantine_share=config.max_quarantine_share,
        progress=progress,
        row_group_rows=FRAMES_PER_ROW_GROUP,
    )
    if not out.exists("archive.json"):
        finish_archive(config, out, shards)
    for name in out.list_files(f"{SEGMENTS}/"):
        out.remove(name)
    if config.preview:
        folder, name = split_uri(config.preview)
        folder.write_bytes(name, paint_preview(config))
    record = out.read_json("archive.json")
    notes = "".join(f" Note: {note}" for note in record["notes"])
    headline = (
        f"Filmed {config.frames} frames of {config.cameras} cameras with {config.identities} identities, "
        f"{record['queries']} queries: {out.path('videos')}, {out.path('tables')}.{notes}"
    )
    figures = {"frames": manifest.rows, "queries": record["queries"], "worker_seconds": manifest.seconds}
    return Summary(headline, out.uri, figures)


def plan_synth(config: SynthConfig) -> Plan:
    """What a run would make; the time is measured on a few frames."""
    film_frame(config, 0, 0)
    started = time.monotonic()
    for index in range(SAMPLE_FRAMES):
        film_frame(config, index % config.cameras, 1 + index)
    per_frame = (time.monotonic() - started) / SAMPLE_FRAMES
    lines = {
        "cameras": config.cameras, "frames": config.frames, "identities": config.identities,
        "shards": len(plan_stretches(config)), "video_s_per_camera": round(config.frames / config.cameras / config.fps),
    }  # fmt: skip
    film = StageWork("FilmStretch", 1.3 * per_frame * config.frames, load_s=FILM_LOAD_S)  # 1.3: encoding the film
    work = StepWork("synth", len(plan_stretches(config)), (film,))
    return Plan(lines, seconds_on([work], this_machine()), work=[work])


def finish_archive(config: SynthConfig, out: Folder, shards: Sequence[Shard]) -> None:
    """Everything that needs all stretches: films, detections, queries, galleries. `archive.json` comes last."""
    frames = out.child("tables", "frames")
    album = Album(config.seed)
    for number in range(config.cameras):
        own = [shard for shard in shards if shard.payload["camera"] == number]
        camera_id = make_camera(config, number).camera_id
        film = io.BytesIO()
        join_stretches(
            (out.read_bytes(segment_name(number, int(s.payload["start"]))) for s in own), film, fps=config.fps
        )
        out.write_bytes(f"videos/{camera_id}.mp4", film.getvalue())
        lines = _read_truth(frames, own, album, config, number)
        out.write_bytes(f"detections/{camera_id}.det.txt", "".join(f"{line}\n" for line in lines).encode())
    questions = ask(album, best_height_px=0.24 * config.height)
    out.write_table("tables/queries/queries.parquet", queries_table(questions, frames))
    out.write_table("tables/galleries/galleries.parquet", galleries_table(config, questions))
    out.write_table("tables/wardrobe/wardrobe.parquet", wardrobe_table(config))
    out.write_json("archive.json", _record(config, questions))


def _read_truth(
    frames: Folder, shards: Sequence[Shard], album: Album, config: SynthConfig, number: int
) -> Iterator[str]:
    """Detections of one camera in order of time; fills the album on the way."""
    columns = ["frame_id", "camera_id", "timestamp_s", "modality", "frame_index", "width", "height", "persons"]
    for shard in shards:
        name = f"part-{shard.shard_id}.parquet"
        table = frames.read_table(name, columns=columns)
        album.add(table, name)
        yield from detection_lines(table.to_pylist(), seed=config.seed, camera_number=number)


def synth_identity(config: SynthConfig) -> StepIdentity:
    return StepIdentity("synth", content_settings(config), {}, CODE_VERSION, SCHEMA_VERSION)


def _record(config: SynthConfig, questions: Sequence[Question]) -> dict[str, Any]:
    """What `archive.json` holds."""
    people = population(config.seed, config.split, config.identities)
    names = {split: [make_person(config.seed, s, n).name for s, n in people if s == split] for split in SPLITS}
    cameras = [make_camera(config, number) for number in range(config.cameras)]
    return {
        "settings": content_settings(config),
        "splits": names,
        "cameras": [
            {
                "camera_id": c.camera_id,
                "setting": c.setting,
                "frames": frames_of_camera(config, n),
                "infrared": c.sensor.is_infrared,
            }
            for n, c in enumerate(cameras)
        ],
        "queries": len(questions),
        "notes": _notes(config, len(names["test"]), len(questions)),
    }


def _notes(config: SynthConfig, num_test: int, num_questions: int) -> list[str]:
    """What a reader of the benchmark should know: what this size of archive could not give."""
    notes = []
    if num_questions < num_test:
        notes.append(
            f"{num_test - num_questions} of {num_test} test identities were not seen clearly at two moments and have "
            "no query; more frames give them one."
        )
    short = [f"TestG{size}" for size in GALLERY_SIZES if size > config.frames]
    if short:
        notes.append(f"{', '.join(short)} hold fewer frames than their name says: the archive has {config.frames}.")
    return notes
