"""Killed anywhere between videos and matches, nothing is lost and nothing is there twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import run_command, run_through_kills, step_contents, step_folders
from tests.faults.line import Line, make_line

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

STEPS: dict[str, Callable[[Line, Path, str], list[str]]] = {
    "ingest": lambda line, good, out: line.ingest(out),
    "index": lambda line, good, out: line.index(str(good / "frames"), out),
    "search": lambda line, good, out: line.search(str(good / "index"), out),
}
OUTPUTS = {"ingest": "frames", "index": "index", "search": "matches"}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    local = tmp_path_factory.mktemp("line")
    return make_line(local, str(local / "archive"))


@pytest.fixture(scope="module")
def undisturbed(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a run that nobody killed."""
    good = tmp_path_factory.mktemp("undisturbed")
    for name, command in STEPS.items():
        outcome = run_command(command(line, good, str(good / OUTPUTS[name])), watch=good / OUTPUTS[name])
        assert outcome.exit_code == 0, outcome.output
    return good


def contents(folder: Path) -> dict[str, dict[str, object]]:
    """Every step below a folder, by its place in it."""
    return {str(step.relative_to(folder)): step_contents(step) for step in step_folders(folder)}


@pytest.mark.parametrize(
    ("name", "victim", "kills", "seed"),
    [
        ("ingest", "driver", 6, 1), ("index", "driver", 6, 2), ("search", "driver", 8, 3),  # 20 moments
        ("ingest", "worker", 2, 4), ("index", "worker", 2, 5), ("search", "worker", 2, 6),
    ],
)  # fmt: skip
def test_kills_leave_no_trace(
    line: Line, undisturbed: Path, tmp_path: Path, name: str, victim: str, kills: int, seed: int
) -> None:
    out = tmp_path / OUTPUTS[name]
    command = STEPS[name](line, undisturbed, str(out))
    hits, last = run_through_kills(command, watch=out, kills=kills, markers_per_kill=3, seed=seed, victim=victim)
    assert hits > 0
    assert last.exit_code == 0, last.output
    assert contents(out) == contents(undisturbed / OUTPUTS[name])


def test_a_finished_step_does_nothing_again(line: Line, undisturbed: Path) -> None:
    for name, command in STEPS.items():
        out = undisturbed / OUTPUTS[name]
        before = {p: p.stat().st_mtime_ns for p in out.rglob("part-*.parquet")}
        outspoken = [word for word in command(line, undisturbed, str(out)) if word != "--quiet"]
        outcome = run_command(outspoken, watch=out)
        assert outcome.exit_code == 0
        assert "already complete" in outcome.output, outcome.output
        assert {p: p.stat().st_mtime_ns for p in out.rglob("part-*.parquet")} == before
