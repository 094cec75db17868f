"""One stage on one shard, without Ray: what is set aside, what stops the job, and what deaths lead to."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from modeling.errors import ConfigError, StorageError
from tests.faults.toy import AddText, MakeRows, Square
from workflows.attempts import Attempt, clear_attempts
from workflows.ledger import Ledger, QuarantineRow, Shard, StepIdentity
from workflows.stages import Resources, RowError, ShardBatch, StageSpec, check_columns, row_to_json
from workflows.storage import Folder
from workflows.worker import KILLED, Notes, StageCall, StageWorker, decode_row, encode_row

SHARD = Shard("0123456789abcdef", {"start": 0, "stop": 4})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def worker(folder: Folder, factory: object, position: int = 1, **kwargs: object) -> StageWorker:
    spec = StageSpec(factory, kwargs, Resources(cpus=1))  # type: ignore[arg-type]
    call = StageCall(spec.name, position, 1.0, pickle.dumps(spec), folder, "run")
    return StageWorker(call)


def numbers(*values: int) -> pa.Table:
    return pa.table({"row_id": [f"row-{v}" for v in values], "number": pa.array(values, pa.int64())})


class Picky:
    """Raises for odd numbers, by what `number` says: RowError for 1, a job's fault for 99."""

    reads = ("number",)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        batch.drops["seen"] += 1
        for number in batch.table["number"].to_pylist():
            if number == 1:
                raise RowError("row-1", "too_dark", "mean 3 of 255")
            if number == 99:
                raise StorageError("cannot read x")
            if number % 2:
                raise KeyError("odd")
        return batch


class Ranking:
    """Ranks over the whole shard."""

    rows_independent = False

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        if batch.table.num_rows:
            raise ValueError("cannot rank")
        return batch


class Opaque:
    """A source that cannot be split and must not be called."""

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        raise AssertionError("called")


def test_a_travelling_row_comes_back_as_it_was() -> None:
    notes = Notes(Counter(a=1), [QuarantineRow("r", "why", "d", "{}")], 1.5, 7)
    shard, table, back = decode_row(encode_row(SHARD, numbers(1, 2), notes))
    assert (shard, back) == (SHARD, notes)
    assert table.equals(numbers(1, 2))


def test_only_the_raising_rows_are_set_aside(folder: Folder) -> None:
    row = encode_row(SHARD, numbers(0, 1, 2, 3), Notes(rows_read=4))
    _, table, notes = decode_row(worker(folder, Picky)(row))
    assert table["number"].to_pylist() == [0, 2]
    assert [(q.row_id, q.reason) for q in notes.quarantine] == [("row-1", "too_dark"), ("row-3", "KeyError")]
    assert '"number": 3' in notes.quarantine[1].row_json
    assert notes.drops == {"seen": 2}  # of the two rows that came through, not of failed attempts
    assert notes.rows_read == 4


def test_a_shard_of_bad_rows_keeps_its_columns(folder: Folder) -> None:
    row = encode_row(SHARD, numbers(11, 12), Notes())
    square = worker(folder, Square, raise_at=(11, 12))
    _, table, notes = decode_row(square(row))
    assert table.num_rows == 0 and "square" in table.column_names
    assert len(notes.quarantine) == 2
    following = decode_row(worker(folder, AddText, position=2)(square(row)))
    assert following[1].column_names[-1] == "text" and following[2].failure is None


def test_a_source_is_split_by_its_plan_of_rows(folder: Folder) -> None:
    source = worker(folder, MakeRows, position=0, raise_at=(2,))
    _, table, notes = decode_row(source(encode_row(SHARD, pa.table({}), Notes())))
    assert table["number"].to_pylist() == [0, 1, 3]
    assert [(q.row_id, q.reason, q.row_json) for q in notes.quarantine] == [
        ("row-2", "ValueError", '{"start": 2, "stop": 3}')
    ]
    assert notes.rows_read == 4


def test_a_stage_whose_rows_depend_on_each_other_is_not_split(folder: Folder) -> None:
    _, table, notes = decode_row(worker(folder, Ranking)(encode_row(SHARD, numbers(1, 2), Notes())))
    assert table.num_rows == 0 and table.column_names == ["row_id", "number"]
    assert [q.row_id for q in notes.quarantine] == [f"{SHARD.shard_id}/0", f"{SHARD.shard_id}/1"]


def test_what_is_no_rows_fault_stops_the_job_in_its_own_words(folder: Folder) -> None:
    _, _, notes = decode_row(worker(folder, Picky)(encode_row(SHARD, numbers(0, 99), Notes())))
    assert notes.failure is not None and notes.failure[:2] == ["StorageError", "cannot read x"]
    passed_on = decode_row(worker(folder, AddText, position=2)(encode_row(SHARD, pa.table({}), notes)))
    assert passed_on[2].failure == notes.failure


def test_a_stage_that_cannot_start_says_why(folder: Folder) -> None:
    _, _, notes = decode_row(worker(folder, Square, weights="/nope")(encode_row(SHARD, numbers(1), Notes())))
    assert notes.failure is not None
    assert notes.failure[:2] == ["WeightsError", "there are no weights at /nope. Give the folder of a saved model."]
    _, _, notes = decode_row(worker(folder, Square, unknown=1)(encode_row(SHARD, numbers(1), Notes())))
    assert notes.failure is not None
    assert notes.failure[0] == "JobError" and "stage Square could not start: TypeError" in notes.failure[1]


def test_a_missing_column_stops_the_job(folder: Folder) -> None:
    _, _, notes = decode_row(worker(folder, Square)(encode_row(SHARD, pa.table({"x": [1]}), Notes())))
    assert notes.failure is not None and notes.failure[0] == "ConfigError" and "column(s) number" in notes.failure[1]


class TestDeaths:
    """A death is an attempt that was begun and did not succeed; these make them without killing anything."""

    def die(self, folder: Folder, row_id: str = "", run_id: str = "run") -> None:
        attempt, _ = Attempt.begin(folder, run_id, SHARD.shard_id, "1-Square")
        attempt.row_in_flight(row_id)

    def run(self, folder: Folder) -> tuple[pa.Table, Notes]:
        _, table, notes = decode_row(worker(folder, Square)(encode_row(SHARD, numbers(1, 2, 3), Notes())))
        return table, notes

    def test_one_death_of_a_row_is_chance(self, folder: Folder) -> None:
        self.die(folder)
        self.die(folder)
        self.die(folder, "row-2")
        table, notes = self.run(folder)
        assert table.num_rows == 3 and not notes.quarantine

    def test_a_row_in_flight_at_two_deaths_is_set_aside(self, folder: Folder) -> None:
        for row_id in ("", "", "row-2", "row-3", "row-2"):
            self.die(folder, row_id)
        table, notes = self.run(folder)
        assert table["row_id"].to_pylist() == ["row-1", "row-3"]
        assert [(q.row_id, q.reason) for q in notes.quarantine] == [("row-2", KILLED)]

    def test_deaths_of_another_run_do_not_count(self, folder: Folder) -> None:
        for _ in range(3):
            self.die(folder, "row-2", run_id="earlier")
        table, notes = self.run(folder)
        assert table.num_rows == 3 and not notes.quarantine

    def test_success_clears_the_record(self, folder: Folder) -> None:
        self.die(folder)
        self.run(folder)
        assert folder.list_files("attempts/") == []
        self.die(folder)
        clear_attempts(folder)
        assert folder.list_files("attempts/") == []

    def test_a_source_without_a_plan_of_rows_loses_the_whole_shard_only(self, folder: Folder) -> None:
        source = worker(folder, Opaque, position=0)
        for row_id in ("", "", SHARD.shard_id, SHARD.shard_id):
            attempt, _ = Attempt.begin(folder, "run", SHARD.shard_id, "0-Opaque")
            attempt.row_in_flight(row_id)
        _, table, notes = decode_row(source(encode_row(SHARD, pa.table({}), Notes())))
        assert table.column_names == []
        assert [(q.row_id, q.reason) for q in notes.quarantine] == [(SHARD.shard_id, KILLED)]


def test_the_last_stage_commits(folder: Folder) -> None:
    Ledger.open(folder, StepIdentity("toy", {}, {}, "1", 1))
    spec = StageSpec(AddText)
    last = StageWorker(StageCall("AddText", 2, 1.0, pickle.dumps(spec), folder, "run", commits=True, row_group_rows=1))
    table = pa.table({"square": [1, 4]})
    counts = last(encode_row(SHARD, table, Notes(Counter(x=1), [QuarantineRow("r", "w", "", "{}")], 0.0, 4)))
    (row,) = counts.to_pylist()
    watched = json.loads(row.pop("watched"))
    assert row == {"shard_id": SHARD.shard_id, "rows": 2, "rows_read": 4, "quarantined": 1, "failure": None}
    assert watched["reasons"] == {"w": 1}
    ((stage, rows, seconds, waited_s),) = watched["trail"]
    assert (stage, rows, waited_s) == ("AddText", 2, 0.0) and seconds >= 0
    assert Ledger.read(folder).read_table().column_names == ["square", "text"]
    (marker,) = Ledger.read(folder).markers([SHARD.shard_id])
    assert (marker["rows_read"], marker["drops"], marker["quarantined"]) == (4, {"x": 1}, 1)


def test_columns_are_checked_before_anything_starts() -> None:
    check_columns([StageSpec(MakeRows), StageSpec(Square), StageSpec(AddText)])
    with pytest.raises(ConfigError, match=r"stage AddText reads the column\(s\) square, which no earlier stage writes"):
        check_columns([StageSpec(MakeRows), StageSpec(AddText)])


def test_a_row_as_json_keeps_its_bytes() -> None:
    assert row_to_json({"image": b"\xff\x00", "n": 1}) == '{"image": {"base64": "/wA="}, "n": 1}'


def test_threads_are_limited_in_the_libraries_of_the_worker() -> None:
    code = (
        "import cv2, torch; from workflows.worker import limit_threads; limit_threads(1.5); "
        "import os; print(torch.get_num_threads(), cv2.getNumThreads(), os.environ['OMP_NUM_THREADS'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["1", "1", "1"]
