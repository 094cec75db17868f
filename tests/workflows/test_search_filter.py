"""Search by date and camera: which parts and row groups are opened, and that no frame is lost or added by it."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling.errors import DataError
from tests.workflows import small_archive as small
from workflows.index import frames as frames_module
from workflows.index.filter import FrameFilter
from workflows.index.frames import read_frames
from workflows.index.inputs import open_step
from workflows.schema import FRAMES
from workflows.scope import scope_of
from workflows.search.extent import check_filter, coverage_of
from workflows.storage import Folder

START = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
HOURS = 24
CAMERAS = ("cam-0", "cam-1")


def at(hour: float) -> datetime.datetime:
    return START + datetime.timedelta(hours=hour)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two cameras, a frame a quarter of an hour for a day; a part holds two hours, a row group one."""
    rows = [
        small.frame_row(camera, number, [("red", 4)]) | {"recorded_at": at(number / 4)}
        for camera in CAMERAS
        for number in range(4 * HOURS)
    ]
    return small.write_frames(tmp_path_factory.mktemp("dated") / "frames", rows)


def chosen_parts(archive: str, chosen: FrameFilter) -> list[str]:
    step = open_step(archive, command="ingest")
    return [part.name for part in step.parts if chosen.may_hold(part.scope)]


def found(archive: str, parts: list[str], chosen: FrameFilter) -> set[str]:
    folder = Folder(archive)
    return {
        row
        for part in parts
        for table in read_frames(folder, part, frames=chosen)
        for row in table["frame_id"].to_pylist()
    }


@pytest.mark.parametrize(
    ("chosen", "parts", "groups"),
    [
        (FrameFilter(), 24, 48),
        (FrameFilter(cameras=("cam-1",)), 12, 24),
        (FrameFilter(since=at(6), until=at(8.5)), 4, 6),
        (FrameFilter(cameras=("cam-0",), since=at(23.5)), 1, 1),
        (FrameFilter(cameras=("cam-0",), since_s=4.0, until_s=4.2), 1, 1),
    ],
)
def test_only_parts_and_row_groups_that_can_hold_a_frame_are_read(
    archive: str, chosen: FrameFilter, parts: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, tuple[str, ...]]] = []

    class CountingFile(pq.ParquetFile):
        def read_row_group(self, group: int, columns: Any = None, **options: Any) -> pa.Table:
            read.append((group, tuple(columns)))
            return super().read_row_group(group, columns=columns, **options)

    monkeypatch.setattr(frames_module.pq, "ParquetFile", CountingFile)
    everything = [part.name for part in open_step(archive, command="ingest").parts]
    opened = chosen_parts(archive, chosen)
    assert (len(opened), len(everything)) == (parts, 24)
    narrow = found(archive, opened, chosen)
    assert sum("image" in columns for _, columns in read) == groups
    assert narrow == found(archive, everything, chosen)  # the parts passed by hold nothing
    assert narrow == expected(chosen)


def expected(chosen: FrameFilter) -> set[str]:
    """The frames that count, by the conditions written out."""
    kept = set()
    for camera in CAMERAS:
        for number in range(4 * HOURS):
            moment, second = at(number / 4), number / 5
            if chosen.cameras and camera not in chosen.cameras:
                continue
            if (chosen.since and moment < chosen.since) or (chosen.until and moment > chosen.until):
                continue
            if chosen.since_s is not None and not chosen.since_s <= second <= (chosen.until_s or second):
                continue
            kept.add(f"{camera}/video#{number}")
    return kept


def test_a_search_that_can_find_nothing_says_what_there_is(archive: str, tmp_path: Path) -> None:
    step = open_step(archive, command="ingest")
    with pytest.raises(
        DataError, match=r"cameras cam-0, cam-1, recorded from 2026-11-01T00:00:00.* to 2026-11-01T23:45"
    ):
        check_filter(step, FrameFilter(since=at(48)))
    without = open_step(small.write_frames(tmp_path / "plain", small.random_frames(16)), command="ingest")
    assert coverage_of(without).num_without_clock == 16
    with pytest.raises(DataError, match=r"no frame tells when it was recorded.*--start-times"):
        check_filter(without, FrameFilter(since=at(0)))


def test_a_part_that_says_nothing_of_itself_is_read() -> None:
    assert FrameFilter(cameras=("cam-9",), since=at(0)).may_hold(None)
    assert FrameFilter(cameras=("cam-9",)).may_hold({"timestamp_s": [0.0, 1.0]})
    assert scope_of(FRAMES.empty_table()) is None
    nameless = pa.table({"camera_id": pa.array([None, "cam-b", "cam-a"], pa.string())})
    assert scope_of(nameless) == {"cameras": ["cam-a", "cam-b"]}


def test_frames_of_the_first_schema_are_read_without_a_clock(archive: str, tmp_path: Path) -> None:
    folder = Folder(archive)
    name = open_step(archive, command="ingest").parts[0].name
    table = folder.read_table(name).drop_columns(["recorded_at"])
    older = FRAMES.remove(FRAMES.get_field_index("recorded_at"))
    metadata = {**FRAMES.metadata, b"psreid.schema_version": b"1"}
    Folder(str(tmp_path)).write_table("part.parquet", table.cast(older).replace_schema_metadata(metadata))
    (read,) = list(read_frames(Folder(str(tmp_path)), "part.parquet"))
    assert read.num_rows == table.num_rows and read["recorded_at"].null_count == table.num_rows
    assert not list(read_frames(Folder(str(tmp_path)), "part.parquet", frames=FrameFilter(since=at(0))))
