"""Kills a psreid command at chosen moments and compares what the reruns leave behind with an undisturbed run.

A command is a list of arguments after `python`, such as `["-m", "ray_jobs", "ingest", SOURCE, OUT]`. Moments are
counted in done markers below a local folder, so "after 3" means the same on a slow and on a fast machine.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from workflows.ledger import Ledger, table_checksum
from workflows.storage import Folder

POLL_S = 0.02
GIVE_UP_S = 900.0  # of one command, on a machine that is busy with much else
WORKER_PREFIXES = ("ray::MapWorker", "ray::MapBatches")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    was_killed: bool
    output: str
    """stdout and stderr together."""


def run_command(
    command: Sequence[str],
    *,
    watch: Path,
    kill: Literal["driver", "worker", "nothing"] = "nothing",
    after_markers: int = 0,
    delay_s: float = 0.0,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs `python command...`; with `kill`, sends SIGKILL `delay_s` after `after_markers` new markers below `watch`.

    A driver that was killed takes the workers of its Ray with it: this waits until they are gone.
    """
    before = count_markers(watch)
    log = watch.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        driver = subprocess.Popen(
            [sys.executable, *command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
        )
        killed = kill != "nothing" and _kill_at(driver, watch, before + after_markers, delay_s, kill)
        try:
            exit_code = driver.wait(timeout=GIVE_UP_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            raise
    return Outcome(exit_code, killed, log.read_text(errors="replace"))


def run_through_kills(
    command: Sequence[str], *, watch: Path, kills: int, markers_per_kill: int, seed: int, victim: str = "driver"
) -> tuple[int, Outcome]:
    """Kills the command at up to `kills` random moments, rerunning it each time, then lets it finish.

    Gives the number of kills that hit a living process, and the last run's outcome.
    """
    rng = random.Random(seed)
    hits = 0
    for _ in range(kills):
        outcome = run_command(
            command,
            watch=watch,
            kill="worker" if victim == "worker" else "driver",
            after_markers=rng.randint(0, markers_per_kill),
            delay_s=rng.uniform(0.0, 0.5),
        )
        hits += outcome.was_killed
        if not outcome.was_killed:
            break
    return hits, run_command(command, watch=watch)


def count_markers(below: Path) -> int:
    """Done markers of all steps below a folder; others may vanish meanwhile."""
    return sum(
        name.endswith(".json") for folder, _, names in os.walk(below) if Path(folder).name == "done" for name in names
    )


def step_folders(below: Path) -> list[Path]:
    """Every step folder at or below a folder."""
    return sorted(path.parent for path in below.rglob("step.json"))


def step_contents(folder: Path) -> dict[str, object]:
    """What must be equal between two runs of a step: each row's checksum with its count, the quarantine, the totals."""
    ledger = Ledger.read(Folder(str(folder)))
    manifest = ledger.manifest
    assert manifest is not None, f"{folder} is not finished"
    rows: Counter[str] = Counter()
    for part in ledger.parts():
        table = ledger.folder.read_table(part.name)
        rows.update(table_checksum(table.slice(index, 1)) for index in range(table.num_rows))
    set_aside = ledger.read_quarantine().select(["row_id", "reason"]).to_pylist()
    return {
        "rows": rows,
        "quarantine": Counter((row["row_id"], row["reason"]) for row in set_aside),
        "totals": (manifest.shards, manifest.rows, manifest.rows_read, dict(manifest.drops), manifest.quarantined),
    }


def _kill_at(driver: "subprocess.Popen[bytes]", watch: Path, markers: int, delay_s: float, victim: str) -> bool:
    """Waits for the moment and kills; False if the command ended before it."""
    process = psutil.Process(driver.pid)
    deadline = time.monotonic() + GIVE_UP_S
    while driver.poll() is None and time.monotonic() < deadline:
        if count_markers(watch) >= markers and (victim == "driver" or _workers(process)):
            time.sleep(delay_s)
            if victim == "driver":
                return _kill_driver(driver, process)
            if _kill_worker(process):
                return True
            delay_s = 0.0  # the worker was between two tasks, where it has no name: take the next that has one
        time.sleep(POLL_S)
    return False


def _kill_driver(driver: "subprocess.Popen[bytes]", process: psutil.Process) -> bool:
    if driver.poll() is not None:
        return False
    workers = _workers(process)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while alive := [worker for worker in workers if _is_alive(worker)]:
        assert time.monotonic() < deadline, f"workers outlive their driver: {[worker.pid for worker in alive]}"
        time.sleep(POLL_S)
    return True


def _kill_worker(process: psutil.Process) -> bool:
    for worker in _workers(process):
        try:
            worker.kill()
        except psutil.NoSuchProcess:
            continue
        return True
    return False


def _workers(process: psutil.Process) -> list[psutil.Process]:
    """Worker processes of the driver's Ray that hold a stage, in random order."""
    found = []
    for child in _children(process):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        if command and command[0].startswith(WORKER_PREFIXES):
            found.append(child)
    random.shuffle(found)
    return found


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
