"""The six-task benchmark: which crops, which queries, and that the right answers are right."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from modeling.instruct_reid.attributes import ATTRIBUTES
from modeling.instruct_reid.instructions import TASKS
from modeling.instruct_reid.protocol import TASK_RULES
from modeling.metrics.reid import relations
from tests.workflows.reid_archive import reid_archive
from workflows.archive.six_tasks import CutPersons, choose_queries, labels_of, query_labels, query_table
from workflows.archive.wardrobe import Wardrobe, cut_upper_clothes, open_wardrobe
from workflows.ledger import Ledger, Shard
from workflows.schema import CROPS, QUERIES, WARDROBE, require_table
from workflows.stages import ShardBatch
from workflows.storage import Folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return reid_archive(str(tmp_path_factory.mktemp("reid") / "archive"))


@pytest.fixture(scope="module")
def crops(archive: Folder) -> pa.Table:
    frames = archive.child("tables", "frames")
    stage = CutPersons(frames_uri=frames.uri, gap_s=2.0)
    batches = [stage(ShardBatch(Shard(p.shard_id, {"part": p.name}))) for p in Ledger.read(frames).parts()]
    assert sum(sum(batch.drops.values()) for batch in batches) > 0 and not any(batch.quarantine for batch in batches)
    return pa.concat_tables([batch.table for batch in batches])


def test_the_wardrobe_knows_every_set_of_clothes(archive: Folder) -> None:
    table = archive.child("tables", "wardrobe").read_table("wardrobe.parquet")
    require_table(table.schema, WARDROBE, source="wardrobe")
    assert table.num_rows == 12  # six persons, two sets each
    for row in table.to_pylist():
        assert all(entry["word"] in ATTRIBUTES[entry["name"]] for entry in row["attributes"])
        picture = np.asarray(Image.open(io.BytesIO(row["picture"])))
        assert picture.shape == (96, 96, 3) and picture[0, 0].tolist() == [246] * 3 and picture.std() > 10
    wardrobe = open_wardrobe(archive.path("tables/frames"))
    assert set(wardrobe.pictures) == set(table["clothes_id"].to_pylist()) == set(wardrobe.attributes)


def test_crops_are_persons_with_words(crops: pa.Table) -> None:
    require_table(crops.schema, CROPS, source="crops")
    for row in crops.slice(0, 20).to_pylist():
        width, height = Image.open(io.BytesIO(row["image"])).size
        box = row["box_xyxy_px"]
        assert abs(width - (box[2] - box[0])) <= 2 and abs(height - (box[3] - box[1])) <= 2
        assert row["description"] and row["text"] and row["description"] != row["text"]


def test_every_task_has_queries_that_can_be_answered(crops: pa.Table) -> None:
    asked, labels = choose_queries(crops, per_identity=2, seed=0), labels_of(crops)
    assert {one.task for one in asked} == set(TASKS)
    for one in asked:
        is_match, _ = relations(TASK_RULES[one.task], query_labels(one, labels), 0, labels)
        found = np.flatnonzero(is_match)
        assert len(found) and (labels.identities[found] == labels.identities[one.shown]).all()
        clothes, own = labels.clothes[found], labels.clothes[one.shown]
        if one.task in ("Trad", "VI", "T2I"):
            assert (clothes == own).all()
        if one.task == "CC":
            assert (clothes != own).all()
        if one.task == "CTCC":
            assert labels.clothes[one.wanted] != own and (clothes == labels.clothes[one.wanted]).all()
        if one.task == "VI":
            assert (labels.modalities[found] != labels.modalities[one.shown]).all()
        if one.task != "T2I":
            assert (labels.cameras[found] != labels.cameras[one.shown]).all()
    assert {labels.modalities[one.shown] for one in asked if one.task == "VI"} == {"rgb", "ir"}


def test_queries_follow_from_rows_and_seed(crops: pa.Table) -> None:
    one, same, other = (choose_queries(crops, per_identity=1, seed=seed) for seed in (1, 1, 2))
    assert one == same and one != other
    assert max(sum(q.task == task for q in one) for task in TASKS) <= 6


def test_query_rows(crops: pa.Table, archive: Folder) -> None:
    asked = choose_queries(crops, per_identity=1, seed=0)
    images = crops["image"]
    pictures = {row: images[row].as_py() for one in asked for row in (one.shown, one.wanted)}
    table = query_table(asked, crops, pictures, open_wardrobe(archive.path("tables/frames")))
    require_table(table.schema, QUERIES, source="queries")
    assert len(set(table["query_id"].to_pylist())) == len(asked)
    for row in table.to_pylist():
        assert (row["image"] is None) == (row["task"] == "T2I")
        assert (row["instruction_image"] is not None) == (row["task"] == "CTCC")
        assert (row["instruction"] is None) == (row["task"] == "CTCC")
        if row["task"] == "CTCC":  # the shop's picture of the clothes, not the query's own
            assert Image.open(io.BytesIO(row["instruction_image"])).size == (96, 96)


def test_without_a_wardrobe_clothes_are_cut_from_a_picture() -> None:
    person = np.zeros((100, 50, 3), np.uint8)
    person[14:54, 6:44] = 200
    cut = cut_upper_clothes(person)
    assert cut.shape == (40, 38, 3) and (cut == 200).all()
    assert Wardrobe().picture_of("a", person).shape == cut.shape
    assert Wardrobe().describe("a", "a man", key="x") == "a man"
    assert cut_upper_clothes(np.zeros((1, 1, 3), np.uint8)).size == 3
