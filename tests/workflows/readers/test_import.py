"""`psreid import` from end to end: tables in their places, counts beside the published ones, resume, labelled video."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_jobs.cli import main
from tests.workflows.numbered_video import HEIGHT, WIDTH, read_number, write_video
from tests.workflows.readers.trees import write_cuhk_sysu, write_market
from workflows.ledger import Ledger
from workflows.schema import ALL_QUERIES, FRAMES, GALLERIES, QUERIES, require_table
from workflows.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_cluster")


def rows_of(out: Path, table: str) -> list[dict]:
    return Ledger.read(Folder(str(out / "tables" / table))).read_table().to_pylist()


def test_market_becomes_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "market", tmp_path / "out"
    write_market(source)
    command = ["import", "market1501", str(source), str(out), "--quiet", "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["headline"].startswith(f"Market-1501: 7 frames and 2 queries are in {out}/tables.")
    assert record["differences"] == 5
    assert {row["persons"][0]["identity"] for row in rows_of(out, "train")} == {"2", "7"}
    assert len(rows_of(out, "frames")) == 4
    for row in rows_of(out, "queries"):
        assert Image.open(io.BytesIO(row["image"])).size == (12, 24)
    folder = Folder(str(out / "tables"))
    for table, schema in (("train", FRAMES), ("frames", FRAMES), ("queries", QUERIES)):
        part = Ledger.read(folder.child(table)).parts()[0].name
        require_table(folder.child(table).read_schema(part), schema, source=table)
    galleries = folder.read_table("galleries/galleries.parquet")
    require_table(galleries.schema, GALLERIES, source="galleries")
    assert galleries["query_id"].to_pylist() == [ALL_QUERIES]
    known = {row["frame_id"] for row in rows_of(out, "frames")}
    assert set(galleries["frame_ids"][0].as_py()) < known
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["differences"]["queries"] == "2 instead of 3368 (-3366)"
    assert dataset["settings"] == [{"name": "standard", "galleries": ["all"], "junk": ["same camera"], "queries": {}}]
    assert dataset["unknown_identities"] == ["-1"]

    stamp = (out / "tables/frames/manifest.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "tables/frames/manifest.json").stat().st_mtime_ns == stamp


def test_strict_refuses_a_part_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_market(tmp_path / "market")
    assert main(["import", "market1501", str(tmp_path / "market"), str(tmp_path / "out"), "--strict"]) == 2
    assert "train pictures: 3 instead of 12936 (-12933)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scenes_keep_their_queries_and_galleries(tmp_path: Path) -> None:
    write_cuhk_sysu(tmp_path / "sysu")
    assert main(["import", "cuhk-sysu", str(tmp_path / "sysu"), str(tmp_path / "out"), "--quiet"]) == 0
    queries = {row["query_id"]: row for row in rows_of(tmp_path / "out", "queries")}
    assert {query: row["frame_id"] for query, row in queries.items()} == {"0001": "ssm/s1#0", "0002": "ssm/s3#0"}
    table = Folder(str(tmp_path / "out/tables")).read_table("galleries/galleries.parquet")
    assert sorted(set(table["gallery"].to_pylist())) == ["TestG100", "TestG50"]


def test_a_labelled_video_gives_exact_frames_and_queries(tmp_path: Path) -> None:
    """MOT frame n is frame n - 1 of the video; the number in each picture proves it."""
    source, out = tmp_path / "footage", tmp_path / "out"
    source.mkdir()
    write_video(source / "gate.mp4", 30)
    lines = [f"{number},1,{number},40,20,40,1,-1,-1,-1" for number in range(1, 31)]
    lines += ["7,2,100,40,30,40,1,-1,-1,-1", "9,3,100,40,30,40,0,-1,-1,-1"]
    (source / "gate.gt.txt").write_text("\n".join(lines) + "\n")
    assert main(["import", "mot", str(source), str(out), "--every", "3", "--quiet"]) == 0
    rows = rows_of(out, "frames")
    assert sorted(row["frame_index"] for row in rows) == list(range(0, 30, 3))
    for row in rows:
        picture = np.asarray(Image.open(io.BytesIO(row["image"])))
        assert read_number(picture) == row["frame_index"]
        assert row["frame_id"] == f"gate/gate#{row['frame_index']}"
        first = row["persons"][0]
        assert (first["identity"], first["track_id"]) == ("gate-1", "1")
        left = row["frame_index"] + 1
        assert first["box_xyxy_px"] == [left, 40, left + 20, 80]
    by_index = {row["frame_index"]: row for row in rows}
    assert [person["identity"] for person in by_index[6]["persons"]] == ["gate-1", "gate-2"]
    queries = {row["query_id"]: row for row in rows_of(out, "queries")}
    assert set(queries) == {"gate-1", "gate-2"}
    assert queries["gate-2"]["frame_id"] == "gate/gate#6"
    assert Image.open(io.BytesIO(queries["gate-2"]["image"])).size == (30, 40)
    assert (by_index[6]["width"], by_index[6]["height"]) == (WIDTH, HEIGHT)


def test_truth_beyond_the_end_of_a_video_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "gate.mp4", 5)
    (tmp_path / "gate.gt.txt").write_text("6,1,1,1,5,5,1\n")
    assert main(["import", "mot", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "labels frame 6" in capsys.readouterr().err


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_market(tmp_path / "market")
    assert main(["import", "market1501", str(tmp_path / "market"), str(tmp_path / "out"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "train pictures: 3\n" in printed
    assert "not as published: queries: 2 instead of 3368 (-3366)" in printed
    assert not (tmp_path / "out").exists()
