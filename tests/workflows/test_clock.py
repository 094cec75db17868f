"""When a video was recorded: file names, containers, tables, time zones."""

import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import av
import pytest

from modeling.errors import ConfigError, DataError
from tests.workflows.numbered_video import write_video
from workflows.clock import Clock, parse_moment
from workflows.ingest.config import IngestConfig
from workflows.ingest.decode import DecodeFrames
from workflows.ingest.plan import make_plan
from workflows.progress import Progress
from workflows.stages import ShardBatch

UTC = ZoneInfo("UTC")


def start(name: str, zone: str = "UTC", rule: str = "auto", creation_time: str | None = None) -> str | None:
    found = Clock.of(rule, zone).start_of(f"s3://bucket/gate/{name}", creation_time)
    return found.isoformat() if found else None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gate_20261101_080000.mp4", "2026-11-01T08:00:00+00:00"),
        ("20261101080000.mp4", "2026-11-01T08:00:00+00:00"),
        ("2026-11-01T08-00-00Z.mkv", "2026-11-01T08:00:00+00:00"),
        ("cam3-2026.11.01 08.05.mp4", "2026-11-01T08:05:00+00:00"),
        ("VID_20261101_080000123.mp4", "2026-11-01T08:00:00+00:00"),
        ("gate_20261399_080000.mp4", None),  # no such month
        ("gate_20261101.mp4", None),  # a day is no time
        ("gate_00120261101080000.mp4", None),  # digits of a longer number
        ("cam-01.mp4", None),
    ],
)
def test_a_file_name_with_date_and_time_tells_the_start(name: str, expected: str | None) -> None:
    assert start(name) == expected


def test_local_times_are_in_the_zone_of_the_settings_and_a_z_is_utc() -> None:
    assert start("gate_20260701_080000.mp4", zone="Europe/Berlin") == "2026-07-01T06:00:00+00:00"
    assert start("gate_20260701_080000Z.mp4", zone="Europe/Berlin") == "2026-07-01T08:00:00+00:00"


def test_the_name_comes_before_the_container_and_clocks_that_were_never_set_do_not_count() -> None:
    made = "2026-11-02T10:00:00.000000Z"
    assert start("gate.mp4", creation_time=made) == "2026-11-02T10:00:00+00:00"
    assert start("gate_20261101_080000.mp4", creation_time=made) == "2026-11-01T08:00:00+00:00"
    assert start("gate.mp4", creation_time="1904-01-01T00:00:00Z") is None
    assert start("gate.mp4", rule="name", creation_time=made) is None
    assert start("gate_20261101_080000.mp4", rule="none", creation_time=made) is None


def test_a_table_names_files_by_as_much_of_their_path_as_it_takes(tmp_path: Path) -> None:
    table = tmp_path / "starts.csv"
    table.write_text("file,start\ngate/a.mp4,2026-11-01T08:00\nb.mp4,2026-11-01T09:00:00+01:00\n")
    assert start("a.mp4", rule=str(table)) == "2026-11-01T08:00:00+00:00"
    assert start("b.mp4", rule=str(table), zone="Europe/Berlin") == "2026-11-01T08:00:00+00:00"
    assert start("c_20261101_080000.mp4", rule=str(table)) is None
    table.write_text("file,start\na.mp4,yesterday\n")
    with pytest.raises(DataError, match="line 2: 'yesterday' is not a moment"):
        Clock.of(str(table), "UTC")
    with pytest.raises(ConfigError, match="neither a rule"):
        Clock.of("nmae", "UTC")
    with pytest.raises(ConfigError, match="not known here"):
        Clock.of("auto", "Mars/Olympus")


def test_a_moment_needs_a_date() -> None:
    assert parse_moment("2026-11-01", UTC) == datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    with pytest.raises(ConfigError, match="is not a moment"):
        parse_moment("12.5", UTC)


def test_every_frame_gets_its_moment(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "gate_20261101_080000.mp4", 8, rate=4, options={"g": "4"})
    config = IngestConfig(sources=[str(tmp_path / "v")], out=str(tmp_path / "o"), time_zone="Europe/Berlin")
    (shard,) = make_plan(config, Progress()).shards
    moments = DecodeFrames()(ShardBatch(shard)).table["recorded_at"].to_pylist()
    first = datetime.datetime(2026, 11, 1, 7, tzinfo=datetime.UTC)
    assert moments == [first + datetime.timedelta(seconds=number / 4) for number in range(8)]


def test_the_creation_time_of_a_real_container_is_read(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", 4, rate=4, options={"g": "4"})
    dated = tmp_path / "v" / "dated.mp4"
    dated.parent.mkdir()
    with av.open(str(plain)) as source, av.open(str(dated), "w") as sink:
        sink.metadata["creation_time"] = "2026-11-02T10:00:00.000000Z"
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    config = IngestConfig(sources=[str(dated.parent)], out=str(tmp_path / "o"))
    plan = make_plan(config, Progress())
    assert plan.shards[0].payload["recorded_at"] == "2026-11-02T10:00:00+00:00"
    assert plan.num_without_clock == 0
