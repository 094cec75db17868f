"""The encoder stage without Ray, and the reading of frames by row group."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from modeling.errors import DataError
from tests.workflows.small_archive import COLOURS, ColourEncoder, colour_vector, frame_row, random_frames, write_frames
from workflows.index.config import IndexConfig
from workflows.index.encode import EncodePersons
from workflows.index.frames import FrameFilter, decode_image, read_frames
from workflows.index.inputs import open_step
from workflows.index.step import open_frames
from workflows.ledger import Shard
from workflows.schema import index_schema
from workflows.stages import ShardBatch
from workflows.storage import Folder


def encode(uri: str, part: str, **payload) -> ShardBatch:
    stage = EncodePersons(frames_uri=uri, load_encoder=ColourEncoder, batch_persons=5)
    return stage(ShardBatch(Shard("s", {"part": part, **payload})))


def parts_of(uri: str) -> list[str]:
    return [part.name for part in open_step(uri, command="ingest").parts]


def test_every_person_becomes_one_row_with_its_own_embedding(tmp_path: Path) -> None:
    frames = random_frames(16)
    uri = write_frames(tmp_path, frames)
    rows = [row for part in parts_of(uri) for row in encode(uri, part).table.to_pylist()]
    expected = {p["person_id"]: (f, p) for f in frames for p in f["persons"]}
    assert {row["person_id"] for row in rows} == set(expected) and len(rows) == len(expected)
    for row in rows:
        frame, person = expected[row["person_id"]]
        assert row["frame_id"] == frame["frame_id"] and row["camera_id"] == frame["camera_id"]
        assert row["timestamp_s"] == frame["timestamp_s"] and row["box_xyxy_px"] == person["box_xyxy_px"]
        own = colour_vector(np.array([[COLOURS[person["identity"]]]], dtype=np.uint8))
        assert np.dot(np.array(row["embedding"], dtype=np.float32), own) > 0.99
        assert frame["frame_id"] in pq.read_table(f"{uri}/{row['frames_part']}")["frame_id"].to_pylist()


def test_the_table_is_the_schema_even_without_persons(tmp_path: Path) -> None:
    uri = write_frames(tmp_path, [frame_row("cam", 0, []), frame_row("cam", 1, [])])
    result = encode(uri, parts_of(uri)[0])
    assert result.table.schema.equals(index_schema(6)) and result.table.num_rows == 0
    assert not result.quarantine and result.drops == {"frame_without_person": 2}


def test_bad_frames_and_persons_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    rows = [frame_row("cam", i, [("red", 4), ("blue", 30)]) for i in range(5)]
    rows[1]["image"] = None
    rows[2]["image"] = rows[2]["image"][:400]
    rows[3]["persons"][0]["box_xyxy_px"] = [10.0, 10.0, 10.0, 30.0]
    rows[4]["persons"][1]["box_xyxy_px"] = [500.0, 10.0, 520.0, 30.0]
    uri = write_frames(tmp_path, rows)
    result = encode(uri, parts_of(uri)[0])
    assert {(q.row_id, q.reason) for q in result.quarantine} == {
        ("cam/video#1", "no_image"),
        ("cam/video#2", "undecodable_image"),
        ("cam/video#3/0", "empty_crop"),
        ("cam/video#4/1", "empty_crop"),
    }
    assert result.table["person_id"].to_pylist() == [f"cam/video#{i}" for i in ("0/0", "0/1", "3/1", "4/0")]


def test_a_shard_splits_into_its_frames(tmp_path: Path) -> None:
    uri = write_frames(tmp_path, random_frames(8, cameras=1))
    stage = EncodePersons(frames_uri=uri, load_encoder=ColourEncoder, batch_persons=64)
    whole = Shard("s", {"part": parts_of(uri)[0]})
    pieces = [stage(ShardBatch(piece)).table for piece in stage.plan_rows(whole)]
    assert len(pieces) == 8
    together = [row for piece in pieces for row in piece.to_pylist()]
    assert together == stage(ShardBatch(whole)).table.to_pylist()


def test_row_groups_without_a_wanted_frame_are_not_read(tmp_path: Path) -> None:
    """The bytes of the other groups' pictures are overwritten: reading any of them would fail."""
    uri = write_frames(tmp_path, random_frames(16, cameras=1), rows_per_part=16, row_group_rows=4)
    part = parts_of(uri)[0]
    metadata = pq.ParquetFile(f"{uri}/{part}").metadata
    data = bytearray(Path(f"{uri}/{part}").read_bytes())
    for group in (0, 1, 3):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if column.path_in_schema == "image":
                start = column.dictionary_page_offset or column.data_page_offset
                data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    Path(f"{uri}/{part}").write_bytes(data)
    (table,) = read_frames(Folder(uri), part, frame_ids=["cam-0/video#9", "cam-0/video#10"])
    assert table["frame_id"].to_pylist() == ["cam-0/video#9", "cam-0/video#10"]
    (table,) = read_frames(Folder(uri), part, frames=FrameFilter(since_s=1.6, until_s=2.2))
    assert table["frame_id"].to_pylist() == [f"cam-0/video#{i}" for i in (8, 9, 10, 11)]
    with pytest.raises((OSError, ValueError)):
        list(read_frames(Folder(uri), part, frame_ids=["cam-0/video#1"]))


def test_frames_filter_by_camera(tmp_path: Path) -> None:
    uri = write_frames(tmp_path, random_frames(16, cameras=2), rows_per_part=16)
    tables = read_frames(Folder(uri), parts_of(uri)[0], frames=FrameFilter(cameras=("cam-1",)))
    assert {i for t in tables for i in t["camera_id"].to_pylist()} == {"cam-1"}


def test_no_frames_and_unfinished_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no frame"):
        open_frames(write_frames(tmp_path / "empty", []))
    uri = write_frames(tmp_path / "unfinished", random_frames(8))
    Folder(uri).remove("manifest.json")
    with pytest.raises(DataError, match="not finished"):
        open_frames(uri)
    with pytest.raises(DataError, match=r"no step\.json"):
        open_frames(str(tmp_path / "nowhere"))


def test_a_digest_follows_the_parts(tmp_path: Path) -> None:
    first = open_step(write_frames(tmp_path / "a", random_frames(16)), command="ingest").digest
    same = open_step(write_frames(tmp_path / "b", random_frames(16)), command="ingest").digest
    more = open_step(write_frames(tmp_path / "c", random_frames(32)), command="ingest").digest
    assert first == same != more


def test_decoding_says_what_is_wrong() -> None:
    with pytest.raises(DataError, match="frame 'f' has no image"):
        decode_image(None, what="frame 'f'")
    with pytest.raises(DataError, match="frame 'f' has an image that cannot be decoded"):
        decode_image(b"no picture", what="frame 'f'")


def test_defaults_are_valid() -> None:
    assert IndexConfig(frames="a", out="b").model == "tiny"
