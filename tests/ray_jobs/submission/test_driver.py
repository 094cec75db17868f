"""What a job checks before it starts: packages and storage, in one line, with exit code 2, within 30 seconds."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_jobs.submission.node_check import look_around, nearest_existing
from ray_jobs.submission.versions import installed_versions

ROOT = Path(__file__).resolve().parents[3]
SEARCH = ["search", "s3://archive/index", "s3://archive/out", "--text", "red coat"]


def run_driver(folder: Path, record: dict[str, object], **environment: str) -> str:
    """Runs the driver as a cluster would, expects a refusal, and gives its one line."""
    (folder / "psreid-job.json").write_text(json.dumps(record))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.submission.driver", "--", *SEARCH],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert time.monotonic() - started < 30
    lines = [line for line in done.stderr.splitlines() if line.startswith("psreid: error:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_another_version_on_the_cluster(tmp_path: Path) -> None:
    line = run_driver(tmp_path, {"versions": installed_versions() | {"torch": "1.0.0"}, "requirements": []})
    assert "torch is" in line and "1.0.0 where the job was submitted" in line and "constraints.txt" in line


def test_a_missing_package_on_the_cluster(tmp_path: Path) -> None:
    line = run_driver(tmp_path, {"versions": installed_versions(), "requirements": ["nowhere>=1"]})
    assert "nowhere is missing on the cluster" in line


def test_storage_that_refuses(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test", "AWS_ENDPOINT_URL": endpoint}
    line = run_driver(tmp_path, {"versions": installed_versions(), "requirements": []}, **keys)
    assert "s3://archive/index" in line and endpoint in line and "is up and reachable" in line
    assert "secret-of-the-test" not in line


def test_a_node_without_the_shared_disk(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    assert nearest_existing(f"{tmp_path}/frames/not/yet") == f"{tmp_path}/frames"
    paths = [str(tmp_path), str(tmp_path / "elsewhere")]
    assert look_around({}, [], paths, "on node 10.0.0.3") == [f"there is no {tmp_path}/elsewhere on node 10.0.0.3"]


@pytest.mark.parametrize("words", [["index", "a"], ["nonsense"]])
def test_a_wrong_command_ends_with_2_too(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "psreid-job.json").write_text(json.dumps({"versions": {}, "requirements": []}))
    command = [sys.executable, "-m", "ray_jobs.submission.driver", "--", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 2
