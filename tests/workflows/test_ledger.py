"""What a step folder guarantees: whole shards or nothing, a clear refusal of another step, one driver at a time."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from modeling.errors import ConfigError, DataError, JobError
from workflows import lock
from workflows.ledger import Ledger, QuarantineRow, Shard, StepIdentity, make_shard_id, table_checksum
from workflows.lock import hold_lock
from workflows.storage import Folder

IDENTITY = StepIdentity("toy", {"fps": 2.0, "detector": {"name": "hog", "sizes": (1, 2)}}, {"frames": "a1"}, "1", 1)
SHARDS = [Shard(make_shard_id("toy", n), {"n": n}) for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def commit(ledger: Ledger, shard: Shard, rows: int = 2, quarantine: int = 0) -> None:
    table = pa.table({"id": [f"{shard.shard_id}-{n}" for n in range(rows)]})
    bad = [QuarantineRow(f"bad-{n}", "ValueError", "why", "{}") for n in range(quarantine)]
    ledger.commit(shard, table, drops=Counter({"too_small": 1, "none": 0}), quarantine=bad, seconds=0.5)


def test_shard_ids_depend_on_their_parts_only() -> None:
    assert make_shard_id("a", {"x": 1, "y": 2}) == make_shard_id("a", {"y": 2, "x": 1})
    assert len({make_shard_id("a", 1), make_shard_id("a", 2), make_shard_id("b", 1), make_shard_id("a1")}) == 4
    assert len(make_shard_id()) == 16


def test_the_plan_minus_what_is_done_remains(folder: Folder) -> None:
    ledger = Ledger.open(folder, IDENTITY)
    commit(ledger, SHARDS[1])
    again = Ledger.open(folder, IDENTITY)
    assert again.remaining(SHARDS) == [SHARDS[0], SHARDS[2]]
    assert [part.shard_id for part in again.parts()] == [SHARDS[1].shard_id]
    assert again.manifest is None
    with pytest.raises(JobError, match=r"2 of 3 shards .* are not done"):
        again.finish(SHARDS)


def test_a_part_without_its_marker_does_not_exist_and_is_overwritten(folder: Folder) -> None:
    ledger = Ledger.open(folder, IDENTITY)
    commit(ledger, SHARDS[0], rows=5, quarantine=2)
    folder.remove(f"done/{SHARDS[0].shard_id}.json")  # as after a kill just before the marker
    assert ledger.parts() == [] and ledger.read_table().num_rows == 0
    assert ledger.read_quarantine().num_rows == 0
    assert ledger.remaining(SHARDS) == SHARDS
    commit(ledger, SHARDS[0], rows=3)
    assert ledger.read_table().num_rows == 3
    assert not folder.exists(f"quarantine/{SHARDS[0].shard_id}.parquet")


def test_the_marker_is_the_last_file_written(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = Path.replace

    def record(self: Path, target: Path) -> Path:
        written.append(target.relative_to(folder.uri).parts[0].split("-")[0])
        return replace(self, target)

    ledger = Ledger.open(folder, IDENTITY)
    monkeypatch.setattr(Path, "replace", record)
    commit(ledger, SHARDS[0], quarantine=1)
    assert written == ["part", "quarantine", "done"]


def test_totals_add_up(folder: Folder) -> None:
    ledger = Ledger.open(folder, IDENTITY)
    for number, shard in enumerate(SHARDS):
        commit(ledger, shard, rows=number, quarantine=number)
    manifest = ledger.finish(SHARDS)
    assert (manifest.rows, manifest.quarantined, manifest.rows_read, manifest.shards) == (3, 3, 6, 3)
    assert manifest.drops == {"too_small": 3}
    assert manifest.quarantine_reasons == {"ValueError": 3}
    assert manifest.seconds == 1.5
    assert Ledger.read(folder).manifest == manifest
    assert Ledger.read(folder).read_table().num_rows == 3
    assert set(Ledger.read(folder).read_quarantine()["row_id"].to_pylist()) == {"bad-0", "bad-1"}


def test_a_shard_without_columns_has_no_part(folder: Folder) -> None:
    ledger = Ledger.open(folder, IDENTITY)
    bad = [QuarantineRow("r", "ValueError", "", "{}")]
    ledger.commit(SHARDS[0], pa.table({}), drops={}, quarantine=bad, seconds=0)
    commit(ledger, SHARDS[1])
    manifest = ledger.finish(SHARDS[:2])
    assert [part.shard_id for part in manifest.parts] == [SHARDS[1].shard_id]
    assert ledger.read_table(["id"]).num_rows == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            StepIdentity("toy", {**IDENTITY.config, "fps": 3.0}, IDENTITY.inputs, "1", 1),
            r"config\.fps: there 2\.0, now 3\.0",
        ),
        (StepIdentity("toy", IDENTITY.config, {"frames": "b2"}, "1", 1), r"inputs\.frames: there 'a1', now 'b2'"),
        (StepIdentity("toy", {"fps": 2.0}, IDENTITY.inputs, "1", 1), r"config\.detector: there {.*}, now None"),
        (
            StepIdentity("index", IDENTITY.config, IDENTITY.inputs, "2", 1),
            r"code_version: .*; step: there 'toy', now 'index'",
        ),
    ],
)
def test_another_step_is_refused_with_both_values(folder: Folder, other: StepIdentity, said: str) -> None:
    Ledger.open(folder, IDENTITY)
    with pytest.raises(ConfigError, match=said):
        Ledger.open(folder, other)


def test_reading_what_is_no_step_is_refused(folder: Folder) -> None:
    with pytest.raises(DataError, match="not the output of a psreid step"):
        Ledger.read(folder)
    folder.write_json("step.json", {"ledger_version": 99})
    with pytest.raises(DataError, match="ledger version 99"):
        Ledger.read(folder)


def test_the_checksum_is_of_the_rows_not_of_their_layout() -> None:
    table = pa.table({"a": [1, 2, None], "b": [b"x", None, b"z"], "c": [[1.0], [], None]})
    same = pa.concat_tables([table.slice(0, 1), table.slice(1)]).replace_schema_metadata({"k": "v"})
    assert table_checksum(same) == table_checksum(table)
    assert table_checksum(table.slice(1)) == table_checksum(
        pa.Table.from_pylist(table.slice(1).to_pylist(), table.schema)
    )
    assert table_checksum(table.take([1, 0, 2])) != table_checksum(table)


class TestLock:
    def test_a_second_driver_is_refused_while_the_first_lives(self, folder: Folder) -> None:
        code = "import sys, time; from workflows.lock import hold_lock; from workflows.storage import Folder\n"
        code += "with hold_lock(Folder(sys.argv[1])): print('held', flush=True); time.sleep(60)"
        other = subprocess.Popen([sys.executable, "-c", code, folder.uri], stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            with pytest.raises(ConfigError, match=rf"another psreid \(process {other.pid} on .*\) is writing to"):
                hold_lock(folder).__enter__()
        finally:
            other.kill()
            other.wait()
        with hold_lock(folder):  # the dead driver's lock does not block
            assert json.loads(folder.read_bytes(lock.LOCK))["pid"] == os.getpid()
        assert not folder.exists(lock.LOCK)

    def test_a_new_process_with_the_old_number_is_not_the_owner(self, folder: Folder) -> None:
        owner = {"host": lock.socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time() - 500}
        folder.write_json(lock.LOCK, owner | {"token": "x", "beat": 0})
        with hold_lock(folder):
            pass

    @pytest.mark.parametrize("beats", [True, False])
    def test_an_owner_on_another_machine_lives_while_its_heartbeat_moves(
        self, folder: Folder, beats: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = {"host": "elsewhere", "pid": 1, "started": 0.0, "token": "x", "beat": 0}
        folder.write_json(lock.LOCK, owner)
        monkeypatch.setattr(lock, "STANDSTILL_S", 0.3)
        monkeypatch.setattr(lock, "CHECK_EVERY_S", 0.05)
        if not beats:
            with hold_lock(folder):
                return
        monkeypatch.setattr(lock.time, "sleep", lambda _: folder.write_json(lock.LOCK, owner | {"beat": 1}))
        with pytest.raises(ConfigError, match="process 1 on elsewhere"):
            hold_lock(folder).__enter__()

    def test_a_half_written_lock_does_not_block(self, folder: Folder) -> None:
        folder.write_bytes(lock.LOCK, b'{"host": "el')
        with hold_lock(folder):
            pass
