"""Storage, ledger and a whole step on a real S3 server, which goes away for a while."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import s3fs

from modeling.errors import ConfigError, DataError, StorageError
from tests.faults.harness import count_markers, step_contents
from tests.faults.toy import run_toy
from tests.s3_server import SECRET_KEY, S3Server
from workflows.ledger import Ledger, QuarantineRow, Shard, StepIdentity, table_checksum
from workflows.lock import hold_lock
from workflows.storage import Folder, split_uri

OUTAGE_S = 10.0


@pytest.fixture
def bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> str:
    return s3_server.make_bucket(f"b-{abs(hash(request.node.name)) % 10**8}")


@pytest.fixture
def folder(bucket: str) -> Folder:
    return Folder(f"{bucket}/deep/out")


def test_files_on_s3_behave_as_on_disk(folder: Folder) -> None:
    assert folder.list_files() == [] and not folder.has_files()
    folder.write_bytes("a/b.bin", b"one")
    folder.write_json("c.json", [1])
    assert folder.list_files() == ["a/b.bin", "c.json"]
    assert folder.list_files("a/") == folder.list_files("a/b") == ["a/b.bin"]
    assert folder.exists("a/b.bin") and not folder.exists("a") and not folder.exists("nope")
    assert folder.read_bytes("a/b.bin") == b"one" and folder.size_bytes("a/b.bin") == 3
    assert folder.read_json("c.json") == [1]
    before = folder.identity("a/b.bin")
    folder.write_bytes("a/b.bin", b"two")
    assert folder.identity("a/b.bin") != before
    assert not folder.create_bytes("a/b.bin", b"three") and folder.read_bytes("a/b.bin") == b"two"
    inside, name = split_uri(folder.path("a/b.bin"))
    assert inside.read_bytes(name) == b"two"
    folder.remove("a/b.bin")
    folder.remove("a/b.bin")
    folder.remove_folder("a")
    assert folder.list_files() == ["c.json"]


def test_tables_on_s3_are_read_by_the_row_groups_that_are_needed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"n": range(256), "image": [os.urandom(20_000) for _ in range(256)]})
    folder.write_table("t.parquet", table, row_group_rows=16)
    fetched: list[int] = []
    cat_file = s3fs.S3FileSystem.cat_file

    def count(self: s3fs.S3FileSystem, *arguments: object, **options: int) -> bytes:
        data = cat_file(self, *arguments, **options)
        fetched.append(len(data))
        return bytes(data)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", count)
    found = folder.read_table("t.parquet", filters=pc.field("n") == 77)
    assert found.equals(table.slice(77, 1).combine_chunks())
    assert sum(fetched) < 0.25 * folder.size_bytes("t.parquet")
    assert folder.read_schema("t.parquet").names == ["n", "image"]


def test_a_file_on_s3_is_read_by_seeking(folder: Folder) -> None:
    data = os.urandom(6 << 20)
    folder.write_bytes("video.bin", data)
    with folder.open_input("video.bin") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(1000)
        assert file.read(5 << 20) == data[1000 : 1000 + (5 << 20)]


def test_what_is_missing_on_s3_is_named(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"there is no file s3://.*/deep/out/nope"):
        folder.read_bytes("nope")
    with pytest.raises(StorageError, match="there is no bucket 'nowhere-at-all'"):
        Folder("s3://nowhere-at-all/x").write_bytes("a", b"")


def test_refused_credentials_fail_at_once_and_leak_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-" + SECRET_KEY)
    started = time.monotonic()
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as refused:
        folder.read_bytes("x")
    s3fs.S3FileSystem.clear_instance_cache()
    assert SECRET_KEY not in str(refused.value)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("call", ["write", "read", "list", "seek"])
def test_an_outage_of_ten_seconds_is_survived(call: str, folder: Folder, s3_server: S3Server) -> None:
    folder.write_bytes("x", b"0123456789")
    file = folder.open_input("x")
    s3_server.stop()
    back = threading.Timer(OUTAGE_S if call == "write" else 2.0, s3_server.start)
    back.start()
    if call == "write":
        folder.write_bytes("y", b"1")
        assert folder.read_bytes("y") == b"1"
    elif call == "read":
        assert folder.read_bytes("x") == b"0123456789"
    elif call == "list":
        assert folder.list_files() == ["x"]
    else:
        file.seek(5)
        assert file.read() == b"56789"
    back.join()


def test_a_server_that_stays_away_is_reported(folder: Folder, s3_server: S3Server) -> None:
    folder.write_bytes("x", b"1")
    s3_server.stop()
    with pytest.raises(
        StorageError, match=rf"cannot read .*/x: .*for 2 s\. Check that the server {s3_server.endpoint}"
    ):
        Folder(folder.uri, retry_for_s=2.0).read_bytes("x")


def test_a_ledger_and_its_lock_on_s3(folder: Folder) -> None:
    identity = StepIdentity("toy", {"a": 1}, {}, "1", 1)
    ledger = Ledger.open(folder, identity)
    shards = [Shard(f"{n:016d}", {}) for n in range(3)]
    table = pa.table({"id": ["a", "b"]})
    with hold_lock(folder):
        with pytest.raises(ConfigError, match="another psreid"):
            hold_lock(folder).__enter__()
        for shard in shards:
            quarantine = [QuarantineRow("r", "why", "", "{}")]
            ledger.commit(shard, table, drops={"x": 1}, quarantine=quarantine, seconds=1.0)
    assert Ledger.read(folder).remaining(shards) == []
    manifest = ledger.finish(shards)
    assert (manifest.rows, manifest.quarantined, manifest.drops) == (6, 3, {"x": 3})
    assert table_checksum(Ledger.read(folder).read_table()) == table_checksum(pa.concat_tables([table] * 3))


def test_a_step_on_s3_survives_an_outage_and_equals_the_same_step_on_disk(
    bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    out = f"{bucket}/step"
    on_disk = s3_server.root / bucket.removeprefix("s3://") / "step"
    command = [sys.executable, "-m", "tests.faults.toy", out, "--shards", "12", "--sleep-s", "0.5"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while count_markers(on_disk) < 2 and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.05)
    s3_server.stop()
    time.sleep(OUTAGE_S)
    s3_server.start()
    output, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, output
    assert SECRET_KEY not in output
    with_server = Ledger.read(Folder(out)).read_table(["square"])
    reference = subprocess.run(
        [sys.executable, "-m", "tests.faults.toy", str(tmp_path / "ref"), "--shards", "12"], check=True
    )
    assert reference.returncode == 0
    assert step_contents(on_disk) == step_contents(tmp_path / "ref")
    assert with_server.num_rows == 86
    assert not (on_disk / "attempts").exists() or not list((on_disk / "attempts").rglob("*.?"))
    assert run_toy(out, shards=12).rows == 86  # finished: needs no Ray
