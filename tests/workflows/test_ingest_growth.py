"""An archive that grows: new files are added, old ones are left alone, changed ones are noticed."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import workflows.ingest.plan as plan_module
from modeling.errors import ConfigError
from tests.workflows.numbered_video import write_video
from workflows.ingest import estimate
from workflows.ingest.config import IngestConfig
from workflows.ingest.estimate import plan_ingest
from workflows.ingest.payload import files_of
from workflows.ingest.plan import IngestPlan, keep_plan, make_plan
from workflows.ingest.step import run_ingest
from workflows.ledger import Ledger, table_checksum
from workflows.progress import Progress
from workflows.storage import Folder

OPTIONS = {"g": "10", "preset": "ultrafast"}


class Said(Progress):
    """Keeps what a step says, and counts what it commits."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.committed = 0

    def start(self, what: str, *, total: int, done: int = 0, unit: str = "shard") -> None:
        self.unit = unit

    def advance(self, count: int = 1, *, rows: int = 0) -> None:
        self.committed += count * (self.unit == "shard")

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 30, options=OPTIONS)
    return tmp_path


def config(archive: Path, **changes: object) -> IngestConfig:
    settings = {
        "sources": [str(archive / "videos")],
        "out": str(archive / "out"),
        "detector": {"name": "none"},
        "shard_frames": 10,
    }
    return IngestConfig.model_validate(settings | changes)


def kept_plan(settings: IngestConfig) -> IngestPlan:
    out = Folder(settings.out)
    plan = make_plan(settings, Progress(), out=out)
    keep_plan(plan, out)
    return plan


def ids(plan: IngestPlan) -> list[str]:
    return [shard.shard_id for shard in plan.shards]


def paint(path: Path, value: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(path)


def test_new_files_alone_are_opened_and_their_shards_come_after_the_old(archive, monkeypatch):
    first = kept_plan(config(archive))
    write_video(archive / "videos" / "aa.mp4", 20, options=OPTIONS)
    opened: list[str] = []
    probe = plan_module.probe_video
    monkeypatch.setattr(plan_module, "probe_video", lambda uri: opened.append(Path(uri).name) or probe(uri))
    second = kept_plan(config(archive))
    assert opened == ["aa.mp4"]
    assert ids(second)[: len(first.shards)] == ids(first)
    assert {name for shard in second.shards[len(first.shards) :] for name in files_of(shard)} == {
        str(archive / "videos" / "aa.mp4")
    }
    assert (second.num_videos, second.num_new_files, second.num_frames) == (3, 1, 80)


def test_images_that_sort_between_old_ones_do_not_move_them(archive):
    for number in (1, 3, 5):
        paint(archive / "door" / f"{number}.png", number)
    settings = config(archive, sources=[str(archive / "door")], shard_frames=2)
    first = kept_plan(settings)
    paint(archive / "door" / "2.png", 2)
    second = kept_plan(settings)
    assert ids(second)[:2] == ids(first)
    assert files_of(second.shards[2]) == [str(archive / "door" / "2.png")]


def test_a_new_file_with_a_known_name_does_not_rename_the_old_one(archive):
    settings = config(archive, sources=[str(archive / "videos" / "*" / "*.mp4")])
    (archive / "videos" / "gate").mkdir()
    write_video(archive / "videos" / "gate" / "clip.mp4", 10, options=OPTIONS)
    first = kept_plan(settings)
    other = archive / "more" / "gate"
    other.mkdir(parents=True)
    write_video(other / "clip.mp4", 12, options=OPTIONS)
    second = kept_plan(config(archive, sources=[*settings.sources, str(archive / "more" / "*" / "*.mp4")]))
    assert ids(second)[: len(first.shards)] == ids(first)
    stems = [shard.payload["stem"] for shard in second.shards]
    assert stems[0] == "clip" and stems[-1].startswith("clip~")


def test_a_copy_with_another_date_is_the_same_file(archive):
    first = kept_plan(config(archive))
    os.utime(archive / "videos" / "a.mp4", (1, 1))
    second = kept_plan(config(archive))
    assert ids(second) == ids(first) and second.num_new_files == 0


def test_a_changed_file_is_refused_and_named(archive):
    kept_plan(config(archive))
    write_video(archive / "videos" / "b.mp4", 40, options=OPTIONS)
    with pytest.raises(ConfigError, match=r"1 source files are not what they were .*b\.mp4.*--changed keep"):
        make_plan(config(archive), Progress(), out=Folder(config(archive).out))


def test_a_source_that_is_not_named_any_more_is_refused(archive):
    kept_plan(config(archive))
    (archive / "videos").rename(archive / "others")
    with pytest.raises(ConfigError, match="which this command does not name"):
        make_plan(config(archive, sources=[str(archive / "others")]), Progress(), out=Folder(config(archive).out))


def test_an_entry_that_was_cut_short_does_not_count(archive):
    settings = config(archive)
    first = kept_plan(settings)
    (archive / "out" / "plan" / "files-000001.parquet").unlink()  # a kill between the two files of an entry
    again = make_plan(settings, Progress(), out=Folder(settings.out))
    assert again.num_new_files == 2 and ids(again) == ids(first)


def test_a_dry_run_over_many_files_opens_some_and_scales_by_bytes(archive, monkeypatch):
    for number in range(10):
        write_video(archive / "videos" / f"more-{number}.mp4", 30, options=OPTIONS)
    exact = plan_ingest(config(archive))
    assert (exact.lines["frames to take"], exact.lines["shards"]) == (360, 36)
    monkeypatch.setattr(estimate, "MOST_OPENED", 4)
    scaled = plan_ingest(config(archive))
    assert scaled.lines["new files"] == 12
    assert scaled.lines["frames to take"] == pytest.approx(360, rel=0.05)
    assert scaled.lines["shards to do"] == pytest.approx(36, rel=0.05)


def test_a_prefix_on_s3_grows_by_its_listing(archive, s3_server, monkeypatch):
    bucket = Folder(s3_server.make_bucket("growing"))
    bucket.write_bytes("v/a.mp4", (archive / "videos" / "a.mp4").read_bytes())
    settings = config(archive, sources=[bucket.child("v").uri], out=bucket.child("out").uri)
    first = kept_plan(settings)
    bucket.write_bytes("v/c.mp4", (archive / "videos" / "b.mp4").read_bytes())
    monkeypatch.setattr(Folder, "identity", lambda folder, name: pytest.fail(f"{name} was asked for by itself"))
    second = kept_plan(settings)
    assert ids(second)[: len(first.shards)] == ids(first)
    assert (second.num_videos, second.num_new_files) == (2, 1)


def rows_of(out: str) -> dict[str, str]:
    table = Ledger.read(Folder(out)).read_table()
    return {row: table_checksum(table.slice(n, 1)) for n, row in enumerate(table["frame_id"].to_pylist())}


@pytest.mark.usefixtures("ray_cluster")
class TestOnRay:
    def test_growth_adds_what_is_new_and_equals_an_ingest_of_everything(self, archive):
        settings, first, second = config(archive), Said(), Said()
        run_ingest(settings, first)
        before = {path: path.stat().st_mtime_ns for path in (archive / "out").glob("part-*.parquet")}
        write_video(archive / "videos" / "c.mp4", 10, options=OPTIONS)
        summary = run_ingest(settings, second)
        assert (first.committed, second.committed) == (6, 1)
        assert (summary.figures["frames"], summary.figures["new_files"]) == (70, 1)
        assert any("6 shards are there, 1 are new" in line for line in second.lines)
        assert summary.details[0].startswith("added 10 of now 70 frames, 1 of 7 shards, ")
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())

        whole = config(archive, out=str(archive / "whole"))
        run_ingest(whole, Progress())
        assert rows_of(settings.out) == rows_of(whole.out)
        grown, fresh = (Ledger.read(Folder(out)).manifest for out in (settings.out, whole.out))
        assert grown is not None and fresh is not None
        assert {part.shard_id: part for part in grown.parts} == {part.shard_id: part for part in fresh.parts}
        assert (grown.shards, grown.rows, grown.rows_read) == (fresh.shards, fresh.rows, fresh.rows_read)

        again = Said()
        run_ingest(settings, again)
        assert again.committed == 0 and any("already complete" in line for line in again.lines)

    def test_footage_that_was_overwritten_after_its_ingest_stays_in_the_archive(self, archive):
        run_ingest(config(archive), Progress())
        (archive / "videos" / "a.mp4").unlink()
        write_video(archive / "videos" / "c.mp4", 10, options=OPTIONS)
        said = Said()
        summary = run_ingest(config(archive), said)
        assert summary.figures["frames"] == 70
        assert any("1 source files are gone" in line for line in said.lines)

    def test_what_vanished_before_its_frames_were_taken_stops_the_job_or_is_set_aside(self, archive):
        run_ingest(config(archive), Progress())
        lost = next(path for path in (archive / "out" / "done").iterdir())
        lost.unlink()  # as if the run had been killed before this shard
        name = make_plan(config(archive), Progress(), out=Folder(config(archive).out)).shards
        uri = next(files_of(shard)[0] for shard in name if shard.shard_id == lost.stem)
        Path(uri).unlink()
        with pytest.raises(ConfigError, match="1 source files vanished before all their frames were taken"):
            run_ingest(config(archive), Progress())
        summary = run_ingest(config(archive, changed="keep", max_quarantine_share=0.5), Progress())
        assert (summary.figures["frames"], summary.figures["quarantined"]) == (50, 1)
        reasons = Ledger.read(Folder(config(archive).out)).read_quarantine()["reason"].to_pylist()
        assert reasons == ["source_vanished"]
