"""CSV and COCO hold every match, with masks as they were, and load where they are meant to load."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from modeling.regions import rle_to_mask
from tests.workflows.report_search import Seen, frame_row, person_mask, write_search
from workflows.progress import Progress
from workflows.report.config import ReportConfig
from workflows.report.step import run_report


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A report of two queries over two cameras; the page shows one match, the files hold all."""
    frames = [frame_row(camera, "am", index) for camera in ("=cam", "north") for index in range(0, 60, 3)]
    queries = [{"query_id": "second", "text": "b"}, {"query_id": "first", "text": "a"}]
    seen = [Seen("second", frame["frame_id"], 2.0 - number / 100) for number, frame in enumerate(frames[:30])]
    seen += [Seen("first", frame["frame_id"], 1.0 + number / 100) for number, frame in enumerate(frames[25:])]
    seen += [Seen("first", frames[0]["frame_id"], -0.5, decision="reject")]
    matches = write_search(tmp_path, frames, queries, seen)
    run_report(ReportConfig(matches=matches, out=str(tmp_path / "report"), max_shown=1), Progress())
    return tmp_path / "report"


def test_csv_holds_every_match_by_query_and_rank(out: Path) -> None:
    with (out / "matches.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query_id"] for row in rows] == ["second"] * 30 + ["first"] * 15
    assert [int(row["rank"]) for row in rows] == [*range(1, 31), *range(1, 16)]
    scores = [float(row["score"]) for row in rows[:30]]
    assert scores == sorted(scores, reverse=True)
    first = rows[0]
    assert first["camera_id"] == "'=cam"  # a spreadsheet must not run it
    assert (first["time"], first["timestamp_s"], first["frame_index"]) == ("00:00:00.000", "0.000", "0")
    assert first["trace"] == "am.mp4 @ frame 0 (00:00:00.000)"
    assert [float(first[name]) for name in ("left_px", "top_px", "width_px", "height_px")] == [10, 30, 24, 70]


def test_coco_loads_and_its_masks_are_the_matches_masks(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(out / "matches.coco.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["person"]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == 45 and len(coco.getImgIds()) == 40  # five frames hold both queries
    for annotation in annotations:
        image = coco.loadImgs(annotation["image_id"])[0]
        mask = person_mask(image["frame_index"])
        assert np.array_equal(rle_to_mask(annotation["segmentation"]), mask)
        expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert annotation["segmentation"]["counts"].encode() == expected["counts"]
        assert annotation["area"] == mask.sum()
        left = float(np.flatnonzero(mask.any(axis=0))[0])
        assert annotation["bbox"] == [left, 30, 24, 70]
        assert annotation["attributes"]["query_id"] in ("first", "second") and annotation["score"] > 0
    capsys.readouterr()


def test_coco_names_the_copied_frames(out: Path) -> None:
    copied = {path.name for path in (out / "frames").iterdir()}
    named = [image["file_name"] for image in json.loads((out / "matches.coco.json").read_text())["images"]]
    assert len(set(named)) == len(named) == 40
    assert len(copied & set(named)) == 2  # one match of each query is on the page
    assert all(name == Path(name).name and name.isascii() for name in named)


def test_a_search_without_masks_gives_boxes(tmp_path: Path) -> None:
    frames = [frame_row("cam", "am", index) for index in range(3)]
    seen = [Seen("q", frame["frame_id"], 1.0, has_mask=False) for frame in frames]
    matches = write_search(tmp_path, frames, [{"query_id": "q", "text": "t"}], seen)
    run_report(ReportConfig(matches=matches, out=str(tmp_path / "report")), Progress())
    coco = COCO(str(tmp_path / "report" / "matches.coco.json"))
    assert [annotation["area"] for annotation in coco.loadAnns(coco.getAnnIds())] == [24 * 70] * 3
    assert all(annotation["segmentation"] == [] for annotation in coco.loadAnns(coco.getAnnIds()))


def test_no_match_gives_valid_empty_files(tmp_path: Path) -> None:
    frames = [frame_row("cam", "am", 0)]
    matches = write_search(tmp_path, frames, [{"query_id": "q", "text": "t"}], [])
    run_report(ReportConfig(matches=matches, out=str(tmp_path / "report")), Progress())
    coco = json.loads((tmp_path / "report" / "matches.coco.json").read_text())
    assert (coco["images"], coco["annotations"]) == ([], [])
    rows = list(csv.reader(io.StringIO((tmp_path / "report" / "matches.csv").read_text())))
    assert len(rows) == 1 and rows[0][0] == "query_id"
