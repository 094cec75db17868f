"""A step whose driver or workers are killed with SIGKILL, then run again, leaves what an undisturbed run leaves."""

import random
from pathlib import Path

import pytest

from tests.faults.harness import count_markers, run_command, run_through_kills, step_contents
from tests.faults.toy import ROWS_PER_SHARD, run_toy
from workflows.ledger import Ledger
from workflows.storage import Folder

pytestmark = pytest.mark.timeout(1800)

SHARDS = 20


def toy_command(out: Path, *options: str) -> list[str]:
    return ["-m", "tests.faults.toy", str(out), "--shards", str(SHARDS), *options]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> dict[str, object]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run_toy(str(out), shards=SHARDS, square={"raise_at": (33,)})
    return step_contents(out)


def test_a_driver_killed_at_random_moments_loses_and_repeats_nothing(
    tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    out = tmp_path / "out"
    command = toy_command(out, "--sleep-s", "0.2", "--raise-at", "33")
    hits, last = run_through_kills(command, watch=out, kills=4, markers_per_kill=5, seed=random.randrange(10**6))
    assert hits >= 2, last.output
    assert last.exit_code == 0, last.output
    assert step_contents(out) == undisturbed
    assert not (out / "lock.json").exists() and not (out / "attempts").exists()


def test_killed_workers_are_replaced_within_the_run(tmp_path: Path, undisturbed: dict[str, object]) -> None:
    out = tmp_path / "out"
    command = toy_command(out, "--sleep-s", "0.2", "--raise-at", "33")
    outcome = run_command(command, watch=out, kill="worker", after_markers=random.randint(1, 8))
    assert outcome.was_killed and outcome.exit_code == 0, outcome.output
    assert step_contents(out) == undisturbed


def test_a_killed_driver_never_blames_a_row(tmp_path: Path) -> None:
    """Three drivers die while a row that kills its worker is being isolated; only that row is set aside."""
    out = tmp_path / "out"
    command = toy_command(out, "--die-at", "13")
    for _ in range(3):
        run_command(command, watch=out, kill="driver", after_markers=1, delay_s=random.uniform(0.0, 2.0))
    assert run_command(command, watch=out).exit_code == 0
    set_aside = Ledger.read(Folder(str(out))).read_quarantine()["row_id"].to_pylist()
    assert set_aside == ["row-13"]
    rows = Ledger.read(Folder(str(out))).read_table()["number"].to_pylist()
    assert sorted(rows) == [n for n in range(SHARDS * ROWS_PER_SHARD) if n % 10 and n != 13]


def test_the_harness_counts_markers_of_every_step_below(tmp_path: Path) -> None:
    for step, count in (("a", 2), ("b/c", 3)):
        for number in range(count):
            Folder(str(tmp_path / step)).write_json(f"done/{number}.json", {})
    Folder(str(tmp_path)).write_json("a/step.json", {})
    assert count_markers(tmp_path) == 5
