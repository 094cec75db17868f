"""Data sets of whole scenes: boxes, identities, queries that are boxes of a scene, galleries of their own."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from modeling.errors import DataError
from modeling.regions import rle_to_mask
from tests.workflows.readers.trees import frame_rows, query_rows, read, write_cuhk_sysu, write_picture, write_prw
from workflows.archive.readers.config import ImportConfig
from workflows.archive.readers.step import plan_import
from workflows.schema import ALL_QUERIES


def test_cuhk_sysu_finds_identities_by_their_boxes(tmp_path: Path) -> None:
    write_cuhk_sysu(tmp_path)
    dataset = read("cuhk-sysu", tmp_path)
    labelled = {p.file: [(one.identity, one.box_xywh_px) for one in p.persons] for p in dataset.pictures}
    assert labelled == {
        "Image/SSM/s1.jpg": [("1", (5, 4, 10, 20))],
        "Image/SSM/s2.jpg": [("1", (30, 2, 12, 24)), (None, (1, 1, 8, 16))],
        "Image/SSM/s3.jpg": [("2", (20, 5, 9, 18))],
        "Image/SSM/s4.jpg": [("t1", (20, 5, 9, 18))],
    }
    assert [(p.file[-6:], p.split) for p in dataset.pictures][2:] == [("s3.jpg", "test"), ("s4.jpg", "train")]
    assert dataset.galleries == {
        "TestG50": {"0001": ["ssm/s2#0", "ssm/s3#0"], "0002": ["ssm/s1#0", "ssm/s2#0"]},
        "TestG100": {"0001": ["ssm/s2#0", "ssm/s3#0"], "0002": ["ssm/s1#0", "ssm/s2#0"]},
    }
    assert [setting.name for setting in dataset.settings] == ["TestG50", "TestG100"]


def test_cuhk_sysu_queries_are_cut_from_their_scene(tmp_path: Path) -> None:
    write_cuhk_sysu(tmp_path)
    scene = np.zeros((40, 60, 3), np.uint8)
    scene[4:24, 5:15] = 255
    Image.fromarray(scene).save(tmp_path / "Image/SSM/s1.jpg", quality=100, subsampling=0)
    dataset = read("cuhk-sysu", tmp_path)
    row = query_rows(tmp_path, dataset.questions)[0]
    assert (row["frame_id"], row["box_xyxy_px"], row["identity"]) == ("ssm/s1#0", [5, 4, 15, 24], "1")
    (tmp_path / "crop.jpg").write_bytes(row["image"])
    crop = np.asarray(Image.open(tmp_path / "crop.jpg"))
    assert crop.shape == (20, 10, 3)
    assert crop.min() > 200
    rows, batch = frame_rows(tmp_path, dataset.of_split("test"))
    assert [person["box_xyxy_px"] for person in rows[1]["persons"]] == [[30, 2, 42, 26], [1, 1, 9, 17]]
    assert not batch.drops


def test_prw_clips_boxes_and_knows_nobody_by_minus_two(tmp_path: Path) -> None:
    write_prw(tmp_path)
    dataset = read("prw", tmp_path)
    labelled = {p.frame_id: [(one.identity, one.box_xywh_px) for one in p.persons] for p in dataset.pictures}
    assert labelled == {
        "c1/c1s1_000151#0": [("1", (5, 5, 10, 20))],
        "c1/c1s1_000176#0": [("479", (0, 2, 7, 20)), (None, (30, 2, 10, 20))],
        "c2/c2s1_000201#0": [("479", (20.5, 2, 10, 30))],
    }
    assert dataset.galleries == {"all": {ALL_QUERIES: ["c1/c1s1_000176#0", "c2/c2s1_000201#0"]}}
    assert [(q.query_id, q.frame_id, q.box_xywh_px) for q in dataset.questions] == [
        ("479-c1s1_000176", "c1/c1s1_000176#0", (0, 2, 7, 20)),
        ("479-c2s1_000201", "c2/c2s1_000201#0", (20, 2, 10, 30)),
    ]
    assert [setting.junk for setting in dataset.settings] == [(), ("same camera",)]
    assert len(query_rows(tmp_path, dataset.questions)) == 2


def test_prw_names_what_an_annotation_file_lacks(tmp_path: Path) -> None:
    write_prw(tmp_path)
    from scipy.io import savemat

    savemat(tmp_path / "annotations/c1s1_000176.jpg.mat", {"boxes": np.zeros((1, 5))})
    with pytest.raises(DataError, match=r"c1s1_000176.jpg.mat has no variable box_new; it holds boxes"):
        read("prw", tmp_path)


def write_coco(root: Path, name: str, annotations: list[dict], *, folder: str = "images") -> None:
    write_picture(root / folder / "a/1.jpg", size=(20, 10))
    write_picture(root / folder / "a/2.jpg", size=(20, 10))
    images = [
        {"id": 7, "file_name": "a/1.jpg", "width": 20, "height": 10, "cam_id": 3},
        {"id": 9, "file_name": "a/2.jpg", "width": 20, "height": 10, "cam_id": 4},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bag"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{name}.json").write_text(json.dumps(content))


def test_coco_json_keeps_masks_and_asks_for_each_identity(tmp_path: Path) -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[2:6, 3:8] = 1
    runs = coco_mask.encode(np.asfortranarray(mask))
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [3, 2, 5, 4], "person_id": 12,
         "segmentation": {"size": [10, 20], "counts": runs["counts"].decode()}},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [10, 0, 5, 9], "person_id": -1,
         "segmentation": [[10, 0, 15, 0, 15, 9, 10, 9]]},
        {"id": 3, "image_id": 9, "category_id": 1, "bbox": [1, 1, 6, 8], "person_id": 12,
         "segmentation": {"size": [10, 20], "counts": [32, 4, 164]}},
        {"id": 4, "image_id": 9, "category_id": 1, "bbox": [30, 0, 5, 5], "person_id": 13,
         "segmentation": {"size": [10, 20], "counts": [1, 2]}},
        {"id": 5, "image_id": 9, "category_id": 2, "bbox": [0, 0, 1, 1]},
    ]  # fmt: skip
    write_coco(tmp_path, "test", annotations)
    dataset = read("coco", tmp_path)
    assert [p.frame_id for p in dataset.pictures] == ["c3/a~1#0", "c4/a~2#0"]
    assert [one.identity for p in dataset.pictures for one in p.persons] == ["12", None, "12", "13"]
    rows, batch = frame_rows(tmp_path, dataset.pictures)
    assert (rle_to_mask(rows[0]["persons"][0]["mask_rle"]) == mask.astype(bool)).all()
    assert rle_to_mask(rows[0]["persons"][1]["mask_rle"])[0:9, 10:15].all()
    assert rle_to_mask(rows[1]["persons"][0]["mask_rle"]).sum() == 4
    assert dict(batch.drops) == {"box_outside_frame": 1}
    assert {q.identity: q.frame_id for q in dataset.questions} == {"12": "c4/a~2#0", "13": "c4/a~2#0"}


def test_coco_counts_a_mask_that_does_not_fit(tmp_path: Path) -> None:
    annotation = {
        "id": 1,
        "image_id": 7,
        "bbox": [3, 2, 5, 4],
        "person_id": 1,
        "segmentation": {"size": [9, 9], "counts": [81]},
    }
    write_coco(tmp_path, "train", [annotation])
    dataset = read("coco", tmp_path)
    assert [p.split for p in dataset.pictures] == ["train", "train"]
    rows, batch = frame_rows(tmp_path, dataset.pictures)
    assert rows[0]["persons"][0]["mask_rle"] is None
    assert dict(batch.drops) == {"mask_does_not_fit": 1}


def test_coco_without_its_pictures_says_which_folder_is_needed(tmp_path: Path) -> None:
    write_coco(tmp_path, "test", [])
    (tmp_path / "images/a/1.jpg").unlink()
    with pytest.raises(DataError, match=r"'a/1.jpg', named in .*test.json, is nowhere below"):
        read("coco", tmp_path)


def test_mot_challenge_frames_count_from_one(tmp_path: Path) -> None:
    sequence = tmp_path / "MOT17-02"
    for number in (1, 2, 3):
        write_picture(sequence / f"img1/{number:06d}.jpg", size=(60, 40))
    (sequence / "gt").mkdir()
    (sequence / "gt/gt.txt").write_text("1,5,10,4,8,20,1,1,1\n3,5,12,4,9,20,1,1,1\n3,6,30,4,8,20,0,8,0.2\n")
    (sequence / "seqinfo.ini").write_text("[Sequence]\nname=MOT17-02\nimDir=img1\nframeRate=10\nseqLength=3\n")
    dataset = read("mot", tmp_path)
    assert [(p.frame_id, p.frame_index, p.timestamp_s) for p in dataset.pictures] == [
        ("MOT17-02/img1#0", 0, 0.0), ("MOT17-02/img1#1", 1, 0.1), ("MOT17-02/img1#2", 2, 0.2),
    ]  # fmt: skip
    rows, _ = frame_rows(tmp_path, dataset.pictures)
    assert [[(one["identity"], one["track_id"]) for one in row["persons"]] for row in rows] == [
        [("MOT17-02-5", "5")], [], [("MOT17-02-5", "5")],
    ]  # fmt: skip
    assert rows[2]["persons"][0]["box_xyxy_px"] == [12, 4, 21, 24]
    assert [(q.identity, q.frame_id) for q in dataset.questions] == [("MOT17-02-5", "MOT17-02/img1#2")]


if os.environ.get("PSREID_SHARED"):

    def test_real_footage_with_its_truth() -> None:
        """PETS09-S2L1 and TUD-Campus: 795 and 71 frames, 19 and 8 identities; every 12th frame from frame 0."""
        config = ImportConfig(format="mot", source=f"{os.environ['PSREID_SHARED']}/footage", out="unused", every=12)
        plan = plan_import(config)
        assert plan.lines["test pictures"] == 67 + 6
        assert plan.lines["test identities"] == 19 + 8
        assert plan.lines["queries"] == 27
