"""Data sets with words or pictures of clothes as instructions, and the mistakes people make with any of them."""

import json
from pathlib import Path

import pytest

from modeling.errors import ConfigError, DataError
from tests.workflows.readers.trees import (
    frame_rows,
    people,
    query_rows,
    read,
    write_lists,
    write_market,
    write_pedes,
    write_pictures,
)
from workflows.archive.readers.config import ImportConfig
from workflows.archive.readers.formats import READERS
from workflows.config import load_config
from workflows.schema import ALL_QUERIES


def test_every_caption_of_a_test_picture_is_a_query(tmp_path: Path) -> None:
    write_pedes(tmp_path)
    dataset = read("cuhk-pedes", tmp_path)
    assert [(q.query_id, q.text, q.identity, q.task) for q in dataset.questions] == [
        ("2-0", "A boy with a bag.", "3", "T2I"), ("2-1", "A boy.", "3", "T2I"), ("3-0", "A girl.", "4", "T2I"),
    ]  # fmt: skip
    assert [(p.file, p.split, p.camera_id) for p in dataset.pictures][:2] == [
        ("imgs/cam_a/000_45.bmp", "train", "cam_a"), ("imgs/CUHK01/0363004.png", "val", "CUHK01"),
    ]  # fmt: skip
    assert dataset.pictures[0].persons[0].text == "A man in red.\nHe walks."
    rows = query_rows(tmp_path, dataset.questions)
    assert (rows[0]["image"], rows[0]["text"], rows[0]["modality"]) == (None, "A boy with a bag.", None)
    assert len(frame_rows(tmp_path, dataset.pictures)[0]) == 4


def test_the_version_of_cuhk_pedes_without_splits_is_explained(tmp_path: Path) -> None:
    write_pedes(tmp_path)
    (tmp_path / "reid_raw.json").rename(tmp_path / "caption_all.json")
    config = ImportConfig(format="cuhk-pedes", source=str(tmp_path), out="unused")
    from workflows.archive.readers.step import plan_import

    with pytest.raises(DataError, match=r"has caption_all.json, which has no splits"):
        plan_import(config)


def test_lists_with_pictures_of_clothes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data/clothes", ["x.png"])
    write_lists(tmp_path, ["clothes/x.png"] * 5)
    for name, task in (("omnireid", "CC"), ("cocas-plus", "CTCC")):
        dataset = read(name, tmp_path)
        assert people(dataset.pictures) == [
            ("data/train/a.jpg", "10", "c0", "10-0"), ("data/train/b.jpg", "11", "c1", "11-0"),
            ("data/gallery/d.jpg", "3", "c3", "3-1"), ("data/gallery/e.jpg", "4", "c4", "4-0"),
        ]  # fmt: skip
        (question,) = dataset.questions
        assert (question.task, question.clothes_id, question.instruction_file) == (task, "3-1", "data/clothes/x.png")
        (row,) = query_rows(tmp_path, dataset.questions)
        assert row["instruction_image"] == (tmp_path / "data/clothes/x.png").read_bytes()


@pytest.mark.parametrize(("variant", "task"), [("attr", "LI"), ("t2i", "T2I")])
def test_lists_with_captions(tmp_path: Path, variant: str, task: str) -> None:
    write_lists(tmp_path, ["k0", "k1", "k2", "001_1_c5_015874.png", "001_1_c5_015874.png"], cameras=False)
    captions = {"k0": "A.", "k1": "B.", "k2": "A red coat."}
    (tmp_path / "lists/captions.json").write_text(json.dumps(captions))
    dataset = read("omnireid", tmp_path, variant)
    (question,) = dataset.questions
    assert (question.task, question.camera_id) == (task, None)
    assert (question.text, question.instruction) == (("A red coat.", None) if task == "T2I" else (None, "A red coat."))
    assert (question.file is None) == (task == "T2I")
    assert [p.persons[0].text for p in dataset.pictures] == ["A.", "B.", None, None]
    assert {p.camera_id for p in dataset.pictures} == {"unknown"}


def test_lists_of_several_data_sets_are_not_mixed(tmp_path: Path) -> None:
    write_lists(tmp_path, ["x"] * 5)
    (tmp_path / "lists/query_other.txt").write_text("a x 1 1\n")
    with pytest.raises(DataError, match=r"has 2 lists \*query\*.txt"):
        read("omnireid", tmp_path, "sc")


def test_a_wrong_folder_level_names_the_right_one(tmp_path: Path) -> None:
    root = tmp_path / "sets/Market-1501-v15.09.15"
    write_market(root)
    for wrong in (tmp_path, tmp_path / "sets", root / "query"):
        with pytest.raises(DataError) as caught:
            read("market1501", wrong)
        assert f"{root} has all of it: give that folder" in str(caught.value)


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    write_market(tmp_path)
    for file in (tmp_path / "query").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"is not Market-1501: there is no query/ in it. Unpack"):
        read("market1501", tmp_path)
    with pytest.raises(DataError, match=r"does not exist or is empty"):
        read("market1501", tmp_path / "nowhere")


def test_a_name_that_says_nothing_is_named(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_pictures(tmp_path / "query", ["IMG_0001.jpg"])
    with pytest.raises(DataError, match=r"query/IMG_0001.jpg is not named like 0002_c1s1_000451_03.jpg"):
        read("market1501", tmp_path)


@pytest.mark.parametrize("name", list(READERS))
def test_every_format_refuses_an_unrelated_folder_in_one_line(tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path, ["holiday/1.jpg"])
    with pytest.raises(DataError) as caught:
        read(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_formats_and_variants_are_checked_as_settings() -> None:
    with pytest.raises(ConfigError, match="must be one of market1501"):
        load_config(ImportConfig, flags={"format": "market", "source": "a", "out": "b"})
    with pytest.raises(ConfigError, match="variant 'raw' is not one of detected, labeled"):
        load_config(ImportConfig, flags={"format": "cuhk03", "source": "a", "out": "b", "variant": "raw"})


def test_galleries_for_all_queries_have_one_row(tmp_path: Path) -> None:
    from workflows.archive.readers.step import galleries_table

    write_market(tmp_path)
    table = galleries_table(read("market1501", tmp_path))
    assert table["query_id"].to_pylist() == [ALL_QUERIES]
