"""Small data sets in the very formats that their authors publish, made for the tests that read them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from workflows.archive.readers.config import ImportConfig
from workflows.archive.readers.dataset import Dataset, Picture, Question
from workflows.archive.readers.formats import READERS
from workflows.archive.readers.source import Source
from workflows.archive.readers.stages import ReadPictures, ReadQuestions, picture_shard, question_shard
from workflows.stages import ShardBatch

WIDTH, HEIGHT = 12, 24


def write_picture(path: Path, *, size: tuple[int, int] = (WIDTH, HEIGHT), colour: tuple[int, int, int] = (200, 40, 30)):
    """A picture of one colour; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        write_picture(folder / name)


def read(name: str, folder: Path, variant: str | None = None) -> Dataset:
    """What the reader makes of a folder, by the checks that the command makes."""
    config = ImportConfig(format=name, source=str(folder), out="unused", variant=variant)
    source, reader = Source(config.source), READERS[name]
    source.require(reader.needs, title=reader.title)
    return reader.read(source, config.variant)


def frame_rows(folder: Path, pictures: Sequence[Picture]) -> tuple[list[dict[str, Any]], ShardBatch]:
    """Rows of the frames table, as a worker makes them, and the batch with what was dropped."""
    shard = picture_shard(pictures, versions=[], source_uri=str(folder))
    result = ReadPictures(jpeg_quality=95)(ShardBatch(through_json(shard)))
    return result.table.to_pylist(), result


def query_rows(folder: Path, questions: Sequence[Question]) -> list[dict[str, Any]]:
    shard = question_shard(questions, versions=[], source_uri=str(folder))
    return ReadQuestions(jpeg_quality=95, frames_uri="unused")(ShardBatch(through_json(shard))).table.to_pylist()


def through_json(shard):
    """The shard as it travels: its payload has been JSON."""
    return type(shard)(shard.shard_id, json.loads(json.dumps(shard.payload)), shard.rows_expected)


def people(pictures: Sequence[Picture]) -> list[tuple[str, str | None, str, str | None]]:
    """(file, identity, camera, clothes) of pictures with one person each."""
    return [(p.file, p.persons[0].identity, p.camera_id, p.persons[0].clothes_id) for p in pictures]


def cell(values: Sequence[Any]) -> np.ndarray:
    """A MATLAB cell column."""
    column = np.empty((len(values), 1), dtype=object)
    for place, value in enumerate(values):
        column[place, 0] = value
    return column


def struct_row(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """A MATLAB struct array of one row."""
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for place, row in enumerate(rows):
        array[0, place] = tuple(row)
    return array


def write_market(root: Path) -> None:
    write_pictures(
        root / "bounding_box_train", ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c3s3_1.jpg"]
    )
    write_pictures(root / "query", ["0001_c1s1_001051_00.jpg", "0003_c4s6_015641_00.jpg"])
    write_pictures(
        root / "bounding_box_test",
        ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c1s1_000007_00.jpg", "0001_c2s1_000976_01.jpg"],
    )
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"left behind")


SCENE_BOXES = ("imname", "idlocate", "ishard")


def write_cuhk_sysu(root: Path) -> None:
    """Three test scenes and one for training; two queries; s2 holds identity 1 and somebody unknown."""
    for name in ("s1.jpg", "s2.jpg", "s3.jpg", "s4.jpg"):
        write_picture(root / "Image/SSM" / name, size=(60, 40))
    box = {"query": [5, 4, 10, 20], "found": [30, 2, 12, 24], "unknown": [1, 1, 8, 16], "other": [20, 5, 9, 18]}
    located = {key: np.array([value], np.uint16) for key, value in box.items()}

    def boxes(*keys: str) -> np.ndarray:
        return struct_row(("idlocate", "ishard"), [(located[key], 0) for key in keys])

    images = [
        ("s1.jpg", 1, boxes("query")),
        ("s2.jpg", 2, boxes("found", "unknown")),
        ("s3.jpg", 1, boxes("other")),
        ("s4.jpg", 1, boxes("other")),
    ]
    (root / "annotation/test/train_test").mkdir(parents=True)
    savemat(root / "annotation/Images.mat", {"Img": struct_row(("imname", "nAppear", "box"), images)})
    savemat(root / "annotation/pool.mat", {"pool": cell(["s1.jpg", "s2.jpg", "s3.jpg"])})
    train = struct_row(
        ("idname", "nAppear", "scene"), [("p1", 1, struct_row(SCENE_BOXES, [("s4.jpg", located["other"], 0)]))]
    )
    folder = root / "annotation/test/train_test"
    savemat(folder / "Train.mat", {"Train": cell([train])})
    nothing = np.zeros((0, 0))
    for size, distractors in (("TestG50", ["s3.jpg"]), ("TestG100", ["s3.jpg", "s3.jpg", "s1.jpg"])):
        first = struct_row(
            SCENE_BOXES, [("s2.jpg", located["found"], 0), *((name, nothing, 0) for name in distractors)]
        )
        second = struct_row(SCENE_BOXES, [("s1.jpg", nothing, 0), ("s2.jpg", nothing, 0)])
        rows = [
            (struct_row(SCENE_BOXES, [("s1.jpg", located["query"], 0)]), first),
            (struct_row(SCENE_BOXES, [("s3.jpg", located["other"], 0)]), second),
        ]
        savemat(folder / f"{size}.mat", {size: struct_row(("Query", "Gallery"), rows)})


def write_prw(root: Path) -> None:
    stems = ("c1s1_000151", "c1s1_000176", "c2s1_000201")
    for stem in stems:
        write_picture(root / "frames" / f"{stem}.jpg", size=(60, 40))
    (root / "annotations").mkdir()
    savemat(root / "frame_train.mat", {"img_index_train": cell([stems[0]])})
    savemat(root / "frame_test.mat", {"img_index_test": cell([stems[1], stems[2]])})
    rows = {
        stems[0]: ("box_new", [[1, 5, 5, 10, 20]]),
        stems[1]: ("anno_file", [[479, -3, 2, 10, 20], [-2, 30, 2, 10, 20]]),
        stems[2]: ("anno_previous", [[479, 20.5, 2, 10, 30]]),
    }
    for stem, (key, boxes) in rows.items():
        savemat(root / "annotations" / f"{stem}.jpg.mat", {key: np.array(boxes, float)})
    (root / "query_info.txt").write_bytes(b"479 -3 2 10 20 c1s1_000176\r\n479 20 2 10 30 c2s1_000201\r\n")


def write_cuhk03(root: Path, kind: str = "detected") -> None:
    names = ["1_001_1_01.png", "1_001_2_06.png", "2_004_1_01.png", "2_004_2_06.png", "2_004_2_07.png"]
    write_pictures(root / f"images_{kind}", names)
    content = {
        "filelist": cell(names),
        "labels": np.array([[1], [1], [2], [2], [2]], np.uint16),
        "camId": np.array([[1], [2], [1], [2], [2]], np.uint8),
        "train_idx": np.array([[1], [2]], np.uint16),
        "query_idx": np.array([[3]], np.uint16),
        "gallery_idx": np.array([[4], [5]], np.uint16),
    }
    savemat(root / f"cuhk03_new_protocol_config_{kind}.mat", content)


def write_llcm(root: Path) -> None:
    write_pictures(root, ["train_vis/0002/0002_c1_001.jpg", "train_nir/0002/0002_c5_001.jpg"])
    for identity in ("0001", "0005"):
        for kind, camera in (("vis", 1), ("vis", 3), ("nir", 1), ("nir", 2)):
            names = [f"{identity}_c{camera}_{number:03d}.jpg" for number in range(4)]
            write_pictures(root / f"test_{kind}/cam{camera}/{identity}", names)
    write_pictures(root / "test_vis/cam1/0009", ["0009_c1_000.jpg"])  # no test identity
    (root / "idx").mkdir()
    (root / "idx/train_vis.txt").write_text("train_vis/0002/0002_c1_001.jpg 0\n")
    (root / "idx/train_nir.txt").write_text("train_nir/0002/0002_c5_001.jpg 0\n")
    (root / "idx/test_id.txt").write_text("5,1\n")


def write_prcc(root: Path) -> None:
    write_pictures(root / "rgb/train/003", ["A_cropped_rgb001.jpg", "B_cropped_rgb002.jpg", "C_cropped_rgb003.jpg"])
    write_pictures(root / "rgb/val/003", ["A_cropped_rgb009.jpg"])
    for identity in ("074", "120"):
        write_pictures(root / f"rgb/test/A/{identity}", [f"cropped_rgb{number:03d}.jpg" for number in range(5)])
        for camera in ("B", "C"):
            write_pictures(root / f"rgb/test/{camera}/{identity}", ["cropped_rgb001.jpg"])


def write_pedes(root: Path) -> None:
    rows = [
        ("train", ["A man in red.", "He  walks."], "cam_a/000_45.bmp", 1),
        ("val", ["A woman."], "CUHK01/0363004.png", 2),
        ("test", ["A boy with a bag.", "A boy."], "Market/0000_c1s1.jpg", 3),
        ("test", ["A girl."], "train_query/p1_s1.jpg", 4),
    ]
    write_pictures(root / "imgs", [row[2] for row in rows])
    content = [
        {"split": split, "captions": captions, "file_path": path, "processed_tokens": [], "id": identity}
        for split, captions, path, identity in rows
    ]
    (root / "reid_raw.json").write_text(json.dumps(content))


def write_lists(root: Path, instructions: Sequence[str], *, cameras: bool = True) -> None:
    """OmniReID lists over pictures in data/: two for training, one query, two searched."""
    files = ["train/a.jpg", "train/b.jpg", "query/c.jpg", "gallery/d.jpg", "gallery/e.jpg"]
    write_pictures(root / "data", files)
    people = [(10, 0), (11, 0), (3, 1), (3, 1), (4, 0)]
    lines = [
        f"{file} {key} {who} {clothes}" + (f" {number}" if cameras else "")
        for number, (file, key, (who, clothes)) in enumerate(zip(files, instructions, people, strict=True))
    ]
    lists = root / "lists"
    lists.mkdir()
    for role, part in (("train", lines[:2]), ("query", lines[2:3]), ("gallery", lines[3:])):
        (lists / f"{role}_list.txt").write_text("\n".join(part) + "\n")
