"""The whole line, videos to matches, on an S3 server: the same rows as on local disk."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.faults.line import Line, make_line
from tests.s3_server import S3Server
from workflows.ledger import Ledger
from workflows.storage import Folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_line_on_s3_equals_the_line_on_disk(s3_server: S3Server, tmp_path: Path) -> None:
    import os

    environment = os.environ | s3_server.environment | {"OMP_NUM_THREADS": "1"}
    remote_root = s3_server.make_bucket("line") + "/archive"
    (tmp_path / "local").mkdir()
    (tmp_path / "remote").mkdir()
    local = make_line(tmp_path / "local", str(tmp_path / "archive"))
    remote = make_line(tmp_path / "remote", remote_root)
    for line, out in ((local, str(tmp_path / "out")), (remote, remote_root + "/out")):
        run(line.ingest(f"{out}/frames"), environment)
        run(line.index(f"{out}/frames", f"{out}/index"), environment)
        run(line.search(f"{out}/index", f"{out}/matches"), environment)
    on_disk, on_s3 = (_match_rows(f"{out}/matches") for out in (str(tmp_path / "out"), remote_root + "/out"))
    assert on_disk == on_s3 and len(on_disk) > 20


def test_a_server_that_goes_away_for_ten_seconds_is_survived(s3_server: S3Server, tmp_path: Path) -> None:
    import os

    root = s3_server.make_bucket("outage") + "/archive"
    line: Line = make_line(tmp_path, root)
    environment = os.environ | s3_server.environment | {"OMP_NUM_THREADS": "1"}
    outcomes: list[BaseException] = []

    def ingest() -> None:
        try:
            run(line.ingest(f"{root}/frames"), environment)
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=ingest)
    thread.start()
    done = Folder(f"{root}/frames")
    while thread.is_alive() and not done.list_files("done/"):
        time.sleep(0.1)
    s3_server.stop()
    time.sleep(10)
    s3_server.start()
    thread.join()
    assert not outcomes, outcomes
    manifest = Ledger.read(done).manifest
    assert manifest is not None and manifest.rows == 96


def _match_rows(uri: str) -> list[tuple[object, ...]]:
    columns = ["query_id", "frame_id", "score", "decision", "recall_score", "rank"]
    table = Ledger.read(Folder(uri)).read_table(columns=columns)
    return sorted(tuple(row[c] for c in columns) for row in table.to_pylist())
