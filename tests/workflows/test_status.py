"""`psreid status`: a step that runs, one that was killed, one that is done; on disk and on S3."""

import json
from pathlib import Path

import pytest

from modeling.errors import DataError
from ray_jobs.cli import main
from tests.faults.harness import run_command
from tests.s3_server import S3Server
from tests.workflows import small_archive as small
from workflows.lock import hold_lock
from workflows.progress import Progress
from workflows.status import read_status
from workflows.storage import Folder
from workflows.watching.watch import PROGRESS

TOLD = {
    "shards_total": 4, "unit": "frames", "per_s": 2.5, "remaining_s": 90.0, "updated_at": "2026-11-01T08:00:00+00:00",
    "cost": 0.5, "currency": "EUR",
}  # fmt: skip


def archive(folder: Folder) -> Folder:
    """A finished step of two shards."""
    small.write_frames_in(folder, small.random_frames(16))
    return folder


def test_a_finished_step_is_done(tmp_path: Path) -> None:
    (step,) = read_status(archive(Folder(str(tmp_path / "frames"))).uri)
    assert (step.name, step.state, step.shards_done, step.shards_total, step.rows) == ("ingest", "done", 2, 2, 16)
    assert step.holder is None and step.expected_end is None


def test_a_step_that_grows_is_running_while_a_driver_holds_it_and_stopped_afterwards(tmp_path: Path) -> None:
    folder = archive(Folder(str(tmp_path / "frames")))
    folder.write_json(PROGRESS, TOLD)
    with hold_lock(folder):
        (step,) = read_status(folder.uri)
    assert (step.state, step.shards_done, step.shards_total) == ("running", 2, 4)
    assert (step.per_s, step.expected_end, step.cost) == (2.5, "2026-11-01T08:01:30+00:00", 0.5)
    assert step.holder is not None and "held by process" in step.holder
    (step,) = read_status(folder.uri)
    assert step.state == "stopped" and step.expected_end is None
    assert any("last heard of 2026-11-01T08:00:00" in line for line in step.lines())


def test_what_is_no_output_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no step"):
        read_status(str(tmp_path))


def test_the_command_prints_lines_and_json_of_a_folder_on_s3(
    s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = archive(Folder(s3_server.make_bucket("status")).child("frames"))
    folder.write_json(PROGRESS, TOLD | {"shards_total": 2})
    with hold_lock(folder):
        assert main(["status", folder.uri, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["steps"][0]["state"], record["headline"]) == ("running", "Running: ingest.")
    assert main(["status", folder.uri]) == 0
    assert "ingest     done     2 of 2 shards, 16 rows" in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_a_killed_driver_leaves_a_status_that_tells_what_to_do(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["-m", "tests.faults.toy", str(out), "--shards", "12", "--sleep-s", "0.3", "--raise-at", "3"]
    assert run_command(command, watch=out, kill="driver", after_markers=3).was_killed
    (step,) = read_status(str(out))
    assert step.state == "stopped" and 3 <= step.shards_done < 12 and step.shards_total == 12
    assert step.rows is not None and step.rows > 0
    assert step.holder is not None and "which is gone: run the same command again" in step.holder
    assert Progress().price is None
