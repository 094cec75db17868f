"""The step: what it reads, how it resumes, what it says when something is missing or nobody was found."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from modeling.errors import ConfigError, DataError
from ray_jobs.cli import main
from tests.s3_server import S3Server
from tests.workflows.report_search import Seen, frame_row, write_search
from tests.workflows.test_report_page import Elements
from workflows.progress import Progress
from workflows.report.config import ReportConfig
from workflows.report.step import plan_report, run_report
from workflows.storage import Folder


def search(root: Path | str, *, num_frames: int = 40, every: int = 1, score: float = 1.0) -> str:
    frames = [frame_row("cam-a" if index % 2 else "cam-b", "am", index) for index in range(num_frames)]
    seen = [Seen("q1", frame["frame_id"], score + index / 100) for index, frame in enumerate(frames[::every])]
    seen += [Seen("q1", frame["frame_id"], -1 - index, decision="reject") for index, frame in enumerate(frames[1::7])]
    return write_search(root, frames, [{"query_id": "q1", "text": "red coat", "image": frames[0]["image"]}], seen)


def run(matches: str, out: Path, **settings: Any) -> Elements:
    run_report(ReportConfig(matches=matches, out=str(out), **settings), Progress())
    return Elements((out / "report.html").read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file a reader sees, and the committed parts; not the markers, which hold seconds."""
    kinds = (".html", ".csv", ".js", ".jpg", ".parquet")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds or path.name == "matches.coco.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    page = run(search(tmp_path), tmp_path / "report", near_misses=4)
    (query,) = page.script("run")["queries"]
    assert query["verdict"] == "Seen in 40 frames on 2 cameras, in 2 separate sightings, first 00:00, last 00:07."
    assert query["note"] == "First on cam-b, last on cam-a."
    columns = page.script("query-0")
    assert columns["matches"]["rank"] == list(range(1, 41))
    assert columns["matches"]["score"] == sorted(columns["matches"]["score"], reverse=True)
    assert columns["near"]["score"] == [-1, -2, -3, -4] and columns["near"]["rank"] == [None] * 4
    best = columns["matches"]["frame"][0]
    assert best == 39 and columns["matches"]["time"][0] == 39 / 5
    lane = page.script("run")["lanes"][columns["matches"]["lane"][0]]
    assert lane["uri"] == "/footage/cam-a/am.mp4" and (lane["start"], lane["end"]) == (0.2, 7.8)


def test_the_page_tells_the_runs_figures_and_limits(tmp_path: Path) -> None:
    page = run(search(tmp_path), tmp_path / "report")
    words = " ".join(page.text.split())
    for tile in ("frames 40", "cameras 2", "queries 1", "pairs judged 46", "matches 40", "set aside 5", "of work 12 s"):
        assert tile in words
    for told in (
        "Frames and persons read 40 5 too small 15 7.5 s",
        "synthetic people only",
        "never a proof of identity",
    ):
        assert told in words


@pytest.mark.parametrize("inline_matches", [1000, 0])
def test_a_killed_report_continues_to_the_same_files(tmp_path: Path, inline_matches: int) -> None:
    matches = search(tmp_path)
    settings = {"inline_matches": inline_matches}
    run(matches, tmp_path / "whole", **settings)
    run(matches, tmp_path / "killed", **settings)
    whole, killed = contents(tmp_path / "whole"), tmp_path / "killed"
    assert len(whole) > 10
    for name in ("summary.json", "manifest.json", "report.html", "matches.csv"):
        (killed / name).unlink()
    for marker in sorted((killed / "done").iterdir())[::2]:
        marker.unlink()
        (killed / f"part-{marker.stem}.parquet").unlink()
    run(matches, killed, **settings)
    assert contents(killed) == whole


def test_a_finished_report_is_left_alone(tmp_path: Path) -> None:
    matches, out = search(tmp_path), tmp_path / "report"
    config = ReportConfig(matches=matches, out=str(out))
    first = run_report(config, Progress())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    said: list[str] = []
    progress = Progress()
    progress.say = said.append  # type: ignore[method-assign]
    again = run_report(config, progress)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert again == first and "already complete" in said[0]
    with pytest.raises(ConfigError, match="near_misses"):
        run_report(config.model_copy(update={"near_misses": 3}), Progress())


def test_only_the_row_groups_of_shown_frames_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One match in eight; row groups hold two frames, so a quarter of the pictures may be read."""
    matches = search(tmp_path, num_frames=64, every=8)
    read: list[int] = []
    plain = pq.ParquetFile.read_row_group

    def counting(self: pq.ParquetFile, group: int, columns: Any = None, **kwargs: Any) -> Any:
        table = plain(self, group, columns=columns, **kwargs)
        if "image" in table.column_names:
            read.append(table.num_rows)
        return table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    run(matches, tmp_path / "report", near_misses=0)
    assert sum(read) == 16


def test_max_shown_bounds_the_page_and_says_so(tmp_path: Path) -> None:
    page = run(search(tmp_path), tmp_path / "report", max_shown=8, near_misses=1)
    assert page.script("query-0")["matches"]["rank"] == list(range(1, 9))
    assert "The best 8 are on this page; all 40 are in the CSV file." in page.script("run")["queries"][0]["note"]
    assert len((tmp_path / "report" / "matches.csv").read_text().splitlines()) == 41


def test_pictures_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    frames = [
        frame_row("cam", "am", 0),
        frame_row("cam", "am", 1, image=None),
        frame_row("cam", "am", 2, image=b"broken"),
    ]
    seen = [Seen("q", frame["frame_id"], 3.0 - number) for number, frame in enumerate(frames)]
    query = {"query_id": "q", "text": "t", "image": b"no picture either"}
    matches = write_search(tmp_path, frames, [query], seen)
    config = ReportConfig(matches=matches, out=str(tmp_path / "report"))
    assert run_report(config, Progress()).figures["pictures_missing"] == 2
    page = Elements((tmp_path / "report" / "report.html").read_text())
    columns = page.script("query-0")["matches"]
    assert columns["scene"] == [0, None, None] and columns["problem"][0] is None
    assert "no image bytes" in columns["problem"][1] and "not a readable" in columns["problem"][2]
    assert all(path for path in columns["path"]) and page.script("run")["queries"][0]["image"] is None


def test_a_broken_mask_costs_only_its_outline(tmp_path: Path) -> None:
    frames = [frame_row("cam", "am", 0)]
    broken = {"size": [120, 160], "counts": b"0"}
    matches = write_search(tmp_path, frames, [{"query_id": "q", "text": "t"}], [Seen("q", frames[0]["frame_id"], 1.0)],
                           mask_rle=lambda _: broken)  # fmt: skip
    columns = run(matches, tmp_path / "report").script("query-0")["matches"]
    assert columns["path"] == [""] and "RLE" in columns["problem"][0] and columns["zoom"][0].startswith("#picture")


def test_nobody_found_says_why(tmp_path: Path) -> None:
    frames = [frame_row("cam", "am", index) for index in range(3)]
    seen = [Seen("q", frame["frame_id"], -0.25 - n, decision="reject") for n, frame in enumerate(frames)]
    page = run(write_search(tmp_path, frames, [{"query_id": "q", "text": "t"}], seen), tmp_path / "report")
    for words in ("Nobody was found", "3 pairs", "best score was -0.25, on camera cam", "more than 0", "near misses"):
        assert words in page.text
    assert page.script("run")["queries"][0]["verdict"] == "Not seen."
    assert len(page.script("query-0")["near"]["score"]) == 3


def test_an_empty_gallery_and_no_query_say_so(tmp_path: Path) -> None:
    page = run(write_search(tmp_path / "a", [], [{"query_id": "q", "text": "t"}], []), tmp_path / "a" / "report")
    assert "The gallery is empty" in page.text
    page = run(write_search(tmp_path / "b", [frame_row("cam", "am", 0)], [], []), tmp_path / "b" / "report")
    assert "There was no query to look for." in page.text and page.script("run")["queries"] == []


def test_photographs_without_a_time_share_their_folders_lane(tmp_path: Path) -> None:
    frames = [
        frame_row("yard", f"photo{index}", index) | {"timestamp_s": None, "video_uri": f"/photos/yard/{index}.jpg"}
        for index in range(4)
    ]
    seen = [Seen("q", frame["frame_id"], 1.0 + n) for n, frame in enumerate(frames)]
    page = run(write_search(tmp_path, frames, [{"query_id": "q", "text": "t"}], seen), tmp_path / "report")
    assert page.script("run")["queries"][0]["verdict"] == "Seen in 4 frames on 1 camera, in 4 separate sightings."
    assert [lane["uri"] for lane in page.script("run")["lanes"]] == ["/photos/yard"]
    assert page.script("query-0")["matches"]["image"][0] == "/photos/yard/3.jpg"


def test_moved_frames_are_asked_for(tmp_path: Path) -> None:
    matches = search(tmp_path)
    (tmp_path / "frames").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="--frames"):
        run(matches, tmp_path / "report")
    page = run(matches, tmp_path / "report", frames=str(tmp_path / "moved"))
    assert len(page.script("query-0")["matches"]["rank"]) == 40


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matches, out = search(tmp_path), str(tmp_path / "report")
    assert main(["report", matches, out, "--dry-run"]) == 0
    assert "matches: 40" in capsys.readouterr().out
    assert not Path(out).exists()
    assert main(["report", matches, out, "--title", "Case 7", "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["matches"] == 40 and record["output"].endswith("report.html")
    assert "<title>Case 7</title>" in Path(record["output"]).read_text()
    assert main(["report", str(tmp_path / "nothing"), out]) == 2
    assert "not the output of a psreid step" in capsys.readouterr().err


def test_the_plan_writes_nothing(tmp_path: Path) -> None:
    plan = plan_report(ReportConfig(matches=search(tmp_path), out=str(tmp_path / "report")))
    assert plan.lines["shown"] == 46 and plan.expected_s is not None and plan.expected_s > 0
    assert not (tmp_path / "report").exists()


def test_a_report_on_s3_equals_one_on_disk(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket("report")
    on_disk, on_s3 = tmp_path / "report", Folder(f"{bucket}/report")
    run(search(tmp_path, num_frames=10), on_disk, inline_matches=0)
    config = ReportConfig(matches=search(f"{bucket}/run", num_frames=10), out=on_s3.uri, inline_matches=0)
    assert run_report(config, Progress()).output == f"{bucket}/report/report.html"
    for name in ("matches.csv", "matches.coco.json", "report_files/data/00000.js"):
        assert on_s3.read_bytes(name) == (on_disk / name).read_bytes()
    pictures = [name for name in on_s3.list_files() if name.endswith(".jpg")]
    assert len(pictures) == len(list(on_disk.rglob("*.jpg"))) > 10
    assert run_report(config, Progress()).figures["matches"] == 10
