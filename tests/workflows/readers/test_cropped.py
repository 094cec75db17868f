"""Data sets of cropped persons, each on a small tree of its very format: who, where, in what, and what is junk."""

import random
from pathlib import Path

import pytest

from modeling.errors import DataError
from tests.workflows.readers.trees import (
    HEIGHT,
    WIDTH,
    frame_rows,
    people,
    query_rows,
    read,
    write_cuhk03,
    write_llcm,
    write_market,
    write_pictures,
    write_prcc,
)
from workflows.archive.readers.dataset import Dataset
from workflows.schema import ALL_QUERIES


def gallery_files(dataset: Dataset, name: str, query_id: str = ALL_QUERIES) -> list[str]:
    """The files behind a gallery."""
    file_of = {picture.frame_id: picture.file for picture in dataset.pictures}
    return [file_of[frame_id] for frame_id in dataset.galleries[name][query_id]]


def test_market_keeps_junk_and_distractors_apart(tmp_path: Path) -> None:
    write_market(tmp_path)
    dataset = read("market1501", tmp_path)
    assert people(dataset.of_split("train")) == [
        ("bounding_box_train/0002_c1s1_000451_03.jpg", "2", "c1", None),
        ("bounding_box_train/0002_c2s1_000301_01.jpg", "2", "c2", None),
        ("bounding_box_train/0007_c3s3_1.jpg", "7", "c3", None),
    ]
    assert [person[1] for person in people(dataset.of_split("test"))] == ["-1", "0", "1", "1"]
    assert gallery_files(dataset, "all") == [
        "bounding_box_test/0000_c1s1_000151_01.jpg",
        "bounding_box_test/0001_c1s1_000007_00.jpg",
        "bounding_box_test/0001_c2s1_000976_01.jpg",
    ]
    assert [(q.query_id, q.identity, q.camera_id) for q in dataset.questions] == [
        ("0001_c1s1_001051_00", "1", "c1"),
        ("0003_c4s6_015641_00", "3", "c4"),
    ]
    assert dataset.settings[0].junk == ("same camera",)
    assert (dataset.unknown_identities, dataset.distractor_identities) == (("-1",), ("0",))
    assert dataset.counts == {
        "train pictures": 3, "train identities": 2, "test pictures": 4, "test identities": 1,
        "train and val pictures": 3, "queries": 2, "query identities": 2, "gallery pictures": 3,
    }  # fmt: skip


def test_market_with_the_supplement_has_a_second_gallery(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_pictures(tmp_path / "images", ["img_00000.jpg", "img_00001.jpg"])
    dataset = read("market1501", tmp_path)
    assert len(gallery_files(dataset, "all")) == 3
    assert len(gallery_files(dataset, "500k")) == 5
    assert dataset.published["gallery pictures"] == 515_913


def test_a_crop_is_a_frame_with_one_person_who_fills_it(tmp_path: Path) -> None:
    write_market(tmp_path)
    dataset = read("market1501", tmp_path)
    rows, _ = frame_rows(tmp_path, dataset.of_split("train"))
    assert rows[0]["frame_id"] == "c1/bounding_box_train~0002_c1s1_000451_03#0"
    assert (rows[0]["width"], rows[0]["height"], rows[0]["modality"]) == (WIDTH, HEIGHT, "rgb")
    assert rows[0]["image"] == (tmp_path / "bounding_box_train/0002_c1s1_000451_03.jpg").read_bytes()
    (person,) = rows[0]["persons"]
    assert person["box_xyxy_px"] == [0, 0, WIDTH, HEIGHT]
    assert person["person_id"] == rows[0]["frame_id"] + "/0"
    assert query_rows(tmp_path, dataset.questions)[1]["identity"] == "3"


def test_a_file_that_is_no_picture_is_set_aside(tmp_path: Path) -> None:
    write_market(tmp_path)
    (tmp_path / "bounding_box_train/0007_c3s3_1.jpg").write_bytes(b"not a picture")
    rows, batch = frame_rows(tmp_path, read("market1501", tmp_path).of_split("train"))
    assert len(rows) == 2
    assert [(row.row_id, row.reason) for row in batch.quarantine] == [
        ("c3/bounding_box_train~0007_c3s3_1#0", "bad_image")
    ]


def test_msmt17_reads_its_lists(tmp_path: Path) -> None:
    names = {
        "train": ["0000/0000_000_01_0303morning_0015_0.jpg", "0001/0001_003_15_0303noon_0020_1.jpg"],
        "val": ["0001/0001_004_02_0303noon_0030_1.jpg"],
        "query": ["0000/0000_000_03_0303morning_0008_0.jpg"],
        "gallery": ["0000/0000_001_04_0303morning_0009_0.jpg", "0007/0007_001_04_0303morning_0009_0.jpg"],
    }
    for part, files in names.items():
        write_pictures(tmp_path / ("mask_train_v2" if part in ("train", "val") else "mask_test_v2"), files)
        lines = [f"{name} {int(name.split('/')[0])}" for name in files]
        (tmp_path / f"list_{part}.txt").write_text("\n".join(lines) + "\n")
    dataset = read("msmt17", tmp_path)
    assert [person[:3] for person in people(dataset.pictures)] == [
        (f"mask_train_v2/{names['train'][0]}", "t0", "c1"),
        (f"mask_train_v2/{names['train'][1]}", "t1", "c15"),
        (f"mask_train_v2/{names['val'][0]}", "t1", "c2"),
        (f"mask_test_v2/{names['gallery'][0]}", "0", "c4"),
        (f"mask_test_v2/{names['gallery'][1]}", "7", "c4"),
    ]
    assert dataset.counts["train and val pictures"] == 3
    assert (dataset.questions[0].identity, dataset.questions[0].camera_id) == ("0", "c3")
    (tmp_path / "list_query.txt").write_text("0000/0000_000_01_gone.jpg 0\n")
    with pytest.raises(DataError, match=r"1 of the 1 pictures listed in .*list_query.txt are missing"):
        read("msmt17", tmp_path)
    (tmp_path / "list_query.txt").write_text("\n0000/picture.jpg\n")
    with pytest.raises(DataError, match=r"list_query.txt, line 2"):
        read("msmt17", tmp_path)


@pytest.mark.parametrize("kind", ["detected", "labeled"])
def test_cuhk03_counts_its_pictures_from_one(tmp_path: Path, kind: str) -> None:
    write_cuhk03(tmp_path, kind)
    dataset = read("cuhk03", tmp_path, kind)
    folder = f"images_{kind}/"
    assert [person[:3] for person in people(dataset.of_split("train"))] == [
        (folder + "1_001_1_01.png", "1", "c1"),
        (folder + "1_001_2_06.png", "1", "c2"),
    ]
    assert [(q.file, q.identity) for q in dataset.questions] == [(folder + "2_004_1_01.png", "2")]
    assert gallery_files(dataset, "all") == [folder + "2_004_2_06.png", folder + "2_004_2_07.png"]
    assert dataset.published["train pictures"] == (7_365 if kind == "detected" else 7_368)
    rows, _ = frame_rows(tmp_path, dataset.of_split("train"))
    assert rows[0]["image"][:2] == b"\xff\xd8"  # PNG in, JPEG out


def test_cuhk03_still_packed_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cuhk03_release").mkdir()
    (tmp_path / "cuhk03_release/cuhk-03.mat").write_bytes(b"MATLAB 7.3 MAT-file")
    with pytest.raises(DataError, match=r"still packed .*images_detected/"):
        read("cuhk03", tmp_path)


def test_ltcc_knows_clothes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", ["005_1_c1_000001.png", "005_2_c12_000002.png"])
    write_pictures(tmp_path / "query", ["094_1_c9_015833.png"])
    write_pictures(tmp_path / "test", ["094_1_c3_015840.png", "094_2_c9_015841.png"])
    dataset = read("ltcc", tmp_path)
    assert [person[1:] for person in people(dataset.pictures)] == [
        ("5", "c1", "5-1"), ("5", "c12", "5-2"), ("94", "c3", "94-1"), ("94", "c9", "94-2"),
    ]  # fmt: skip
    assert (dataset.questions[0].clothes_id, dataset.questions[0].task) == ("94-1", "CC")
    assert {s.name: s.junk for s in dataset.settings} == {
        "standard": ("same camera",),
        "cloth-changing": ("same camera", "same clothes"),
    }


def test_vc_clothes_has_a_gallery_for_each_pair_of_cameras(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", ["0001-01-01-00.jpg"])
    write_pictures(tmp_path / "query", ["0009-02-01-05.jpg", "0009-04-03-01.jpg"])
    write_pictures(
        tmp_path / "gallery", ["0009-01-01-00.jpg", "0009-02-01-01.jpg", "0009-03-01-02.jpg", "0009-04-03-03.jpg"]
    )
    dataset = read("vc-clothes", tmp_path)
    assert [person[1:] for person in people(dataset.of_split("test"))] == [
        ("9", "c1", "9-1"), ("9", "c2", "9-1"), ("9", "c3", "9-1"), ("9", "c4", "9-3"),
    ]  # fmt: skip
    assert list(dataset.galleries["same clothes"]) == ["0009-02-01-05"]
    assert gallery_files(dataset, "same clothes", "0009-02-01-05") == [
        "gallery/0009-02-01-01.jpg",
        "gallery/0009-03-01-02.jpg",
    ]
    assert gallery_files(dataset, "other clothes", "0009-04-03-01") == [
        "gallery/0009-03-01-02.jpg",
        "gallery/0009-04-03-03.jpg",
    ]


def test_prcc_draws_single_shot_galleries(tmp_path: Path) -> None:
    write_prcc(tmp_path)
    dataset = read("prcc", tmp_path)
    assert [person[1:] for person in people(dataset.of_split("train"))] == [
        ("003", "A", "003-AB"), ("003", "B", "003-AB"), ("003", "C", "003-C"),
    ]  # fmt: skip
    assert len(dataset.galleries) == 10
    generator = random.Random(3)
    for number in range(10):
        expected = [
            generator.choice([f"rgb/test/A/{who}/cropped_rgb{shot:03d}.jpg" for shot in range(5)])
            for who in ("074", "120")
        ]
        assert gallery_files(dataset, f"draw-{number}") == expected
    assert [(q.query_id, q.task, q.clothes_id) for q in dataset.questions] == [
        ("B-074-cropped_rgb001", "Trad", "074-AB"), ("B-120-cropped_rgb001", "Trad", "120-AB"),
        ("C-074-cropped_rgb001", "CC", "074-C"), ("C-120-cropped_rgb001", "CC", "120-C"),
    ]  # fmt: skip


def test_llcm_draws_as_published_code_does(tmp_path: Path) -> None:
    """One picture for each identity and camera, identities in order, from a generator seeded with the trial."""
    write_llcm(tmp_path)
    dataset = read("llcm", tmp_path)
    for trial in range(10):
        random.seed(trial)
        expected = []
        for identity in ("0001", "0005"):
            for camera in (1, 3):
                names = sorted(f"{identity}_c{camera}_{number:03d}.jpg" for number in range(4))
                expected.append(f"test_vis/cam{camera}/{identity}/{random.choice(names)}")
        assert gallery_files(dataset, f"vis-{trial}") == expected
    assert len(dataset.of_split("test")) == 32
    assert [person[1:3] for person in people(dataset.of_split("train"))] == [("t0", "c1"), ("t0", "c5")]
    setting = {setting.name: setting for setting in dataset.settings}["VIS to IR"]
    assert (setting.queries, setting.junk, setting.galleries[0]) == ({"modality": "rgb"}, ("same camera",), "nir-0")
    rows = query_rows(tmp_path, [q for q in dataset.questions if q.modality == "ir"][:1])
    assert (rows[0]["modality"], rows[0]["camera_id"], rows[0]["identity"]) == ("ir", "c1", "1")
