"""Training killed with SIGKILL: a worker in the middle of an epoch, and the driver; the loss curve joins.

The curve of an undisturbed run comes from one process; the killed ones use two workers and ZeRO 1, whose additions
differ in order. That a continued run repeats an unbroken one to the last digit is tested in
`tests/workflows/test_train_psreid.py`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.workflows.training_run import make_inputs, train_config, train_here

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

STEPS = 12
GIVE_UP_S = 400.0


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[float]]:
    """The command, with OUT in its place, and the losses of an undisturbed run."""
    folder = tmp_path_factory.mktemp("training")
    inputs = make_inputs(folder)
    plan: dict[str, Any] = {"stage1": {"steps": STEPS}, "stage2": {"steps": 0}, "eval_queries": 0}
    train_here(train_config(inputs, folder / "undisturbed", **plan))
    config = train_config(inputs, folder / "unused", workers=2, zero_stage=1, **plan)
    settings = config.model_dump(mode="json", exclude={"out", "frames", "what"})
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))
    arguments = [sys.executable, "-m", "ray_jobs", "train", "psreid", *inputs["frames"], "OUT", "--quiet"]
    return [*arguments, "--config", str(folder / "train.yaml")], losses_of(folder / "undisturbed")


def start(command: list[str], out: Path) -> "subprocess.Popen[bytes]":
    arguments = [str(out) if argument == "OUT" else argument for argument in command]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(arguments, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def wait_for_step(run: "subprocess.Popen[bytes]", out: Path, step: int) -> None:
    """Until a checkpoint of at least this step is complete."""
    deadline = time.monotonic() + GIVE_UP_S
    while not any(int(marker.parent.name) >= step for marker in out.glob("state/1/*/complete.json")):
        assert run.poll() is None, log_of(out)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(run: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(run.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def losses_of(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


def log_of(out: Path) -> str:
    return out.with_suffix(".log").read_text(errors="replace")


def test_a_killed_worker_is_replaced_and_the_curve_joins(command: Any, tmp_path: Path) -> None:
    arguments, undisturbed = command
    out = tmp_path / "out"
    run = start(arguments, out)
    wait_for_step(run, out, 4)
    victims = workers_of(run)
    assert victims
    victims[0].kill()
    assert run.wait(GIVE_UP_S) == 0, log_of(out)
    assert losses_of(out) == pytest.approx(undisturbed, rel=1e-4)


def test_a_killed_driver_is_continued_by_the_same_command(command: Any, tmp_path: Path) -> None:
    arguments, undisturbed = command
    out = tmp_path / "out"
    run = start(arguments, out)
    wait_for_step(run, out, 6)
    workers = workers_of(run)
    for victim in (psutil.Process(run.pid), *workers):  # all at once: workers alone would take the last steps
        victim.send_signal(signal.SIGKILL)
    run.wait()
    psutil.wait_procs(workers, timeout=60)
    assert not (out / "run.json").exists()
    assert start(arguments, out).wait(GIVE_UP_S) == 0, log_of(out)
    assert losses_of(out) == pytest.approx(undisturbed, rel=1e-4)
    states = {path.parent.name for path in out.glob("state/1/*/*")}
    assert states == {f"{STEPS:08d}"}, "older and half-written checkpoints are gone"
