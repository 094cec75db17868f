"""Persons from MOT files: the right file, the right line, the right frame."""

import numpy as np
import pytest

from modeling.errors import DataError
from workflows.annotate.detector import SceneFrame
from workflows.annotate.mot import MotDetections, parse_mot


def frame(camera_id: str, stem: str, frame_index: int) -> SceneFrame:
    return SceneFrame(camera_id, stem, frame_index, None)


def test_frame_numbers_count_from_one(tmp_path):
    (tmp_path / "clip.det.txt").write_text("1,-1,10,20,30,70,0.9\n1,7,50,20,30,70,0.4,1,2,3\n3,-1,0,0,5,5,99\n")
    detector = MotDetections(str(tmp_path))
    first, second, third = detector.detect([frame("cam", "clip", k) for k in (0, 1, 2)])
    assert first.boxes_xyxy_px.tolist() == [[10, 20, 40, 90], [50, 20, 80, 90]]
    assert first.scores.tolist() == pytest.approx([0.9, 0.4])
    assert first.track_ids == [None, "7"]
    assert len(second) == 0
    assert third.scores.tolist() == [99]


def test_files_are_found_by_camera_and_stem(tmp_path):
    for name, score in (("north/monday.txt", 1), ("south/monday.det.txt", 2), ("single.txt", 3)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"1,-1,0,0,10,10,{score}\n")
    detector = MotDetections(str(tmp_path))
    frames = [
        frame("north", "monday", 0),
        frame("south", "monday", 0),
        frame("x", "single", 0),
        frame("n", "single~0a1b2c", 0),
    ]
    assert [found.scores.tolist() for found in detector.detect(frames)] == [[1], [2], [3], [3]]
    with pytest.raises(DataError, match=r"no detection file for east/monday.*Call it monday\.det\.txt"):
        detector.locate("east", "monday", 0)


def test_an_image_folder_has_one_file_numbered_by_image_names(tmp_path):
    (tmp_path / "img1.txt").write_text("1,-1,0,0,10,10,1\n12,-1,0,0,10,10,12\n")
    (found,) = MotDetections(str(tmp_path / "img1.txt")).detect([frame("img1", "000012", 0)])
    assert found.scores.tolist() == [12]


def test_scores_may_be_missing_and_blanks_separate_too():
    rows = parse_mot(b"# a comment\n\n2 -1 1 2 3 4\n", source="x")
    np.testing.assert_array_equal(rows[2], [[-1, 1, 2, 3, 4, 1]])


@pytest.mark.parametrize("line", ["1,2,3", "one,-1,0,0,5,5,1", "0,-1,0,0,5,5,1", "1,-1,nan,0,5,5,1"])
def test_a_line_that_is_not_mot_is_named(line):
    with pytest.raises(DataError, match=r"dets\.txt, line 2"):
        parse_mot(f"1,-1,0,0,5,5,1\n{line}\n".encode(), source="dets.txt")


def test_a_path_without_detections_is_an_error(tmp_path):
    with pytest.raises(DataError, match="neither a detection file nor a folder"):
        MotDetections(str(tmp_path / "nowhere"))
