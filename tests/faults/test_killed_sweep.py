"""A sweep whose driver is killed with SIGKILL: no finished trial runs again, and MLflow has each trial once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracking_server import TrackingServer
from workflows.storage import Folder

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 240.0
TRIALS = 4

PROGRAM = """
import json, sys
from tests.workflows.sweep_training import TOY
from workflows.progress import Progress
from workflows.sweep.config import SweepConfig
from workflows.sweep.step import run_sweep

config = SweepConfig.model_validate(json.loads(sys.argv[1]))
summary = run_sweep(config, Progress(), training=TOY)
print(json.dumps(dict(summary.figures)))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("tracking"))
    server.start()
    yield server
    server.stop()


def start(settings: dict, log: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(settings)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip


def steps_of(out: Path) -> dict[str, list[int]]:
    """The steps that each trial has really computed, over all sessions."""
    return {
        file.parent.name: [json.loads(line)["step"] for line in file.read_text().splitlines()]
        for file in out.glob("runs/*/steps.jsonl")
    }


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_killed_sweep_repeats_no_finished_trial(server: TrackingServer, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    settings = {
        "train": "toy",
        "out": str(out),
        "settings": {"steps": 3, "step_s": 0.3, "fails_at_tau": 0.3},
        "space": {"losses": {"tau": [0.2, 0.3], "reid": [0.5, 1.0]}},
        "tracking_uri": server.uri,
        "experiment": "killed sweep",
    }
    first = start(settings, tmp_path / "first.log")
    give_up_at = time.monotonic() + WITHIN_S
    while not list(out.glob("done/*.json")):
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(2)  # its Ray dies with it
    ended = {file.stem for file in out.glob("done/*.json")}
    before = steps_of(out)
    assert 1 <= len(ended) < TRIALS

    second = start(settings, tmp_path / "second.log")
    printed, _ = second.communicate(timeout=WITHIN_S)
    assert second.returncode == 0, (tmp_path / "second.log").read_text()[-3000:]
    figures = json.loads(printed.splitlines()[-1])
    after = steps_of(out)
    assert {name: after[name] for name in ended} == {name: before[name] for name in ended}
    assert figures["trials_started_now"] == TRIALS - len(ended)
    assert (figures["finished"], figures["failed"]) == (2, 2)

    table = Folder(str(out)).read_table("trials.parquet").to_pylist()
    assert len(table) == TRIALS
    assert (table[0]["losses.tau"], table[0]["losses.reid"]) == (0.2, 1.0)
    assert all("no training with tau 0.3" in row["error"] for row in table if row["status"] == "failed")

    client = server.client()
    experiment = client.get_experiment_by_name("killed sweep").experiment_id
    runs = client.search_runs([experiment])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == TRIALS + 1
    assert sorted(run.data.tags["psreid.trial"] for run in children) == sorted(after)
    for run in children:
        history = client.get_metric_history(run.info.run_id, "eval_mAP")
        assert sorted({one.step for one in history}) == ([1, 2, 3] if run.info.status == "FINISHED" else [])
    finished = [run for run in children if run.info.status == "FINISHED"]
    assert len(finished) == 2

    third = start(settings, tmp_path / "third.log")
    printed, _ = third.communicate(timeout=WITHIN_S)
    assert json.loads(printed.splitlines()[-1])["trials_started_now"] == 0
    assert steps_of(out) == after
