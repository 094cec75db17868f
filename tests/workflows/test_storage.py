"""Folders on local disk, and the retry rules of remote calls without a server (which tests/integration has)."""

import io
import logging
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from modeling.errors import ConfigError, DataError, StorageError
from workflows import remote
from workflows.storage import Folder, split_uri


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def test_what_is_written_is_read_back_and_listed_by_relative_name(folder: Folder) -> None:
    folder.write_bytes("a/b.bin", b"one")
    folder.write_json("c.json", {"ä": [1, None]})
    assert folder.read_bytes("a/b.bin") == b"one"
    assert folder.read_json("c.json") == {"ä": [1, None]}
    assert folder.list_files() == ["a/b.bin", "c.json"]
    assert folder.list_files("a/") == ["a/b.bin"]
    assert folder.list_files("a/b") == ["a/b.bin"]
    assert folder.list_files("nothing/") == []
    assert folder.exists("a/b.bin") and not folder.exists("a")
    assert folder.child("a").read_bytes("b.bin") == b"one"


def test_a_folder_that_does_not_exist_is_empty(folder: Folder) -> None:
    assert folder.list_files() == []
    assert not folder.has_files()


def test_a_failed_write_leaves_the_old_content_and_no_litter(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_bytes("x", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*/x: No space left on device"):
        folder.write_bytes("x", b"new")
    assert folder.read_bytes("x") == b"old"
    assert [path.name for path in Path(folder.uri).iterdir()] == ["x"]


def test_unfinished_writes_of_a_killed_process_are_not_listed(folder: Folder) -> None:
    folder.write_bytes("x", b"1")
    (Path(folder.uri) / ".x.0123456789ab.tmp").write_bytes(b"half")
    assert folder.list_files() == ["x"]


@pytest.mark.parametrize(
    "read", [Folder.read_bytes, Folder.read_table, Folder.open_input, Folder.identity, Folder.read_schema]
)
def test_a_missing_file_is_named(folder: Folder, read: object) -> None:
    with pytest.raises(DataError, match=r"there is no file .*/out/nope"):
        read(folder, "nope")  # type: ignore[operator]


def test_removing_twice_is_fine(folder: Folder) -> None:
    folder.write_bytes("x/y", b"1")
    folder.remove("x/y")
    folder.remove("x/y")
    folder.write_bytes("x/z", b"1")
    folder.remove_folder("x")
    folder.remove_folder("x")
    assert folder.list_files() == []


def test_create_bytes_lets_only_the_first_win(folder: Folder) -> None:
    assert folder.create_bytes("lock", b"first")
    assert not folder.create_bytes("lock", b"second")
    assert folder.read_bytes("lock") == b"first"


def test_identity_changes_with_the_content(folder: Folder) -> None:
    folder.write_bytes("x", b"one")
    before = folder.identity("x")
    assert folder.identity("x") == before
    folder.write_bytes("x", b"two")
    assert folder.identity("x") != before


def test_tables_keep_their_schema_and_row_groups(folder: Folder) -> None:
    schema = pa.schema([pa.field("n", pa.int64()), pa.field("b", pa.binary())], metadata={"k": "v"})
    table = pa.table({"n": range(100), "b": [b"x" * 10] * 100}, schema=schema)
    folder.write_table("t.parquet", table, row_group_rows=16)
    assert pq.ParquetFile(folder.path("t.parquet")).num_row_groups == 7
    assert folder.read_table("t.parquet").equals(table, check_metadata=True)
    assert folder.read_schema("t.parquet").metadata == {b"k": b"v"}
    found = folder.read_table("t.parquet", ["n"], pc.field("n").isin([3, 99]))
    assert found.to_pydict() == {"n": [3, 99]}


def test_a_broken_table_and_broken_json_are_named(folder: Folder) -> None:
    folder.write_bytes("t.parquet", b"not parquet")
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as a Parquet table"):
        folder.read_table("t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet is not valid JSON"):
        folder.read_json("t.parquet")


def test_uris_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Folder("out/../in").uri == str(tmp_path / "in")
    assert Folder("~/x").uri == str(tmp_path / "home" / "x")
    assert Folder(f"file://{tmp_path}/y").uri == str(tmp_path / "y")
    assert Folder("s3://bucket//a/b/").uri == "s3://bucket/a/b"
    assert Folder("s3://bucket/a").child("b", "c").path("d.bin") == "s3://bucket/a/b/c/d.bin"
    assert split_uri("s3://bucket/a/b.mp4") == (Folder("s3://bucket/a"), "b.mp4")
    assert split_uri("v.mp4") == (Folder(str(tmp_path)), "v.mp4")


def test_uris_with_secrets_or_of_other_kinds_are_refused_without_repeating_the_secret() -> None:
    with pytest.raises(ConfigError) as refused:
        Folder("s3://KEY:hunter2@host/bucket")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match="gs:// are not supported"):
        Folder("gs://bucket")
    with pytest.raises(ConfigError, match="empty"):
        Folder("")


def test_a_folder_pickles(folder: Folder) -> None:
    assert pickle.loads(pickle.dumps(folder)) == folder


class TestRetries:
    """`call_remote`, with a clock that only sleeping moves."""

    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [0.0]
        monkeypatch.setattr(remote.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(remote.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
        return now

    @pytest.mark.parametrize(
        "error",
        [
            EndpointConnectionError(endpoint_url="http://x"),
            ConnectionResetError(),
            TimeoutError(),
            OSError(5, "Input/output error"),
            ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"),
        ],
    )
    def test_a_server_that_is_away_for_a_minute_is_survived(self, clock: list[float], error: Exception) -> None:
        def call() -> str:
            if clock[0] < 60:
                raise error
            return "done"

        assert remote.call_remote(call, what="read x") == "done"

    def test_it_gives_up_in_the_end_and_says_what_to_do(self, clock: list[float]) -> None:
        def call() -> None:
            raise ConnectionRefusedError(111, "Connection refused")

        with pytest.raises(StorageError, match=r"cannot read x: .*Connection refused, for 75 s.*AWS_ENDPOINT_URL"):
            remote.call_remote(call, what="read x")
        assert 60 <= clock[0] <= 90

    @pytest.mark.parametrize("error", [NoCredentialsError(), PermissionError("denied")])
    def test_refused_credentials_fail_at_once(self, clock: list[float], error: Exception) -> None:
        def call() -> None:
            raise error

        with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
            remote.call_remote(call, what="read x")
        assert clock[0] == 0

    def test_secrets_in_an_error_reach_neither_message_nor_log(self, caplog: pytest.LogCaptureFixture) -> None:
        def call() -> None:
            raise OSError("GET https://h/b?X-Amz-Signature=hunter2 AWS_SECRET_ACCESS_KEY=hunter2")

        with caplog.at_level(logging.DEBUG), pytest.raises(StorageError) as refused:
            remote.call_remote(call, what="read x")
        assert "hunter2" not in str(refused.value) + caplog.text
        assert refused.value.__cause__ is None and refused.value.__suppress_context__


@pytest.mark.parametrize("block_bytes", [None, 1000])
def test_a_range_reader_reads_like_a_file(block_bytes: int | None) -> None:
    data = bytes(range(256)) * 40
    reads: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        reads.append((start, end))
        return data[start:end]

    reader = io.BufferedReader(remote.RangeReader(size=len(data), fetch=fetch, block_bytes=block_bytes), 64)
    assert reader.read(10) == data[:10]
    assert reader.seek(-4, io.SEEK_END) == len(data) - 4
    assert reader.read() == data[-4:]
    reader.seek(5000)
    assert reader.read(3000) == data[5000:8000]
    assert reader.read(10**6) == data[8000:]
    assert all(0 <= start < end <= len(data) for start, end in reads)


def test_jumping_between_two_places_fetches_each_block_once() -> None:
    reads: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        reads.append((start, end))
        return bytes(end - start)

    reader = io.BufferedReader(remote.RangeReader(size=9500, fetch=fetch, block_bytes=1000), 16)
    for step in range(0, 500, 20):
        for place in (0, 9000):
            reader.seek(place + step)
            assert len(reader.read(20)) == 20
    assert reads == [(0, 1000), (9000, 9500)]


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    folder = Folder(str(tmp_path))
    for write in (
        lambda: folder.write_bytes("taken/x", b"1"),
        lambda: folder.write_table("taken/x", pa.table({"a": [1]})),
    ):
        with pytest.raises(StorageError, match=r"cannot write .*taken/x"):
            write()
    assert folder.list_files() == ["taken"]
