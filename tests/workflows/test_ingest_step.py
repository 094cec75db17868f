"""The whole ingest on Ray, from files to a committed table."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from modeling.errors import ConfigError, DataError, JobError
from ray_jobs.cli import main
from tests.workflows.numbered_video import draw_number, read_number, write_video
from workflows.ingest.config import IngestConfig
from workflows.ingest.estimate import plan_ingest
from workflows.ingest.images import read_image
from workflows.ingest.step import run_ingest
from workflows.ledger import Ledger
from workflows.progress import Progress
from workflows.schema import FRAMES, require_table
from workflows.storage import Folder

OPTIONS = {"g": "12", "bf": "3", "preset": "ultrafast"}


class Said(Progress):
    """Keeps what a step says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def archive(tmp_path):
    """Two cameras' videos, a folder of images, a video that is none, and detections of one camera."""
    for camera, num_frames in (("north", 40), ("south", 25)):
        (tmp_path / "footage" / camera).mkdir(parents=True)
        write_video(tmp_path / "footage" / camera / "monday.mp4", num_frames, options=OPTIONS)
    (tmp_path / "footage" / "door").mkdir()
    for number in range(3):
        file = io.BytesIO()
        Image.fromarray(draw_number(number)).save(file, format="PNG")
        (tmp_path / "footage" / "door" / f"{number:04d}.png").write_bytes(file.getvalue())
    (tmp_path / "footage" / "south" / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def config(archive, **changes) -> IngestConfig:
    settings = {
        "sources": [str(archive / "footage")],
        "out": str(archive / "frames"),
        "shard_frames": 16,
        "detector": {"name": "none"},
    }
    return IngestConfig.model_validate(settings | changes)


def numbers(folder: str) -> dict[str, int]:
    table = Ledger.read(Folder(folder)).read_table(["frame_id", "image"])
    return {row["frame_id"]: read_number(read_image(row["image"]).image_bgr) for row in table.to_pylist()}


def test_every_frame_of_every_source_arrives_once(archive, ray_cluster):
    summary = run_ingest(config(archive, every=5), Progress())
    expected = {f"north/monday#{k}": k for k in range(0, 40, 5)}
    expected |= {f"south/monday#{k}": k for k in range(0, 25, 5)}
    expected |= {f"door/{k:04d}#0": k for k in range(3)}
    out = Folder(config(archive).out)
    ledger = Ledger.read(out)
    assert numbers(out.uri) == expected
    assert sum(part.rows for part in ledger.parts()) == len(expected)
    assert summary.figures["frames"] == len(expected)
    assert summary.figures["quarantined"] == 1
    assert ledger.read_quarantine()["row_id"].to_pylist() == [str(archive / "footage" / "south" / "broken.mp4")]
    for part in ledger.parts():
        require_table(out.read_schema(part.name), FRAMES, source=part.name)

    said = Said()
    again = run_ingest(config(archive, every=5), said)
    assert again.figures == {**summary.figures, "new_files": 0}
    assert any("already complete" in line for line in said.lines)
    with pytest.raises(ConfigError, match="every: there 5, now 4"):
        run_ingest(config(archive, every=4), Progress())


def test_detections_of_a_file_become_persons(archive, ray_cluster):
    (archive / "dets" / "north").mkdir(parents=True)
    lines = [f"{k + 1},-1,{k},2,30,80,0.9\n{k + 1},-1,100,10,30,80,0.2" for k in range(40)]
    (archive / "dets" / "north" / "monday.det.txt").write_text("\n".join(lines))
    changes = {
        "sources": [str(archive / "footage" / "*" / "monday.mp4")],
        "detector": {"detections": str(archive / "dets")},
    }
    with pytest.raises(DataError, match="no detection file for south/monday"):
        run_ingest(config(archive, **changes), Progress())
    (archive / "dets" / "south").mkdir()
    (archive / "dets" / "south" / "monday.det.txt").write_text("")
    summary = run_ingest(config(archive, **changes), Progress())
    rows = Ledger.read(Folder(summary.output)).read_table(["frame_id", "frame_index", "persons"]).to_pylist()
    for row in rows:
        boxes = [person["box_xyxy_px"] for person in row["persons"]]
        k = row["frame_index"]
        assert boxes == ([[k, 2, k + 30, 82]] if row["frame_id"].startswith("north") else [])
    assert summary.figures["detections_dropped"] == 40


def test_nothing_but_broken_files_fails_and_says_why(archive, ray_cluster):
    with pytest.raises(JobError, match="not_a_video"):
        run_ingest(config(archive, sources=[str(archive / "footage" / "south" / "broken.mp4")]), Progress())


def test_the_plan_counts_and_measures_without_writing(archive):
    plan = plan_ingest(config(archive))
    assert {key: plan.lines[key] for key in ("videos", "images", "files with faults", "frames")} == {
        "videos": 3,
        "images": 3,
        "files with faults": 1,
        "frames": 68,
    }
    assert plan.expected_s is not None
    assert plan.expected_s > 0
    assert not (archive / "frames").exists()


def test_an_unknown_infrared_camera_is_refused(archive):
    with pytest.raises(
        ConfigError, match="ir_cameras names west, but the sources have only the cameras door, north, south"
    ):
        run_ingest(config(archive, ir_cameras=("west",)), Progress())


def test_the_command_reads_sources_then_out(archive, capsys):
    footage = archive / "footage"
    arguments = [
        str(footage / "north"),
        str(footage / "door"),
        str(archive / "new"),
        "--every",
        "10",
        "--detector",
        "none",
    ]
    assert main(["ingest", *arguments, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]
    assert (plan["videos"], plan["images"], plan["frames"]) == (1, 3, 7)
    assert main(["ingest", str(archive / "nowhere"), str(archive / "new")]) == 2
    assert "does not exist or is empty" in capsys.readouterr().err
    assert main(["ingest"]) == 2
    assert "sources is needed" in capsys.readouterr().err


def test_videos_and_images_are_read_from_s3(archive, s3_server):
    from workflows.ingest.decode import DecodeFrames
    from workflows.ingest.plan import make_plan
    from workflows.stages import ShardBatch

    bucket = Folder(s3_server.make_bucket("footage")).child("archive")
    for path in sorted((archive / "footage").rglob("*.*")):
        bucket.write_bytes(str(path.relative_to(archive / "footage")), path.read_bytes())
    remote = config(archive, sources=[bucket.uri])
    plan = make_plan(remote, Progress())
    stage = DecodeFrames()
    found = {}
    for shard in reversed(plan.shards):  # backwards, so that every shard seeks
        for row in stage(ShardBatch(shard)).table.to_pylist():
            found[row["frame_id"]] = read_number(read_image(row["image"]).image_bgr)
    expected = {f"north/monday#{k}": k for k in range(40)} | {f"south/monday#{k}": k for k in range(25)}
    assert found == expected | {f"door/{k:04d}#0": k for k in range(3)}
    assert np.unique([shard.payload["uri"] for shard in plan.shards if "uri" in shard.payload]).size == 3
