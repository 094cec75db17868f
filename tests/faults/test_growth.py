"""An archive that grows under kills: every frame once, and the grown archive equals one that was made in one go."""

import shutil
from pathlib import Path

import pytest

from tests.faults.harness import run_command, run_through_kills, step_contents
from tests.faults.line import FRAMES_PER_VIDEO, Line, make_line
from workflows.ledger import Ledger
from workflows.storage import Folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
NEW = "cam-b.mp4"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    local = tmp_path_factory.mktemp("growing")
    return make_line(local, str(local / "archive"))


def run(command: list[str], out: Path) -> str:
    outcome = run_command(command, watch=out)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.fixture(scope="module")
def whole(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything ingested, indexed and searched in one go."""
    out = tmp_path_factory.mktemp("whole")
    run(line.ingest(str(out / "frames")), out / "frames")
    run(line.index(str(out / "frames"), str(out / "index")), out / "index")
    run(line.search(str(out / "index"), str(out / "matches")), out / "matches")
    return out


@pytest.fixture(scope="module")
def half(line: Line, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of one camera alone, with the other one's video set aside."""
    out = tmp_path_factory.mktemp("half")
    shutil.move(Path(line.videos) / NEW, out / NEW)
    run(line.ingest(str(out / "frames")), out / "frames")
    run(line.index(str(out / "frames"), str(out / "index")), out / "index")
    shutil.move(out / NEW, Path(line.videos) / NEW)
    return out


def test_growth_under_kills_loses_nothing_and_repeats_nothing(line: Line, whole: Path, half: Path) -> None:
    for name, command in {
        "frames": line.ingest(str(half / "frames")),
        "index": line.index(str(half / "frames"), str(half / "index")),
    }.items():
        out = half / name
        before = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
        assert before
        hits, last = run_through_kills(command, watch=out, kills=3, markers_per_kill=3, seed=7)
        assert hits > 0 and last.exit_code == 0, last.output
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert step_contents(out) == step_contents(whole / name)

    run(line.search(str(half / "index"), str(half / "matches")), half / "matches")
    assert step_contents(half / "matches") == step_contents(whole / "matches")


def test_readers_see_the_archive_of_before_until_the_new_frames_are_done(
    line: Line, whole: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    shutil.copytree(whole / "frames", frames)
    before = Ledger.read(Folder(str(frames))).manifest
    video = Path(line.videos) / "cam-c.mp4"
    shutil.copy(Path(line.videos) / NEW, video)
    shutil.copy(Path(line.detections) / "cam-b.det.txt", Path(line.detections) / "cam-c.det.txt")
    try:
        killed = run_command(line.ingest(str(frames)), watch=frames, kill="driver", after_markers=2)
        assert killed.was_killed
        assert Ledger.read(Folder(str(frames))).manifest == before
        run([*line.search(str(whole / "index"), str(tmp_path / "m1")), "--frames", str(frames)], tmp_path / "m1")
        run(line.ingest(str(frames)), frames)
        after = Ledger.read(Folder(str(frames))).manifest
        assert before is not None and after is not None and after.rows == before.rows + FRAMES_PER_VIDEO
        command = [*line.search(str(whole / "index"), str(tmp_path / "m2")), "--frames", str(frames)]
        output = run(command, tmp_path / "m2")
        assert f"{FRAMES_PER_VIDEO} frames came after the index" in output
        assert step_contents(tmp_path / "m1") == step_contents(tmp_path / "m2") == step_contents(whole / "matches")
    finally:
        video.unlink()
        (Path(line.detections) / "cam-c.det.txt").unlink()
